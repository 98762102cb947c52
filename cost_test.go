package atrest_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// writes counts how often keys.json was replaced since the last call.
func (s *site) writes() (n int) {
	synctest.Wait()
	for _, op := range s.fs.Ops() {
		if op.Kind == crashfs.KindRename && strings.Contains(op.Path, "keys.json") {
			n++
		}
	}
	s.fs.FailAt(0, nil, crashfs.None)
	return n
}

// An entry that changes the state costs one durable write, whatever it brings: keys,
// an epoch, a row of the registry, a reservation. Others cost none, and nothing is
// written behind an entry's back.
func TestWritesOfEntries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, crashfs.New())
		require.NoError(t, s.begin())
		require.Equal(t, 1, s.writes(), "the first start makes the file")
		defer s.node.Close()
		n := s.node
		self := nodeid.Member{Name: "n1", ID: n.ID()}
		other := nodeid.Derive("n2")
		index := uint64(0)
		apply := func(want int, what string, build func() ([]byte, error)) {
			t.Helper()
			entry, err := build()
			require.NoError(t, err, what)
			require.Zero(t, s.writes(), "%s: before", what)
			for i, want := range []int{want, 0, 0} { // committed, committed again, replayed
				if i < 2 {
					index++
				}
				o, err := n.Apply(index, entry)
				require.NoError(t, err, what)
				require.Equal(t, want, s.writes(), "%s %d: %v %v", what, i, o.Kind, o.Why)
				require.Equal(t, want == 1, o.Kind == applier.Applied, what)
			}
			if out, sealed, err := n.Storage().Seal(nil, []byte("v"), []byte("k")); sealed {
				require.NoError(t, err)
				_, err = n.Storage().Open(nil, out, []byte("k"), true)
				require.NoError(t, err)
			}
			require.Zero(t, s.writes(), "%s: what is sealed after it", what)
		}
		id := func(p key.Purpose) key.ID { k, _ := n.State().Active(p); return k.ID }
		raw := func(e applier.Entry) func() ([]byte, error) {
			return func() ([]byte, error) { return applier.Generation2.Append(nil, e) }
		}
		apply(0, "no keys yet", raw(applier.Stop{Key: 5}))
		apply(1, "bootstrap", func() ([]byte, error) { return n.NewBootstrap(s.ctx, []nodeid.Member{self, {ID: other}}) })
		apply(1, "own registration", func() ([]byte, error) { return n.NewRegistration(key.Storage) })
		apply(1, "own registration, Raft", func() ([]byte, error) { return n.NewRegistration(key.Raft) })
		apply(1, "another's registration", raw(applier.Registration{Key: id(key.Storage), Node: other, Epoch: 1, Load: applier.LoadID{1}}))
		apply(0, "stale registration", raw(applier.Registration{Key: id(key.Storage), Node: other, Epoch: 0, Load: applier.LoadID{1}}))
		apply(1, "storage cutover", n.NewEnableStorage)
		apply(1, "raft cutover", n.NewEnableRaft)
		first := id(key.Storage)
		apply(1, "rotation", func() ([]byte, error) { return n.NewRotation(s.ctx, key.Storage) })
		apply(1, "registration for the new key", func() ([]byte, error) { return n.NewRegistration(key.Storage) })
		apply(1, "raft rotation", func() ([]byte, error) { return n.NewRotation(s.ctx, key.Raft) })
		apply(0, "stop of the active key", raw(applier.Stop{Key: id(key.Storage)}))
		apply(1, "stop", func() ([]byte, error) { return n.NewStop(first) })
		apply(1, "rewrap", func() ([]byte, error) { es, err := n.NewRewrap(s.ctx); return es[0], err })
		apply(1, "backup", func() ([]byte, error) { return n.NewBackup(applier.BackupID{1}) })
		apply(1, "backup forgotten", func() ([]byte, error) { return n.NewBackupForgotten(applier.BackupID{1}) })
		apply(1, "writer gone", func() ([]byte, error) { return n.NewWriterGone(other) })
		apply(1, "destroy", func() ([]byte, error) {
			return n.NewDestroy(first, []nodeid.ID{self.ID},
				[]applier.Evidence{{Node: self.ID, Taken: index, FirstLog: index + 1}})
		})
		apply(0, "malformed", func() ([]byte, error) { return []byte("\xa7EN\x02\x03\x02"), nil })

		require.NoError(t, n.Compacted(index))
		require.Equal(t, 1, s.writes(), "compacted")
		require.NoError(t, n.Compacted(index))
		require.Zero(t, s.writes(), "compacted again")
		snap, err := n.Snapshot()
		require.NoError(t, err)
		require.NoError(t, n.Restore(s.ctx, snap))
		require.Zero(t, s.writes(), "a snapshot, and one that is not newer")
		require.NoError(t, n.Close())
		require.NoError(t, s.begin())
		require.Equal(t, 1, s.writes(), "a start takes all its epochs at once")
	})
}

// What was unwrapped before an entry committed is not unwrapped again: neither by who
// made it nor by who was asked.
func TestPreparedEntriesNeedNoKEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		calls := func(m *member) int { c := m.keks[0].Calls(); return c.Wraps + c.Unwraps }
		for _, p := range []key.Purpose{key.Storage, key.Raft} {
			entry := must(ms[0].node.NewRotation(t.Context(), p))
			require.NoError(t, ms[1].node.Prepare(t.Context(), entry))
			before := []int{calls(ms[0]), calls(ms[1]), calls(ms[2])}
			w.commit(ms[0], entry)
			require.Equal(t, before[0], calls(ms[0]), "who made it")
			require.Equal(t, before[1], calls(ms[1]), "who was asked")
			require.Equal(t, before[2]+1, calls(ms[2]), "who was not unwraps it once, in the background")
		}
		entries := must(ms[0].node.NewRewrap(t.Context()))
		before := calls(ms[2])
		for _, e := range entries {
			w.commit(ms[0], e)
		}
		w.commit(ms[0], must(ms[0].node.NewBackup(applier.BackupID{1})))
		require.Equal(t, before, calls(ms[2]), "keys that are loaded")
	})
}

