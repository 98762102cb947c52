package keystore_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

func TestDeactivate(t *testing.T) {
	s := sealing(t)
	require.NoError(t, s.Install(2, key.Raft, key.NewDEK()))
	require.NoError(t, s.Activate(2))
	v := s.Storage()
	env, err := v.Seal(nil, value, location)
	require.NoError(t, err)

	for range 2 { // the second time there is nothing to do
		require.NoError(t, s.Deactivate(key.Storage))
		id, ok := s.Active(key.Storage)
		require.Zero(t, id)
		require.False(t, ok)
		got := status(t, s, 1)
		require.Equal(t, key.OpenOnly, got.State)
		require.Zero(t, got.Suite)
		require.EqualValues(t, 1, got.Usage.Seals, "what was not used went back")
	}
	none, err := v.Seal([]byte("kept"), value, location)
	require.ErrorIs(t, err, keystore.ErrNoActiveKey)
	require.Nil(t, none)
	got, err := v.Open(nil, env, location)
	require.NoError(t, err)
	require.Equal(t, value, got)
	require.Equal(t, key.Active, status(t, s, 2).State, "the other purpose is left alone")

	requireKeyError(t, s.ActivateCounted(1, envelope.Writer{Node16: 1, Epoch: 1}), 1, keystore.ErrEpochUsed)
	require.NoError(t, s.ActivateCounted(1, envelope.Writer{Node16: 1, Epoch: 2}))
	_, err = v.Seal(nil, value, location)
	require.NoError(t, err)
	require.NoError(t, s.Deactivate(key.Storage))
	require.NoError(t, s.Stop(1), "it is not active")
	require.NoError(t, s.Destroy(1))

	for _, p := range []key.Purpose{0, 3, 255} {
		require.ErrorIs(t, s.Deactivate(p), key.ErrPurpose)
	}
	require.NoError(t, newStore(t).Deactivate(key.Raft), "nothing was ever active")
}

// No seal that starts after Deactivate returned succeeds before the next
// activation, and none fails in another way.
func TestDeactivateMeetsSeals(t *testing.T) {
	const rounds = 4000 / scale
	var (
		s    = sealing(t)
		off  atomic.Uint64 // the round in which nothing is active, 0 while there may be
		over atomic.Bool
		wg   sync.WaitGroup
		did  [4]nonces
	)
	for g := range did {
		wg.Go(func() {
			v, dst := s.Storage(), make([]byte, 0, 256)
			for !over.Load() {
				before := off.Load()
				env, err := v.Seal(dst, value, location)
				if err == nil {
					did[g].add(env)
					if after := off.Load(); before != 0 && before == after {
						t.Error("sealed with no active key")
						return
					}
				} else if !assert.ErrorIs(t, err, keystore.ErrNoActiveKey) {
					return
				}
			}
		})
	}
	for n := uint64(1); n <= rounds; n++ {
		require.NoError(t, s.Deactivate(key.Storage))
		off.Store(n)
		_, err := s.Storage().Seal(nil, value, location)
		require.ErrorIs(t, err, keystore.ErrNoActiveKey)
		off.Store(0)
		if n%2 == 0 {
			require.NoError(t, s.Activate(1))
		} else {
			require.NoError(t, s.ActivateCounted(1, envelope.Writer{Node16: 1, Epoch: uint16(n + 1)}))
		}
	}
	over.Store(true)
	wg.Wait()
	counted, extended := requireUnique(t, did[:]...)
	require.EqualValues(t, counted+extended, status(t, s, 1).Usage.Seals, "every seal is counted once")
}
