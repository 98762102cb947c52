package atrest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// parsed is the entry that a builder made.
func parsed[E applier.Entry](t testing.TB, entry []byte, err error) E {
	t.Helper()
	require.NoError(t, err)
	require.True(t, atrest.IsEntry(entry))
	e, err := applier.Generation2.Parse(entry)
	require.NoError(t, err)
	return e.(E)
}

// builders are all that make an entry, with arguments that are good where keys and
// states allow.
func builders(ctx context.Context, n *atrest.Node, ms []nodeid.Member, id key.ID) map[string]func() ([]byte, error) {
	return map[string]func() ([]byte, error){
		"bootstrap":      func() ([]byte, error) { return n.NewBootstrap(ctx, ms) },
		"rotation":       func() ([]byte, error) { return n.NewRotation(ctx, key.Raft) },
		"rewrap":         func() ([]byte, error) { es, err := n.NewRewrap(ctx, id); return slices.Concat(es...), err },
		"stop":           func() ([]byte, error) { return n.NewStop(id) },
		"destroy":        func() ([]byte, error) { return n.NewDestroy(id, []nodeid.ID{n.ID()}, nil) },
		"backup":         func() ([]byte, error) { return n.NewBackup(applier.BackupID{1}, id) },
		"forget":         func() ([]byte, error) { return n.NewBackupForgotten(applier.BackupID{1}) },
		"enable storage": n.NewEnableStorage,
		"enable Raft":    n.NewEnableRaft,
		"registration":   func() ([]byte, error) { return n.NewRegistration(key.Storage) },
		"writer gone":    func() ([]byte, error) { return n.NewWriterGone(7) },
	}
}

// Before there are keys, builders say why they cannot.
func TestBuildersBeforeTheBootstrap(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.started("n1")[0]
		for name, build := range builders(t.Context(), m.node, w.ids(), 7) {
			entry, err := build()
			switch name {
			case "bootstrap":
				require.NoError(t, err, name)
				continue
			case "rewrap", "destroy":
				require.ErrorIs(t, err, applier.ErrUnknownKey, name)
			default:
				require.ErrorIs(t, err, applier.ErrNotBootstrapped, name)
			}
			require.Empty(t, entry, name)
			var r *applier.Rejection
			require.ErrorAs(t, err, &r, name)
		}
	})
}

// What builders make is applied, in the order of a key's life.
func TestBuiltEntriesAreApplied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		n := ms[0].node
		old := ms[0].active(key.Storage)
		evidence := func(k applier.Key) (all []applier.Evidence) {
			for _, m := range ms {
				all = append(all, applier.Evidence{Node: m.node.ID(), Taken: k.Stopped, FirstLog: k.Stopped + 1})
			}
			return all
		}
		for _, step := range []struct {
			name  string
			build func() ([]byte, error)
		}{
			{"rotation", func() ([]byte, error) { return n.NewRotation(t.Context(), key.Storage) }},
			{"rotation of the Raft key", func() ([]byte, error) { return n.NewRotation(t.Context(), key.Raft) }},
			{"backup", func() ([]byte, error) { return n.NewBackup(applier.BackupID{1}, old, old) }},
			{"backup of all", func() ([]byte, error) { return n.NewBackup(applier.BackupID{2}) }},
			{"stop", func() ([]byte, error) { return n.NewStop(old) }},
			{"rewrap", func() ([]byte, error) {
				es, err := n.NewRewrap(t.Context(), old, old)
				require.Len(t, es, 1)
				return es[0], err
			}},
			{"forget", func() ([]byte, error) { return n.NewBackupForgotten(applier.BackupID{1}) }},
			{"forget the other", func() ([]byte, error) { return n.NewBackupForgotten(applier.BackupID{2}) }},
			{"destroy", func() ([]byte, error) {
				k, _ := n.State().Key(old)
				all := evidence(k)
				all = append(all, all[0])
				slices.Reverse(all)
				return n.NewDestroy(old, []nodeid.ID{ms[2].node.ID(), ms[0].node.ID(), ms[1].node.ID(), ms[0].node.ID()}, all)
			}},
			{"writer gone", func() ([]byte, error) { return n.NewWriterGone(7) }},
		} {
			before := n.State().Index()
			entry, err := step.build()
			require.NoError(t, err, step.name)
			require.Equal(t, before, n.State().Index(), "%s: building changes nothing", step.name)
			i := w.commit(ms[0], entry)
			require.Contains(t, w.outcomes[i]["n1"], "applied", step.name)
			for _, m := range ms {
				require.GreaterOrEqual(t, m.node.State().Index(), i, step.name)
			}
		}
		k, _ := n.State().Key(old)
		require.Equal(t, key.Destroyed, k.State)
	})
}

