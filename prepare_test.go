package atrest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

// What a KEK does decides what the caller of a builder may do.
func TestBuildersAndKEKs(t *testing.T) {
	calls := map[string]func(t *testing.T, w *world) (*member, func() error){
		"bootstrap": func(t *testing.T, w *world) (*member, func() error) {
			m := w.started("n1")[0]
			return m, func() error { _, err := m.node.NewBootstrap(t.Context(), w.ids()); return err }
		},
		"rotation": func(t *testing.T, w *world) (*member, func() error) {
			m := w.bootstrapped("n1")[0]
			return m, func() error { _, err := m.node.NewRotation(t.Context(), key.Raft); return err }
		},
		"rewrap": func(t *testing.T, w *world) (*member, func() error) {
			m := w.bootstrapped("n1")[0]
			return m, func() error { _, err := m.node.NewRewrap(t.Context()); return err }
		},
		"prepare": func(t *testing.T, w *world) (*member, func() error) {
			m := w.bootstrapped("n1")[0]
			entry := must(m.node.NewRotation(t.Context(), key.Storage))
			return m, func() error { return m.node.Prepare(t.Context(), entry) }
		},
	}
	for _, tt := range []struct {
		name   string
		damage func(*kektest.KEK)
		want   error
		retry  bool
	}{
		{"unreachable", func(k *kektest.KEK) { k.FailNext(100, kek.ErrUnreachable) }, kek.ErrUnreachable, true},
		{"unreachable once", func(k *kektest.KEK) { k.FailNext(1, kek.ErrUnreachable) }, kek.ErrUnreachable, true},
		{"answer lost", func(k *kektest.KEK) { k.LoseNext(1, context.DeadlineExceeded) }, kek.ErrUnreachable, true},
		{"denied", func(k *kektest.KEK) { k.FailNext(100, kek.ErrDenied) }, kek.ErrDenied, false},
		{"gone", func(k *kektest.KEK) { k.Gone() }, kek.ErrWrongKey, false},
	} {
		for name, begin := range calls {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					m, call := begin(t, w)
					state := m.node.State()
					tt.damage(m.keks[0])
					err := call()
					require.ErrorIs(t, err, tt.want)
					require.Equal(t, tt.retry, errors.Is(err, atrest.ErrRetry), err)
					require.Same(t, state, m.node.State())
					m.keks[0].Heal()
					require.NoError(t, call(), "the same call succeeds later")
				})
			})
		}
	}
}

// Nothing else waits while a builder waits for a KEK, and the builder does not
// wait for ever.
func TestSlowKEKHoldsUpNobody(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		arrived, release := ms[0].keks[0].Hold()
		begin := time.Now()
		built := make(chan error)
		go func() {
			_, err := ms[0].node.NewRotation(t.Context(), key.Storage)
			built <- err
		}()
		require.Equal(t, "wrap", <-arrived)

		w.put(ms[0], "a", "1")
		require.Equal(t, "1", must(ms[0].get("a")))
		require.True(t, ms[0].node.Status().Serving)
		w.commit(ms[1], must(ms[1].node.NewBackup(applier.BackupID{1})))
		require.Equal(t, begin, time.Now(), "no time has passed")

		err := <-built
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, atrest.ErrRetry)
		require.Equal(t, 10*time.Second, time.Since(begin))
		release()
	})
}

// A caller that has waited enough is let go.
func TestBuildersEndWithTheContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("n1")[0]
		entry := must(m.node.NewRotation(t.Context(), key.Storage))
		_, release := m.keks[0].Hold()
		defer release()
		for name, call := range map[string]func(context.Context) error{
			"rotation": func(ctx context.Context) error { _, err := m.node.NewRotation(ctx, key.Storage); return err },
			"rewrap":   func(ctx context.Context) error { _, err := m.node.NewRewrap(ctx); return err },
			"prepare":  func(ctx context.Context) error { return m.node.Prepare(ctx, entry) },
		} {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := call(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.ErrorIs(t, err, atrest.ErrRetry, name)
			require.Equal(t, time.Second, time.Since(begin), name)
		}
	})
}

// A key that was prepared is installed by its entry without a call to the KEK,
// unless the entry takes too long.
func TestPreparedKeysNeedNoKEK(t *testing.T) {
	for _, tt := range []struct {
		name   string
		wait   time.Duration
		loaded bool
	}{
		{"at once", 0, true},
		{"late", atrest.KeepPrepared - time.Second, true},
		{"too late", atrest.KeepPrepared, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				ms := w.bootstrapped("n1", "n2")
				old := ms[0].active(key.Storage)
				entry := must(ms[0].node.NewRotation(t.Context(), key.Storage))
				for _, m := range ms {
					require.NoError(t, m.node.Prepare(t.Context(), entry))
					require.NoError(t, m.node.Prepare(t.Context(), entry))
					require.Equal(t, 1, m.node.Prepared(), "once, whoever built it and however often it was asked")
					m.keks[0].FailNext(1<<30, kek.ErrUnreachable)
				}
				w.advance(tt.wait)
				w.commit(ms[0], entry)
				w.put(ms[0], "a", "1")
				for _, m := range ms {
					k := m.status(m.active(key.Storage))
					require.NotEqual(t, old, k.ID)
					require.Equal(t, tt.loaded, k.Missing == nil)
					require.Zero(t, m.node.Prepared())
					require.Equal(t, "1", must(m.get("a")))
					h := must(envelope.ParseHeader(m.disk.store["a"].out))
					require.Equal(t, tt.loaded, h.KeyID == k.ID)
				}
			})
		})
	}
}

