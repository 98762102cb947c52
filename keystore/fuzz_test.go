package keystore_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// fuzzed returns a store with keys of every kind, the same in every run: 1 active
// and 7 stopped for storage, 2 for Raft, 3 destroyed.
func fuzzed(t testing.TB) *keystore.Store {
	t.Helper()
	s := newStore(t)
	require.NoError(t, s.Install(1, key.Storage, fixedDEK(t, 1)))
	require.NoError(t, s.Activate(1))
	require.NoError(t, s.Install(2, key.Raft, fixedDEK(t, 2)))
	require.NoError(t, s.Activate(2))
	require.NoError(t, s.InstallDestroyed(3, key.Storage))
	require.NoError(t, s.Install(7, key.Storage, fixedDEK(t, 7)))
	require.NoError(t, s.Stop(7))
	return s
}

// Whatever is given to Open: no panic, nothing with an error, nothing changed but
// the room behind dst; and what opens is what Seal makes.
func FuzzStorageOpen(f *testing.F) {
	f.Add([]byte(nil), []byte(nil))
	f.Add(counted7, location)
	f.Add(counted7, []byte("elsewhere"))
	s := fuzzed(f)
	v := s.Storage()
	f.Fuzz(func(t *testing.T, env, location []byte) {
		envBefore, locationBefore := bytes.Clone(env), bytes.Clone(location)
		dst := append(make([]byte, 0, 100), "before"...)
		got, err := v.Open(dst, env, location)
		require.Equal(t, envBefore, env)
		require.Equal(t, locationBefore, location)
		require.Equal(t, "before", string(dst))
		if err != nil {
			require.Nil(t, got)
			return
		}
		require.Equal(t, "before", string(got[:6]))
		h, err := envelope.ParseHeader(env)
		require.NoError(t, err)
		require.Len(t, env, h.Suite.Overhead()+len(got)-6)
		require.Contains(t, []key.ID{1, 7}, h.KeyID)

		again, err := v.Seal(nil, got[6:], location)
		require.NoError(t, err)
		back, err := v.Open(nil, again, location)
		require.NoError(t, err)
		require.Equal(t, got[6:], back)

		_, err = s.Raft(group).Open(nil, env)
		require.ErrorIs(t, err, keystore.ErrPurpose, "a value is no payload")
	})
}

// The same for payloads and the label of their group.
func FuzzRaftOpen(f *testing.F) {
	s := fuzzed(f)
	f.Add([]byte(nil), "")
	f.Add(counted7, group.Label)
	f.Fuzz(func(t *testing.T, env []byte, label string) {
		r := s.Raft(envelope.RaftGroup{Cluster: group.Cluster, Label: label})
		before := bytes.Clone(env)
		dst := append(make([]byte, 0, 100), "before"...)
		got, err := r.Open(dst, env)
		require.Equal(t, before, env)
		require.Equal(t, "before", string(dst))
		if err != nil {
			require.Nil(t, got)
			return
		}
		require.Equal(t, "before", string(got[:6]))
		h, err := envelope.ParseHeader(env)
		require.NoError(t, err)
		require.Equal(t, key.ID(2), h.KeyID)
		require.Len(t, env, h.Suite.Overhead()+len(got)-6)
		again, err := r.Seal(nil, got[6:])
		require.NoError(t, err)
		back, err := r.Open(nil, again)
		require.NoError(t, err)
		require.Equal(t, got[6:], back)
	})
}
