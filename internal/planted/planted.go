// Package planted has the bugs that this module's own tests plant into it, to see
// that they would be found. Without the build tag "planted" there are none: Has is
// a constant false, and the compiler leaves out what depends on it.
package planted

// Bug is a bug that can be planted.
type Bug uint8

// The bugs.
const (
	EpochBumpSkipped       Bug = iota // a start takes the epoch of the last one
	ReplayLowersEpoch                 // an old row of the registry sets the epoch back
	FallbackUnderStopped              // seals go on under a stopped key
	MACUnchecked                      // any snapshot is taken for authentic
	RejectedAdvances                  // a rejected entry advances the state's index
	DestroyWithoutEvidence            // a key is destroyed while it is needed
	SameEpochAccepted                 // two loads may register one epoch
	bugs
)

// All are the bugs.
func All() []Bug {
	all := make([]Bug, bugs)
	for i := range all {
		all[i] = Bug(i)
	}
	return all
}

// String returns the bug's name.
func (b Bug) String() string {
	return [...]string{
		"epoch bump skipped", "replay lowers an epoch", "fallback under a stopped key", "MAC not checked",
		"rejected entry advances the index", "destroy without evidence", "same-epoch registration accepted",
	}[b]
}
