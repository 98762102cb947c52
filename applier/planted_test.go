//go:build planted

package applier_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Each bug that can be planted in this package changes what becomes of an entry, and
// no longer than it is planted.
func TestPlanted(t *testing.T) {
	stopped := history(t, boot(), rotation(3, key.Storage), applier.Stop{Key: 1})
	registered := history(t, boot(), registration(1, 11, 4, 1))
	for _, tt := range []struct {
		bug     planted.Bug
		s       *applier.State
		e       applier.Entry
		reason  error
		correct func(before, after *applier.State) bool // whether nothing happened
	}{
		{
			planted.RejectedAdvances, registered,
			applier.Stop{Key: 1},
			applier.ErrKeyActive,
			func(before, after *applier.State) bool { return before.Index() == after.Index() },
		},
		{
			planted.DestroyWithoutEvidence, stopped,
			applier.Destroy{Key: 1, Stopped: 30, Members: []nodeid.ID{11}},
			applier.ErrEvidence,
			func(_, after *applier.State) bool { k, _ := after.Key(1); return k.State == key.Stopped },
		},
		{
			planted.SameEpochAccepted, registered, registration(1, 11, 4, 2), applier.ErrSameEpoch,
			func(_, after *applier.State) bool { w, _ := after.Writer(1, 11); return w.Load == applier.LoadID{1} },
		},
	} {
		try := func() bool {
			after, _, err := tt.s.Apply(100, tt.e)
			require.NoError(t, err)
			return tt.correct(tt.s, after)
		}
		_, o, err := tt.s.Apply(100, tt.e)
		require.NoError(t, err)
		require.ErrorIs(t, o.Why, tt.reason, "%v", tt.bug)
		require.True(t, try(), "%v", tt.bug)
		remove := planted.Plant(tt.bug)
		require.False(t, try(), "%v", tt.bug)
		remove()
		require.True(t, try(), "%v", tt.bug)
	}
}