// Keys that are loaded do not push out those that are not.
func TestPrepareKeepsWhatIsMissing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("n1")[0]
		require.NoError(t, m.node.Prepare(t.Context(), must(m.node.NewRewrap(t.Context()))[0]))
		require.Zero(t, m.node.Prepared())
		for range atrest.MaxPrepared + 3 {
			must(m.node.NewRotation(t.Context(), key.Storage))
		}
		require.Equal(t, atrest.MaxPrepared, m.node.Prepared())
	})
}

// A rewrap that was prepared brings a key that is missing.
func TestPreparedRewrapBringsAMissingKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		ms[1].keks[0].FailNext(1<<30, kek.ErrUnreachable)
		w.commit(ms[0], must(ms[0].node.NewRotation(t.Context(), key.Storage)))
		id := ms[0].active(key.Storage)
		require.NotNil(t, ms[1].status(id).Missing)

		entry := must(ms[0].node.NewRewrap(t.Context(), id))[0]
		ms[1].keks[0].Heal()
		require.NoError(t, ms[1].node.Prepare(t.Context(), entry))
		ms[1].keks[0].FailNext(1<<30, kek.ErrUnreachable)
		w.commit(ms[0], entry)
		require.Nil(t, ms[1].status(id).Missing)
		require.True(t, ms[1].node.Status().Serving)
	})
}

func TestPrepareChecks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.bootstrapped("n1")[0]
		s := m.node.State()
		known, _ := s.Active(key.Storage)
		wrapped := func(cluster key.ClusterID, id key.ID, p key.Purpose) []byte {
			return must(m.set().WrapDEK(t.Context(), cluster, id, p, key.NewDEK()))
		}
		good := wrapped(s.Cluster(), 7, key.Storage)
		for _, tt := range []struct {
			name  string
			entry applier.Entry
			want  string
		}{
			{"good", rotation(7, key.Storage, good), ""},
			{"no keys", applier.WriterGone{Node: 7}, ""},
			{"another id", rotation(8, key.Storage, good), "of key 8 is that of key 7"},
			{"another purpose", rotation(7, key.Raft, good), "is that of a storage key"},
			{"another cluster", rotation(7, key.Storage, wrapped(key.ClusterID{1}, 7, key.Storage)), "is of cluster 01000000"},
			{"no container", rotation(7, key.Storage, []byte("x")), "container"},
			{"cut", rotation(7, key.Storage, good[:len(good)-1]), "container"},
			{"other bytes", rewrap(known.ID, wrapped(s.Cluster(), known.ID, key.Storage)), "holds another key"},
			{"rewrap for another purpose", rewrap(known.ID, wrapped(s.Cluster(), known.ID, key.Raft)), "is that of a raft key"},
			{"the present container", rewrap(known.ID, known.Container), ""},
			{"not known here", rewrap(7, good), ""},
			{"bootstrap of another cluster", applier.Bootstrap{
				Storage: applier.WrappedKey{ID: 7, Wrap: wrapped(key.ClusterID{1}, 7, key.Storage)},
				Raft:    applier.WrappedKey{ID: 8, Wrap: wrapped(key.ClusterID{1}, 8, key.Raft)},
			}, "is of cluster"},
		} {
			entry, err := applier.Generation2.Append(nil, tt.entry)
			require.NoError(t, err, tt.name)
			before := m.node.Prepared()
			err = m.node.Prepare(t.Context(), entry)
			if tt.want == "" {
				require.NoError(t, err, tt.name)
				continue
			}
			require.ErrorContains(t, err, tt.want, tt.name)
			require.NotErrorIs(t, err, atrest.ErrRetry, tt.name)
			require.Equal(t, before, m.node.Prepared(), tt.name)
		}

		require.ErrorIs(t, m.node.Prepare(t.Context(), []byte("put a 1")), applier.ErrMalformed)
		var unknown *applier.UnknownError
		require.ErrorAs(t, m.node.Prepare(t.Context(), []byte("\xa7EN\x02\x07\x02")), &unknown)
	})
}

func rotation(id key.ID, p key.Purpose, wrap []byte) applier.Rotation {
	return applier.Rotation{Key: applier.WrappedKey{ID: id, Wrap: wrap}, Purpose: p, Proposer: applier.WriterRow{Key: id, Node: 1}}
}

func rewrap(id key.ID, wrap []byte) applier.Rewrap {
	return applier.Rewrap{Keys: []applier.WrappedKey{{ID: id, Wrap: wrap}}}
}