func TestBuildersRefuse(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		n, ctx := ms[0].node, t.Context()
		active := ms[0].active(key.Storage)
		w.commit(ms[0], must(n.NewRotation(ctx, key.Storage)))
		k, _ := n.State().Former(key.Storage)
		for name, tt := range map[string]struct {
			build func() ([]byte, error)
			want  error
		}{
			"second bootstrap":       {func() ([]byte, error) { return n.NewBootstrap(ctx, w.ids()) }, applier.ErrBootstrapped},
			"rotation of no purpose": {func() ([]byte, error) { return n.NewRotation(ctx, 0) }, key.ErrPurpose},
			"stop of the active key": {func() ([]byte, error) { return n.NewStop(ms[0].active(key.Storage)) }, applier.ErrKeyActive},
			"stop of no key":         {func() ([]byte, error) { return n.NewStop(7) }, applier.ErrUnknownKey},
			"destroy before stop":    {func() ([]byte, error) { return n.NewDestroy(k.ID, []nodeid.ID{n.ID()}, nil) }, applier.ErrNotStopped},
			"destroy of no key":      {func() ([]byte, error) { return n.NewDestroy(7, []nodeid.ID{n.ID()}, nil) }, applier.ErrUnknownKey},
			"rewrap of no key":       {func() ([]byte, error) { _, err := n.NewRewrap(ctx, active, 7); return nil, err }, applier.ErrUnknownKey},
			"backup of no key":       {func() ([]byte, error) { return n.NewBackup(applier.BackupID{1}, 7) }, applier.ErrUnknownKey},
			"storage cutover twice":  {n.NewEnableStorage, applier.ErrDuplicate},
			"Raft cutover twice":     {n.NewEnableRaft, applier.ErrDuplicate},
			"registration twice":     {func() ([]byte, error) { return n.NewRegistration(key.Raft) }, applier.ErrDuplicate},
			"node 0 gone":            {func() ([]byte, error) { return n.NewWriterGone(0) }, applier.ErrNodeZero},
		} {
			entry, err := tt.build()
			require.ErrorIs(t, err, tt.want, name)
			require.Empty(t, entry, name)
			require.Equal(t, tt.want == applier.ErrDuplicate, strings.Contains(err.Error(), "would change nothing"), err)
		}
		w.commit(ms[0], must(n.NewStop(k.ID)))
		_, err := n.NewStop(k.ID)
		require.ErrorIs(t, err, applier.ErrDuplicate)
	})
}

// A destroyed key is not unwrapped, backed up or wrapped again.
func TestBuildersOfADestroyedKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("n1")[0]
		n, ctx := m.node, t.Context()
		old := m.active(key.Storage)
		w.commit(m, must(n.NewRotation(ctx, key.Storage)))
		stop := w.commit(m, must(n.NewStop(old)))
		gone := applier.Evidence{Node: n.ID(), Taken: stop, FirstLog: stop + 1}
		w.commit(m, must(n.NewDestroy(old, []nodeid.ID{n.ID()}, []applier.Evidence{gone})))

		_, err := n.NewRewrap(ctx, old)
		require.ErrorIs(t, err, applier.ErrKeyDestroyed)
		_, err = n.NewBackup(applier.BackupID{1}, old)
		require.ErrorIs(t, err, applier.ErrKeyDestroyed)
		_, err = n.NewStop(old)
		require.ErrorIs(t, err, applier.ErrDuplicate)
		es, err := n.NewRewrap(ctx)
		require.NoError(t, err)
		for _, w := range parsed[applier.Rewrap](t, es[0], nil).Keys {
			require.NotEqual(t, old, w.ID)
		}
		entry, err := n.NewBackup(applier.BackupID{1})
		require.NotContains(t, parsed[applier.BackupAdd](t, entry, err).Keys, old)
	})
}

// colliding is a name whose node16 is that of another one.
func colliding(with string) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("other", i); nodeid.Derive(name).Node16() == nodeid.Derive(with).Node16() {
			return name
		}
	}
}

