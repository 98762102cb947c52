package guard_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
)

// wrapped returns the container of a DEK that differs for each id and salt.
func wrapped(t testing.TB, cluster byte, id key.ID, p key.Purpose, salt byte) applier.WrappedKey {
	t.Helper()
	c := key.Container{
		Header:     key.Header{Cluster: key.ClusterID{cluster}, ID: id, Purpose: p, Check: key.Check{byte(id), salt}},
		Recipients: []key.Recipient{{KEK: "kms:a", Wrap: []byte("wrapped")}},
	}
	b, err := c.Append(nil)
	require.NoError(t, err)
	return applier.WrappedKey{ID: id, Wrap: b}
}

func bootstrap(t testing.TB, cluster byte) applier.Entry {
	t.Helper()
	return applier.Bootstrap{Storage: wrapped(t, cluster, 1, key.Storage, 0), Raft: wrapped(t, cluster, 2, key.Raft, 0)}
}

func rotation(t testing.TB, id key.ID, salt byte) applier.Entry {
	t.Helper()
	return applier.Rotation{
		Key: wrapped(t, 1, id, key.Storage, salt), Purpose: key.Storage,
		Proposer: applier.WriterRow{Key: id, Node: 5, Epoch: 1},
	}
}

// at is an entry and its index.
type at struct {
	index uint64
	entry applier.Entry
}

func state(t testing.TB, entries ...at) *applier.State {
	t.Helper()
	s := applier.New(applier.Generation2)
	for _, e := range entries {
		next, out, err := s.Apply(e.index, e.entry)
		require.NoError(t, err)
		require.Equal(t, applier.Applied, out.Kind, "entry %d: %v", e.index, out.Why)
		s = next
	}
	return s
}

// found is a state of generation 1, whose wraps differ for each salt.
func found(t testing.TB, index uint64, salt byte, ids ...key.ID) *applier.State {
	t.Helper()
	f := applier.Found{Index: index, Storage: ids[len(ids)-1], Raft: 2}
	f.Keys = append(f.Keys, applier.Key{ID: 2, Purpose: key.Raft, Container: []byte{2}})
	for _, id := range ids {
		f.Keys = append(f.Keys, applier.Key{ID: id, Purpose: key.Storage, Container: []byte{byte(id), salt}})
	}
	s, err := applier.TakeOver(f)
	require.NoError(t, err)
	return s
}

// cutFound is one with a storage cutover that does not say where.
func cutFound(t testing.TB, index uint64) *applier.State {
	t.Helper()
	s, err := applier.TakeOver(applier.Found{
		Index: index, Storage: 7, Raft: 2, StorageCutover: applier.Cutover{Active: true},
		Keys: []applier.Key{
			{ID: 2, Purpose: key.Raft, Container: []byte{2}}, {ID: 7, Purpose: key.Storage, Container: []byte{7, 1}},
		},
	})
	require.NoError(t, err)
	return s
}

func TestDivergence(t *testing.T) {
	var (
		storage = applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 5, Epoch: 1}}
		raft    = applier.EnableRaft{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 5, Epoch: 1}}
		first   = at{3, bootstrap(t, 1)}

		plain      = state(t, first)
		rotated    = state(t, first, at{5, rotation(t, 7, 0)})
		rotatedTwo = state(t, first, at{5, rotation(t, 7, 1)})
		storage4   = state(t, first, at{4, storage})
		storage6   = state(t, first, at{6, storage})
		storage4On = state(t, first, at{4, storage}, at{9, rotation(t, 7, 0)})
		raft4      = state(t, first, at{4, raft})
		raft6      = state(t, first, at{6, raft})
		both       = state(t, first, at{4, storage}, at{5, raft})
	)
	for _, tt := range []struct {
		name   string
		a, b   *applier.State
		refuse string // what the text has, empty for none
	}{
		{"no keys on either side", state(t), state(t), ""},
		{"no keys on one side", state(t), plain, ""},
		{"the same", plain, state(t, first), ""},
		{"a newer one", plain, rotated, ""},
		{"a cutover later", plain, storage4, ""},
		{"both cutovers later", plain, both, ""},
		{"one more cutover", storage4, both, ""},
		{"a rotation after the cutover", storage4, storage4On, ""},
		{"another cluster", plain, state(t, at{3, bootstrap(t, 2)}), "cluster"},
		{"another cluster, newer", plain, state(t, at{30, bootstrap(t, 2)}), "cluster"},
		{"one index, another key", rotated, rotatedTwo, "digests"},
		{"storage cutover elsewhere", storage4, storage6, "storage cutover at entry"},
		{"raft cutover elsewhere", raft4, raft6, "raft cutover at entry"},
		{"the newer one lacks the storage cutover", storage4, rotated, "not at all"},
		{"the newer one lacks the raft cutover", raft4, rotated, "not at all"},
		{"the older one should have the cutover", rotated, storage4On, "not at all"},
		{"one index, one with a cutover", state(t, first, at{4, rotation(t, 7, 0)}), storage4, "not at all"},
		{"a key that the newer one lacks", rotated, state(t, first, at{6, rotation(t, 8, 0)}), "the same key 7"},
		{"another key under one id", rotated, state(t, first, at{6, rotation(t, 7, 1)}), "the same key 7"},
		{"generation 1, the same", found(t, 5, 1, 7), found(t, 6, 1, 7, 8), ""},
		{"generation 1, the newer one lacks the cutover", cutFound(t, 5), found(t, 6, 1, 7), "not at all"},
		{"generation 1, one that does not know where", found(t, 5, 1, 7), cutFound(t, 6), ""},
		{"generation 1, another cluster under the same KEK", found(t, 5, 1, 7), found(t, 6, 1, 8), "the same key 7"},
		{"generation 1, another purpose", found(t, 5, 1, 7, 8), found(t, 6, 1, 7, 8), ""},
		{"generation 1, another key under one id", found(t, 5, 1, 7), found(t, 6, 2, 7), "the same key 7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, err := range []error{guard.Divergence(tt.a, tt.b), guard.Divergence(tt.b, tt.a)} {
				if tt.refuse == "" {
					require.NoError(t, err)
					continue
				}
				require.Contains(t, refusal(t, err, guard.ErrDivergence).Error(), tt.refuse)
			}
		})
	}
}