// A KEK that does not answer while an entry is applied delays nothing.
func TestApplyDoesNotWaitForAKEK(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		_, release := ms[1].keks[0].Hold()
		defer release()
		began := time.Now()
		w.commit(ms[0], must(ms[0].node.NewRotation(t.Context(), key.Storage)))
		w.put(ms[0], "a", "1")
		require.Equal(t, ms[0].disk.applied, ms[1].disk.applied)
		require.Zero(t, time.Since(began))
	})
}

// rotated brings a site with 2 + n keys that was closed.
func rotated(t testing.TB, s *site, n int) {
	t.Helper()
	require.NoError(t, s.both())
	for range n {
		require.NoError(t, s.add(s.node.NewRotation(s.ctx, key.Storage)))
	}
	require.NoError(t, s.node.Close())
}

// At a start each container is unwrapped once, and all at the same time: none is
// answered before the last one was asked for.
func TestOpenUnwrapsInParallel(t *testing.T) {
	const n = 20
	k := kektest.New("kms:a")
	s := newSite(t, crashfs.New())
	s.set = must(kek.NewSet(k))
	rotated(t, s, n-2)
	before := k.Calls().Unwraps

	fileKey, releaseFileKey := k.Hold()
	done := make(chan error)
	go func() {
		var err error
		s.node, err = s.open(s.fs)
		done <- err
	}()
	require.Equal(t, "unwrap", <-fileKey)
	keys, releaseKeys := k.Hold()
	releaseFileKey()
	for range n {
		require.Equal(t, "unwrap", <-keys)
	}
	releaseKeys()
	require.NoError(t, <-done)
	defer s.node.Close()
	require.Equal(t, 1+n, k.Calls().Unwraps-before)
	require.NoError(t, s.node.CatchUp(s.ctx, s.view(uint64(len(s.log)))))
	require.NoError(t, s.node.Ready(s.ctx))
	require.True(t, s.node.Status().Serving)
}

// A key service that hangs ends a start after its timeout, whatever hangs, and the
// start can be tried again.
func TestOpenEndsWhenAKEKHangs(t *testing.T) {
	for _, what := range []string{"file key", "keys"} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				k := kektest.New("kms:a")
				s := newSite(t, crashfs.New())
				s.set = must(kek.NewSet(k))
				rotated(t, s, 3)
				first, release := k.Hold()
				if what == "keys" {
					go func() {
						<-first
						k.Hold()
						release()
					}()
				}
				began := time.Now()
				cfg := atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}
				_, err := atrest.Open(t.Context(), cfg, atrest.WithFS(s.fs), atrest.WithKEKTimeout(3*time.Second))
				require.ErrorIs(t, err, atrest.ErrRetry)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, 3*time.Second, time.Since(began))
				_, release = k.Hold()
				release()
				require.NoError(t, s.begin(), "nothing is left behind, such as a lock")
				require.NoError(t, s.node.Close())
			})
		})
	}
}

// A value that is sealed or opened costs no memory but what the caller gives.
func TestAllocations(t *testing.T) {
	for _, suite := range []string{"counted", "extended"} {
		t.Run(suite, func(t *testing.T) {
			s := newSite(t, crashfs.New())
			require.NoError(t, s.both())
			defer s.node.Close()
			if suite == "counted" {
				require.NoError(t, s.add(s.node.NewRegistration(key.Raft)))
			} else {
				require.NoError(t, s.add(s.node.NewRotation(s.ctx, key.Storage)))
			}
			values, raft, location := s.node.Storage(), s.node.Raft(), []byte("location")
			value, dst := make([]byte, 1000), make([]byte, 0, 2000)
			env, sealed, err := values.Seal(nil, value, location)
			require.NoError(t, err)
			require.True(t, sealed)
			payload, err := raft.Seal(nil, value)
			require.NoError(t, err)
			for what, f := range map[string]func() error{
				"storage seal": func() error { _, _, err := values.Seal(dst, value, location); return err },
				"storage seal with a context": func() error {
					_, _, err := values.SealContext(s.ctx, dst, value, location)
					return err
				},
				"storage open": func() error { _, err := values.Open(dst, env, location, true); return err },
				"storage open in clear": func() error {
					_, err := values.Open(dst, value, location, false)
					return err
				},
				"raft seal":        func() error { _, err := raft.Seal(dst, value); return err },
				"raft open":        func() error { _, err := raft.Open(dst, math.MaxUint64, payload); return err },
				"payload is ours?": func() error { return s.node.CheckPayload(value) },
			} {
				got := testing.AllocsPerRun(2000, func() {
					if err := f(); err != nil {
						t.Fatal(err)
					}
				})
				require.Zero(t, got, what)
			}
		})
	}
}

// A node that serves and is left alone does nothing at all.
func TestIdleNodeDoesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		w.put(ms[0], "a", "1")
		type trace struct {
			log, events, calls int
			ops                string
		}
		look := func() (ts []trace) {
			for _, m := range ms {
				ts = append(ts, trace{len(w.log), len(m.seen), m.keks[0].Calls().Done, fmt.Sprint(len(m.fs.Ops()))})
			}
			return ts
		}
		before := look()
		w.advance(100 * 24 * time.Hour)
		require.Equal(t, before, look())
	})
}
