package guard

import (
	"fmt"
)

// KeysMissing refuses to go on without keys where the store, the log or a snapshot
// shows that there were some. where names what should hold them.
func KeysMissing(bootstrapped, sealed bool, where string) error {
	if bootstrapped || !sealed {
		return nil
	}
	return &Refusal{
		Reason: ErrKeysMissing,
		Detail: where + " has none, but the store, the log or a snapshot shows that there were keys",
		Do:     "put back the last copy that this node wrote, or restore a snapshot in this start; else " + rejoin,
	}
}

// Range says up to where things are known when a node starts. 0 is nothing.
type Range struct {
	State    uint64 // the entry that changed the key state last
	Applied  uint64 // the last entry in the host's store
	First    uint64 // the first entry that the log still has
	Through  uint64 // every entry up to here is recorded to be in the state
	Snapshot uint64 // every entry up to here is in a snapshot that was restored
}

// BehindLog refuses a start where the host has applied entries that the key state
// may lack and that the log has no more. Entries that it still has can be looked
// through.
func BehindLog(r Range) error {
	known := max(r.State, r.Through, r.Snapshot)
	if r.Applied <= r.State || r.First == 0 || known >= r.First-1 {
		return nil
	}
	return &Refusal{
		Reason: ErrBehindLog,
		Detail: fmt.Sprintf("entries %d to %d were applied and are no longer in the log, which begins with %d, "+
			"and nothing says that the keys in them are here", known+1, r.First-1, r.First),
		Do: "restore a snapshot of this cluster in this start; else " + rejoin,
	}
}