// A node without keys has nothing to compare with but the entry itself.
func TestPrepareABootstrap(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.started("n1", "n2")
		entry := must(ms[0].node.NewBootstrap(t.Context(), w.ids()))
		b := parsed[applier.Bootstrap](t, entry, nil)
		require.NoError(t, ms[1].node.Prepare(t.Context(), entry))
		require.Equal(t, 2, ms[1].node.Prepared())

		b.Storage, b.Raft = b.Raft, b.Storage
		swapped := must(applier.Generation2.Append(nil, b))
		require.ErrorContains(t, ms[1].node.Prepare(t.Context(), swapped), "is that of a")
		ms[1].keks[0].FailNext(1<<30, kek.ErrUnreachable)
		w.commit(ms[0], entry)
		require.True(t, ms[1].node.Status().Serving)
	})
}

// Many keys are asked for at once.
func TestManyKeysAreWrappedAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n := ms[0].node
		for range 10 {
			w.commit(ms[0], must(n.NewRotation(t.Context(), key.Storage)))
		}
		for i, call := range []func() error{
			func() error { _, err := n.NewRewrap(t.Context()); return err },
			func() error { return ms[1].node.Prepare(t.Context(), must(n.NewRewrap(t.Context()))[0]) },
		} {
			k := ms[i].keks[0]
			before := k.Calls()
			_, release := k.Hold()
			done := make(chan error)
			go func() { done <- call() }()
			synctest.Wait()
			require.Equal(t, 12, k.Calls().Unwraps-before.Unwraps)
			release()
			require.NoError(t, <-done)
		}
	})
}

// liar wraps and forgets.
type liar struct{ *kektest.KEK }

func (liar) Wrap(context.Context, []byte, []byte) ([]byte, error) { return make([]byte, 60), nil }

// Each KEK has to open what it wrapped, not only the one that is asked first.
func TestEachWrapIsVerified(t *testing.T) {
	ctx := t.Context()
	good := kektest.New("kms:a")
	place := t.TempDir()
	l, err := atrest.OpenLocal(ctx, atrest.LocalConfig{Dir: place, KEK: must(kek.NewSet(good))})
	require.NoError(t, err)
	require.NoError(t, l.Close())

	l, err = atrest.OpenLocal(ctx, atrest.LocalConfig{Dir: place, KEK: must(kek.NewSet(good, liar{kektest.New("kms:b")}))})
	require.NoError(t, err)
	defer l.Close()
	before, _ := l.Node().State().Active(key.Storage)
	_, err = l.Rotate(ctx)
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.ErrorContains(t, err, "kms:b")
	require.ErrorIs(t, l.Rewrap(ctx), kek.ErrFaulty)
	now, _ := l.Node().State().Active(key.Storage)
	require.Equal(t, before, now)

	_, err = atrest.OpenLocal(ctx, atrest.LocalConfig{Dir: t.TempDir(), KEK: must(kek.NewSet(good, liar{kektest.New("kms:b")}))})
	require.ErrorContains(t, err, "kms:b")
}

// steady wraps a key alike each time.
type steady struct {
	mu   sync.Mutex
	keys map[string][]byte
}

func (*steady) ID() string { return "steady" }

func (s *steady) Wrap(_ context.Context, plaintext, ad []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := sha256.Sum256(append(bytes.Clone(plaintext), ad...))
	s.keys[string(h[:])+string(ad)] = bytes.Clone(plaintext)
	return h[:], nil
}

func (s *steady) Unwrap(_ context.Context, wrapped, ad []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.keys[string(wrapped)+string(ad)]
	if !ok {
		return nil, fmt.Errorf("%w: never wrapped", kek.ErrWrongKey)
	}
	return bytes.Clone(k), nil
}

// Where there is nothing to change, there is no entry.
func TestRewrapWithNothingToChange(t *testing.T) {
	set := must(kek.NewSet(&steady{keys: map[string][]byte{}}))
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: t.TempDir(), KEK: set})
	require.NoError(t, err)
	defer l.Close()
	entries, err := l.Node().NewRewrap(t.Context())
	require.NoError(t, err)
	require.Empty(t, entries)
	require.NoError(t, l.Rewrap(t.Context()))
}

// Builders, Prepare, Apply and Status may all run at once.
func TestPrepareUnderLoad(t *testing.T) {
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: t.TempDir(), KEK: must(kek.NewSet(kektest.New("kms:a")))})
	require.NoError(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 8 {
				switch i {
				case 0:
					_, err := l.Rotate(t.Context())
					check(err)
				case 1:
					check(l.Node().Prepare(t.Context(), must(l.Node().NewRotation(t.Context(), key.Storage))))
				case 2:
					_, err := l.Node().NewRewrap(t.Context())
					check(err)
				case 3:
					_ = l.Status().String()
				}
			}
		})
	}
	wg.Wait()
	require.LessOrEqual(t, l.Node().Prepared(), atrest.MaxPrepared)
}
