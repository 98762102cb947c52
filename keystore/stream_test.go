package keystore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
)

func TestStreamKeys(t *testing.T) {
	s := newStore(t)
	_, _, _, err := s.NewStreamKey()
	require.ErrorIs(t, err, keystore.ErrNoActiveKey)
	require.NoError(t, s.Install(1, key.Storage, fixedDEK(t, 7)))
	require.NoError(t, s.Install(2, key.Raft, fixedDEK(t, 8)))
	require.NoError(t, s.Activate(2))
	_, _, _, err = s.NewStreamKey()
	require.ErrorIs(t, err, keystore.ErrNoActiveKey, "a Raft key is none for streams")
	require.NoError(t, s.Activate(1))

	seen := map[string]bool{}
	for range 100 {
		id, salt, k, err := s.NewStreamKey()
		require.NoError(t, err)
		require.Equal(t, key.ID(1), id)
		again, err := s.StreamKey(id, salt)
		require.NoError(t, err)
		require.True(t, key.EqualDEK(k, again))
		// HKDF-Extract of RFC 5869, under the subkey of streams.
		subkey := expandByHand(insecurekey.Bytes(fixedDEK(t, 7)), "atrest/v2/stream")
		require.Equal(t, hmacByHand(salt[:], subkey), insecurekey.Bytes(k))
		seen[string(salt[:])] = true
	}
	require.Len(t, seen, 100)
	require.Equal(t, envelope.Usage{Seals: 100}, usage(t, s, 1), "opening costs nothing")

	_, err = s.StreamKey(3, [keystore.StreamSalt]byte{})
	requireKeyError(t, err, 3, keystore.ErrUnknownKey)
	_, err = s.StreamKey(2, [keystore.StreamSalt]byte{})
	requireKeyError(t, err, 2, keystore.ErrPurpose)
}

func TestStreamKeysByState(t *testing.T) {
	s := newStore(t)
	install(t, s, 1, 2)
	require.NoError(t, s.Activate(1))
	_, salt, k, err := s.NewStreamKey()
	require.NoError(t, err)
	opens := func() {
		again, err := s.StreamKey(1, salt)
		require.NoError(t, err)
		require.True(t, key.EqualDEK(k, again))
	}
	require.NoError(t, s.Activate(2))
	id, _, _, err := s.NewStreamKey()
	require.NoError(t, err)
	require.Equal(t, key.ID(2), id)
	opens()
	require.NoError(t, s.Stop(1))
	opens()
	require.NoError(t, s.Deactivate(key.Storage))
	_, _, _, err = s.NewStreamKey()
	require.ErrorIs(t, err, keystore.ErrNoActiveKey)
	require.NoError(t, s.Destroy(1))
	_, err = s.StreamKey(1, salt)
	requireKeyError(t, err, 1, keystore.ErrDestroyed)
	require.False(t, keystore.HasStreamKey(s, 1), "nothing derived is kept")
}

// A subkey whose key is destroyed while it is derived is not kept for good.
func TestStreamKeyThatMeetsDestroyIsNotKept(t *testing.T) {
	s := newStore(t)
	install(t, s, 1)
	require.NoError(t, s.Stop(1))
	finish := keystore.BeginStreamKey(s, 1)
	require.NoError(t, s.Destroy(1))
	finish()
	require.False(t, keystore.HasStreamKey(s, 1))
}

func TestStreamKeysWithinLimits(t *testing.T) {
	s := newStore(t, keystore.WithLimits(keystore.Limits{Seals: 3, Bytes: 1 << 20, Refuse: true}))
	install(t, s, 1)
	require.NoError(t, s.Activate(1))
	for range 3 {
		_, _, _, err := s.NewStreamKey()
		require.NoError(t, err)
	}
	_, _, _, err := s.NewStreamKey()
	requireKeyError(t, err, 1, keystore.ErrBudget)
	require.Equal(t, envelope.Usage{Seals: 3}, usage(t, s, 1))
}

// Streams that begin while keys change get the key of the moment, and never one that
// was stopped before they asked.
func TestStreamKeysMeetRotation(t *testing.T) {
	s := newStore(t)
	install(t, s, 1)
	require.NoError(t, s.Activate(1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for id := key.ID(2); id < 200; id++ {
			if s.Install(id, key.Storage, key.NewDEK()) != nil || s.Activate(id) != nil || s.Stop(id-1) != nil || s.Destroy(id-1) != nil {
				t.Error("rotation failed")
				return
			}
		}
	}()
	for last := key.ID(0); ; {
		id, _, k, err := s.NewStreamKey()
		require.NoError(t, err)
		require.False(t, k.IsZero())
		require.GreaterOrEqual(t, id, last)
		last = id
		select {
		case <-done:
			return
		default:
		}
	}
}
