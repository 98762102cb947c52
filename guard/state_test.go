package guard_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/guard"
)

func TestKeysMissing(t *testing.T) {
	require.NoError(t, guard.KeysMissing(true, true, "data/keys.json"))
	require.NoError(t, guard.KeysMissing(true, false, "data/keys.json"), "keys, and nothing sealed yet")
	require.NoError(t, guard.KeysMissing(false, false, "data/keys.json"), "a new node")
	r := refusal(t, guard.KeysMissing(false, true, "data/keys.json"), guard.ErrKeysMissing)
	require.Contains(t, r.Error(), "data/keys.json")
}

func TestBehindLog(t *testing.T) {
	for _, tt := range []struct {
		name   string
		r      guard.Range
		refuse bool
	}{
		{"nothing anywhere", guard.Range{}, false},
		{"a new log", guard.Range{First: 1}, false},
		{"all of the log is there", guard.Range{Applied: 50, First: 1}, false},
		{"the log begins behind the state", guard.Range{State: 10, Applied: 50, First: 11}, false},
		{"the log begins in the state", guard.Range{State: 10, Applied: 50, First: 5}, false},
		{"one entry is gone", guard.Range{State: 10, Applied: 50, First: 12}, true},
		{"all entries are gone", guard.Range{State: 10, Applied: 50, First: 51}, true},
		{"the store is at the state", guard.Range{State: 50, Applied: 50, First: 90}, false},
		{"the store is behind the state", guard.Range{State: 50, Applied: 40, First: 90}, false},
		{"a store in memory", guard.Range{State: 50, First: 90}, false},
		{"compacted after the last entry of ours, and recorded", guard.Range{State: 10, Applied: 50, First: 41, Through: 40}, false},
		{"recorded up to the store", guard.Range{State: 10, Applied: 50, First: 51, Through: 50}, false},
		{"recorded one short", guard.Range{State: 10, Applied: 50, First: 41, Through: 39}, true},
		{"recorded less than the state", guard.Range{State: 10, Applied: 50, First: 12, Through: 5}, true},
		{"a snapshot covers it", guard.Range{State: 10, Applied: 50, First: 41, Snapshot: 40}, false},
		{"a snapshot one short", guard.Range{State: 10, Applied: 50, First: 41, Snapshot: 39}, true},
		{"a snapshot or the record suffices", guard.Range{State: 10, Applied: 50, First: 41, Through: 5, Snapshot: 45}, false},
		{"neither of both", guard.Range{State: 10, Applied: 50, First: 41, Through: 20, Snapshot: 30}, true},
		{"no keys yet, and the log is compacted", guard.Range{Applied: 50, First: 41}, true},
		{"the largest index", guard.Range{State: math.MaxUint64, Applied: math.MaxUint64, First: math.MaxUint64}, false},
		{"the largest index is gone", guard.Range{State: 1, Applied: math.MaxUint64, First: math.MaxUint64}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := guard.BehindLog(tt.r)
			if !tt.refuse {
				require.NoError(t, err)
				return
			}
			requireRefusal(t, err, guard.ErrBehindLog)
		})
	}
}

// BehindLog, one index at a time: it refuses if the host applied an entry above
// the state, and one between what is known and the log's first is nowhere.
func TestBehindLogOneByOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := rapid.Uint64Range(0, 12)
		r := guard.Range{
			State: index.Draw(t, "state"), Applied: index.Draw(t, "applied"), First: index.Draw(t, "first"),
			Through: index.Draw(t, "through"), Snapshot: index.Draw(t, "snapshot"),
		}
		lost := false
		for i := uint64(1); i < r.First; i++ {
			lost = lost || i > r.State && i > r.Through && i > r.Snapshot
		}
		require.Equal(t, lost && r.Applied > r.State, guard.BehindLog(r) != nil)
	})
}
