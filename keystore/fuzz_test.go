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

// requireOpen gives env to open: no panic, nothing with an error, nothing changed
// but the room behind dst. What opens has a key of ids, and is what seal makes.
func requireOpen(t *testing.T, env []byte, open, seal func(dst, b []byte) ([]byte, error), ids ...key.ID) bool {
	t.Helper()
	before := bytes.Clone(env)
	dst := append(make([]byte, 0, 100), "before"...)
	got, err := open(dst, env)
	require.Equal(t, before, env)
	require.Equal(t, "before", string(dst))
	if err != nil {
		require.Nil(t, got)
		return false
	}
	require.Equal(t, "before", string(got[:6]))
	h, err := envelope.ParseHeader(env)
	require.NoError(t, err)
	require.Len(t, env, h.Suite.Overhead()+len(got)-6)
	require.Contains(t, ids, h.KeyID)

	again, err := seal(nil, got[6:])
	require.NoError(t, err)
	back, err := open(nil, again)
	require.NoError(t, err)
	require.Equal(t, got[6:], back)
	return true
}

func FuzzStorageOpen(f *testing.F) {
	f.Add([]byte(nil), []byte(nil))
	f.Add(counted7, location)
	f.Add(counted7, []byte("elsewhere"))
	s := fuzzed(f)
	v := s.Storage()
	f.Fuzz(func(t *testing.T, env, location []byte) {
		before := bytes.Clone(location)
		opened := requireOpen(t, env,
			func(dst, b []byte) ([]byte, error) { return v.Open(dst, b, location) },
			func(dst, b []byte) ([]byte, error) { return v.Seal(dst, b, location) },
			1, 7)
		require.Equal(t, before, location)
		if opened {
			_, err := s.Raft(group).Open(nil, env)
			require.ErrorIs(t, err, keystore.ErrPurpose, "a value is no payload")
		}
	})
}

func FuzzRaftOpen(f *testing.F) {
	f.Add([]byte(nil), "")
	f.Add(counted7, group.Label)
	s := fuzzed(f)
	f.Fuzz(func(t *testing.T, env []byte, label string) {
		r := s.Raft(envelope.RaftGroup{Cluster: group.Cluster, Label: label})
		if requireOpen(t, env, r.Open, r.Seal, 2) {
			_, err := s.Storage().Open(nil, env, nil)
			require.ErrorIs(t, err, keystore.ErrPurpose, "a payload is no value")
		}
	})
}
