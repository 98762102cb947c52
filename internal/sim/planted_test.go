//go:build planted

package sim_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/internal/sim"
)

// enough is the number of scenarios within which a planted bug has to be found.
const enough = 5000

// find runs scenarios until one fails, and returns their number.
func find(t *testing.T, o sim.Options) (int, *sim.ViolationError) {
	t.Helper()
	scripts := rapid.Custom(scenario)
	for i := range enough {
		_, err := run(t, scripts.Example(i), o)
		if v := new(sim.ViolationError); errors.As(err, &v) {
			return i + 1, v
		}
	}
	t.Fatalf("not found in %d scenarios", enough)
	return 0, nil
}

// Each planted bug is found.
func TestPlantedBugs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, b := range planted.All() {
		t.Run(b.String(), func(t *testing.T) {
			defer planted.Plant(b)()
			n, v := find(t, sim.Options{Pinned: true})
			t.Logf("found after %d scenarios: %v", n, v)
		})
	}
}

// Those that break a rule which the oracle knows are also found by what comes of them.
func TestPlantedBugsByConsequence(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	tests := []struct {
		bug    planted.Bug
		ignore []string // the rules that say it at once
		rules  []string // one of which has to be broken in the end
	}{
		{
			planted.EpochBumpSkipped,
			[]string{"a start takes no epoch"},
			[]string{"a node does not register", "two loads share an epoch", "a nonce is used twice"},
		},
		{
			planted.SameEpochAccepted,
			[]string{"wrong outcome", "wrong key state"},
			[]string{"two loads share an epoch", "a nonce is used twice"},
		},
		{
			planted.DestroyWithoutEvidence,
			[]string{"wrong outcome", "wrong key state", "a key may be destroyed that is needed"},
			[]string{"a value does not open", "a node stops for no reason"},
		},
		{
			planted.RejectedAdvances,
			[]string{"an entry without effect changes the key state", "an entry without effect leaves a trace"},
			[]string{"wrong key state", "wrong index of the key state", "a node lacks entries", "a key state that no entry led to", "key states differ"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.bug.String(), func(t *testing.T) {
			defer planted.Plant(tt.bug)()
			n, v := find(t, sim.Options{Pinned: true, Ignore: tt.ignore})
			t.Logf("found after %d scenarios: %v", n, v)
			require.Contains(t, tt.rules, v.Rule)
		})
	}
}

// Where nothing is planted, the same scenarios find nothing.
func TestPlantedNone(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	scripts := rapid.Custom(scenario)
	for i := range 300 {
		s := scripts.Example(i)
		_, err := run(t, s, sim.Options{Pinned: true})
		require.NoError(t, err, "%v", s)
	}
}