func TestNewBootstrapMembers(t *testing.T) {
	id := nodeid.Derive
	full := []nodeid.Member{{Name: "n1", ID: id("n1")}, {Name: "n2", ID: id("n2")}}
	for _, tt := range []struct {
		name    string
		members []nodeid.Member
		want    string // in the error, if there is one
		is      error
	}{
		{name: "names and ids", members: full},
		{name: "names", members: []nodeid.Member{{Name: "n2"}, {Name: "n1"}}},
		{name: "ids", members: []nodeid.Member{{ID: id("n2")}, {ID: id("n1")}}},
		{name: "again", members: append([]nodeid.Member{{Name: "n1"}, {ID: id("n2")}}, full...)},
		{name: "nobody", want: "n1"},
		{name: "others", members: full[1:], want: "not among the 1 members"},
		{name: "empty", members: append([]nodeid.Member{{}}, full...), want: "member 1 of 3"},
		{name: "id of another name", members: []nodeid.Member{full[0], {Name: "n2", ID: 7}}, want: "member n2 cannot have the id 7"},
		{name: "collision", members: append([]nodeid.Member{{Name: colliding("n1")}}, full...), want: "n1", is: guard.ErrCollision},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				m := w.started("n1")[0]
				given, calls := slices.Clone(tt.members), m.keks[0].Calls()
				entry, err := m.node.NewBootstrap(t.Context(), tt.members)
				require.Equal(t, given, tt.members, "the list is the caller's")
				if tt.want != "" {
					require.ErrorContains(t, err, tt.want)
					require.True(t, tt.is == nil || errors.Is(err, tt.is), err)
					require.Equal(t, calls, m.keks[0].Calls(), "it can be known without a KEK")
					return
				}
				b := parsed[applier.Bootstrap](t, entry, err)
				ids := []nodeid.ID{id("n1"), id("n2")}
				slices.Sort(ids)
				var want []applier.WriterRow
				for _, id := range ids {
					want = append(want, applier.WriterRow{Key: b.Storage.ID, Node: id}, applier.WriterRow{Key: b.Raft.ID, Node: id})
				}
				require.Equal(t, want, b.Writers)
			})
		})
	}
}

// As many members as an entry has rows for can found a cluster, and no more.
func TestNewBootstrapLimit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.started("n1")[0]
		members := []nodeid.Member{{Name: "n1"}}
		for i := nodeid.ID(1); len(members) < applier.MaxBatch/2; i++ {
			if i.Node16() != m.node.ID().Node16() {
				members = append(members, nodeid.Member{ID: i})
			}
		}
		entry, err := m.node.NewBootstrap(t.Context(), members)
		require.Len(t, parsed[applier.Bootstrap](t, entry, err).Writers, applier.MaxBatch)
		i := w.commit(m, entry)
		require.Contains(t, w.outcomes[i]["n1"], "applied")
	})
	inWorld(t, func(t *testing.T, w *world) {
		m := w.started("n1")[0]
		members := []nodeid.Member{{Name: "n1"}}
		for i := nodeid.ID(1); len(members) <= applier.MaxBatch/2; i++ {
			if i.Node16() != m.node.ID().Node16() {
				members = append(members, nodeid.Member{ID: i})
			}
		}
		_, err := m.node.NewBootstrap(t.Context(), members)
		require.Error(t, err)
	})
}

func TestNoRaftCutoverWithSeveralGroups(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.join("n1")[0]
		m.opts = append(m.opts, atrest.WithSeveralGroups())
		require.NoError(t, m.start())
		w.commit(m, must(m.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(m, must(m.node.NewEnableStorage()))
		_, err := m.node.NewEnableRaft()
		require.ErrorIs(t, err, atrest.ErrConfig)
	})
}

func TestNewRegistration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold = true
		m := w.bootstrapped("n1")[0]
		entry, err := m.node.NewRegistration(key.Storage)
		r := parsed[applier.Registration](t, entry, err)
		st := m.status(m.active(key.Storage))
		require.Equal(t, applier.Registration{Key: st.ID, Node: m.node.ID(), Epoch: st.Epoch, Load: r.Load}, r)
		require.NotZero(t, r.Epoch)
		require.NotZero(t, r.Load)
		require.False(t, st.Registered)

		w.commit(m, entry)
		require.True(t, m.status(st.ID).Registered, "it counts, whoever proposed it")
		_, err = m.node.NewRegistration(key.Storage)
		require.ErrorIs(t, err, applier.ErrDuplicate)
	})
}

// Without an epoch there is nothing to register.
func TestNewRegistrationWithoutAnEpoch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("n1")[0]
		id := m.active(key.Storage)
		m.stop()
		m.fs = m.fs.Restart()
		f, err := sidecar.Open(t.Context(), dir, uint64(nodeid.Derive("n1")), m.set(), sidecar.WithFS(m.fs))
		require.NoError(t, err)
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(id, math.MaxUint16) }))
		require.NoError(t, f.Close())

		require.NoError(t, m.start())
		require.Contains(t, m.seen, atrest.Event(atrest.EpochsExhausted{Key: id}))
		_, err = m.node.NewRegistration(key.Storage)
		require.ErrorContains(t, err, "no epoch left")
		st := m.status(id)
		require.Zero(t, st.Epoch)
		require.False(t, st.Registered)
		require.Equal(t, envelope.XAES256GCM, st.Suite)
		w.commit(m, must(m.node.NewRotation(t.Context(), key.Storage)))
		require.True(t, m.status(m.active(key.Storage)).Registered, "a rotation gives new ones")
	})
}

func TestBatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(
			rapid.IntRange(1, 300),
			rapid.IntRange(1, key.MaxContainer),
			rapid.Just(key.MaxContainer),
		), 0, 40).Draw(t, "sizes")
		var keys []applier.WrappedKey
		for i, size := range sizes {
			keys = append(keys, applier.WrappedKey{ID: key.ID(i + 1), Wrap: make([]byte, size)})
		}
		var all []applier.WrappedKey
		last := 0
		for batch := range atrest.Batches(keys) {
			if len(batch) == 0 {
				t.Fatal("an empty batch")
			}
			entry, err := applier.Generation2.Append(nil, applier.Rewrap{Keys: batch})
			if err != nil {
				t.Fatalf("%d keys: %v", len(batch), err)
			}
			if first := len(batch[0].Wrap); len(all) > 0 && last+first+64*(1+len(batch)) < applier.MaxRewrap {
				t.Fatalf("%d bytes would have fitted behind %d", first, last)
			}
			all, last = append(all, batch...), len(entry)+16*len(batch)
		}
		if !slices.EqualFunc(all, keys, func(a, b applier.WrappedKey) bool { return a.ID == b.ID }) {
			t.Fatal("the batches are not the keys")
		}
	})
}

// Batches use what an entry may have, to the last bytes.
func TestBatchesAtTheLimit(t *testing.T) {
	for size := applier.MaxRewrap/4 - 100; size < applier.MaxRewrap/4; size++ {
		keys := make([]applier.WrappedKey, 4)
		for i := range keys {
			keys[i] = applier.WrappedKey{ID: key.ID(i + 1), Wrap: make([]byte, size)}
		}
		n := 0
		for batch := range atrest.Batches(keys) {
			_, err := applier.Generation2.Append(nil, applier.Rewrap{Keys: batch})
			require.NoError(t, err, "%d keys of %d bytes", len(batch), size)
			n++
		}
		require.Equal(t, size > applier.MaxRewrap/4-20, n > 1, "%d bytes", size)
	}
}

func TestInParallel(t *testing.T) {
	t.Run("all", func(t *testing.T) {
		for _, n := range []int{0, 1, 63, 64, 65, 1000} {
			did := make([]int, n)
			require.NoError(t, atrest.InParallel(n, func(i int) error { did[i]++; return nil }))
			require.Equal(t, slices.Repeat([]int{1}, n), did)
		}
	})
	t.Run("the lowest error", func(t *testing.T) {
		for name, delay := range map[string]func(i int) int{
			"first":   func(i int) int { return i },
			"last":    func(i int) int { return 100 - i },
			"between": func(i int) int { return (i + 50) % 100 },
		} {
			bubble(t, func(t *testing.T) {
				err := atrest.InParallel(100, func(i int) error {
					if i < 7 {
						return nil
					}
					<-time.After(time.Duration(delay(i)))
					return fmt.Errorf("number %d", i)
				})
				require.EqualError(t, err, "number 7", name)
			})
		}
	})
	t.Run("no more after an error", func(t *testing.T) {
		did := make([]bool, 1000)
		err := atrest.InParallel(1000, func(i int) error { did[i] = true; return errors.New("no") })
		require.Error(t, err)
		require.NotContains(t, did[128:], true)
	})
}
