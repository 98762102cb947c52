package atrest_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// embedded is the place of an embedded database: a disk, its KEKs, and what it has
// stored.
type embedded struct {
	t      testing.TB
	ctx    context.Context
	fs     *crashfs.FS
	keks   []kek.KEK
	values map[string]value // by location
}

func newEmbedded(t testing.TB) *embedded {
	t.Helper()
	e := &embedded{t: t, ctx: t.Context(), fs: crashfs.New(), keks: []kek.KEK{kektest.New("kms:a")}, values: map[string]value{}}
	e.fs.Mkdir(dir)
	return e
}

func (e *embedded) config() atrest.LocalConfig {
	return atrest.LocalConfig{Dir: dir, KEK: must(kek.NewSet(e.keks[0], e.keks[1:]...)), HadKeys: len(e.values) > 0}
}

// open opens the database, and lets it register.
func (e *embedded) open(opts ...atrest.Option) (*atrest.Local, error) {
	l, err := atrest.OpenLocal(e.ctx, e.config(), append(opts, atrest.WithFS(e.fs))...)
	synctest.Wait()
	return l, err
}

// opened is open where nothing can go wrong. It is closed at the end of the test.
func (e *embedded) opened(opts ...atrest.Option) *atrest.Local {
	e.t.Helper()
	l, err := e.open(opts...)
	require.NoError(e.t, err)
	e.t.Cleanup(func() { require.NoError(e.t, l.Close()) })
	return l
}

// put stores a value, which names its location.
func (e *embedded) put(l *atrest.Local, at string) error {
	out, sealed, err := l.Storage().Seal(nil, []byte("value of "+at), []byte(at))
	if err != nil {
		return err
	}
	if !sealed {
		return fmt.Errorf("%s is in clear", at)
	}
	e.values[at] = value{out, sealed}
	return nil
}

// opens says what does not open, of values under keys that are not destroyed.
func (e *embedded) opens(l *atrest.Local) error {
	for at, v := range e.values {
		out, err := l.Storage().Open(nil, v.out, []byte(at), v.sealed)
		if err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		if string(out) != "value of "+at {
			return fmt.Errorf("%s: got %q", at, out)
		}
	}
	return nil
}

func suiteOf(v value) envelope.Suite { return must(envelope.ParseHeader(v.out)).Suite }

// registered is the suite of a load that is registered. Strict FIPS mode has no
// counted nonces.
func registered() envelope.Suite {
	if fips140.Enforced() {
		return envelope.XAES256GCM
	}
	return envelope.AES256GCM
}

func inBubble(t *testing.T, f func(t *testing.T, e *embedded)) {
	t.Helper()
	bubble(t, func(t *testing.T) { f(t, newEmbedded(t)) })
}

func TestLocalBegins(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		s := l.Node().State()
		require.Equal(t, 2, s.Len())
		require.True(t, s.StorageCutover().Active)
		require.False(t, s.RaftCutover().Active)
		st := l.Status()
		require.Equal(t, "local", st.Name)
		require.True(t, st.Serving)
		for _, k := range st.Keys {
			require.True(t, k.Registered, "%v", k.Purpose)
		}
		require.NoError(t, e.put(l, "a"))
		require.Equal(t, registered(), suiteOf(e.values["a"]))
		require.NoError(t, e.opens(l))
	})
}

func TestLocalOpensAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		var last atrest.Status
		for i := range 5 {
			l := e.opened()
			require.NoError(t, e.opens(l))
			require.NoError(t, e.put(l, fmt.Sprint("value", i)))
			st := l.Status()
			require.Len(t, st.Keys, 2)
			for j, k := range last.Keys {
				require.Equal(t, k.ID, st.Keys[j].ID)
				require.Equal(t, k.Epoch+1, st.Keys[j].Epoch, "each start takes one")
			}
			require.Greater(t, st.Index, last.Index)
			last = st
			require.NoError(t, l.Close())
			require.NoError(t, l.Close())
		}
	})
}

// The life of a key, with values that are written anew in time.
func TestLocalLifeOfAKey(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		old, _ := l.Node().State().Active(key.Storage)
		require.ErrorIs(t, l.Stop(old.ID), applier.ErrKeyActive)
		require.NoError(t, e.put(l, "a"))
		id, err := l.Rotate(t.Context())
		require.NoError(t, err)
		k, _ := l.Node().State().Active(key.Storage)
		require.Equal(t, k.ID, id)
		synctest.Wait()
		require.NoError(t, e.put(l, "b"))
		require.Equal(t, id, must(envelope.ParseHeader(e.values["b"].out)).KeyID)
		require.Equal(t, registered(), suiteOf(e.values["b"]), "it registers after a rotation")
		require.NoError(t, e.opens(l))

		require.NoError(t, l.Backup(applier.BackupID{1}))
		require.ErrorIs(t, l.Backup(applier.BackupID{1}), applier.ErrDuplicate)
		require.ErrorIs(t, l.Destroy(old.ID, 0), applier.ErrNotStopped)
		require.NoError(t, l.Stop(old.ID))
		require.ErrorIs(t, l.Stop(old.ID), applier.ErrDuplicate)
		require.NoError(t, e.opens(l), "a stopped key opens")
		require.NoError(t, e.put(l, "a"))
		require.ErrorIs(t, l.Destroy(old.ID, 0), applier.ErrBackup)
		require.NoError(t, l.BackupForgotten(applier.BackupID{1}))
		require.ErrorIs(t, l.Destroy(old.ID, 1), applier.ErrEvidence)
		require.NoError(t, l.Destroy(old.ID, 0))
		require.ErrorIs(t, l.Destroy(old.ID, 0), applier.ErrDuplicate)
		require.ErrorIs(t, l.Destroy(7, 0), applier.ErrUnknownKey)
		require.NoError(t, e.opens(l))

		require.NoError(t, l.Close())
		l = e.opened()
		require.NoError(t, e.opens(l))
		got, _ := l.Node().State().Key(old.ID)
		require.Equal(t, key.Destroyed, got.State)
	})
}

// What was sealed under a key that is gone says so, before and after a restart.
func TestLocalDestroyedKey(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		require.NoError(t, e.put(l, "a"))
		old, _ := l.Node().State().Active(key.Storage)
		must(l.Rotate(t.Context()))
		require.NoError(t, l.Stop(old.ID))
		require.NoError(t, l.Destroy(old.ID, 0))
		require.ErrorIs(t, e.opens(l), keystore.ErrDestroyed)
		require.NoError(t, l.Close())
		require.ErrorIs(t, e.opens(e.opened()), keystore.ErrDestroyed)
	})
}

// Two rotations at once bring two keys, and each caller hears of its own.
func TestLocalRotationsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		var (
			wg  sync.WaitGroup
			ids [8]key.ID
		)
		for i := range ids {
			wg.Go(func() { ids[i] = must(l.Rotate(t.Context())) })
		}
		wg.Wait()
		seen := map[key.ID]bool{}
		for _, id := range ids {
			_, ok := l.Node().State().Key(id)
			require.True(t, ok)
			seen[id] = true
		}
		require.Len(t, seen, len(ids))
		synctest.Wait()
		require.NoError(t, e.put(l, "a"))
		require.Equal(t, registered(), suiteOf(e.values["a"]))
	})
}

// A new KEK takes the place of the old one, which is gone after that.
func TestLocalChangeOfKEK(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		a, b := e.keks[0], kektest.New("kms:b")
		l := e.opened()
		require.NoError(t, e.put(l, "a"))
		must(l.Rotate(t.Context()))
		require.NoError(t, e.put(l, "b"))
		require.NoError(t, l.Close())

		e.keks = []kek.KEK{b}
		_, err := e.open()
		require.Error(t, err, "too early")

		e.keks = []kek.KEK{b, a}
		l = e.opened()
		require.True(t, l.Status().FileKeyCurrent, "in the background")
		require.NoError(t, l.Rewrap(t.Context()))
		require.NoError(t, l.Close())

		e.keks = []kek.KEK{b}
		l = e.opened()
		require.NoError(t, e.opens(l))
		require.NoError(t, l.Rewrap(t.Context()))
		for k := range l.Node().State().Keys() {
			c, err := key.ParseContainer(k.Container)
			require.NoError(t, err)
			require.Len(t, c.Recipients, 1)
		}
	})
}

// keys.json is not made anew where the database says that there was one.
func TestLocalWithoutItsKeysFile(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		require.NoError(t, e.put(l, "a"))
		part := must(l.Snapshot())
		require.NoError(t, l.Close())
		require.NoError(t, e.fs.Remove(keysJSON))

		for range 2 {
			_, err := e.open()
			require.ErrorIs(t, err, guard.ErrKeysMissing)
		}
		l, err := atrest.ImportLocal(t.Context(), e.config(), part, atrest.WithFS(e.fs))
		require.NoError(t, err)
		require.NoError(t, e.opens(l))
		require.NoError(t, l.Close())
		require.NoError(t, e.opens(e.opened()))
	})
}

func TestImportLocal(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		require.NoError(t, e.put(l, "a"))
		first := must(l.Rotate(t.Context()))
		require.NoError(t, e.put(l, "b"))
		old := l.Node().State()
		part := must(l.Snapshot())

		e.fs = crashfs.New()
		e.fs.Mkdir(dir)
		_, err := atrest.ImportLocal(t.Context(), e.config(), part[1:], atrest.WithFS(e.fs))
		require.ErrorIs(t, err, atrest.ErrSnapshot)
		changed := []byte(strings.Replace(string(part), "\xa7ST", "\xa7SU", 1))
		_, err = atrest.ImportLocal(t.Context(), e.config(), changed, atrest.WithFS(e.fs))
		require.ErrorIs(t, err, atrest.ErrSnapshot)

		copied, err := atrest.ImportLocal(t.Context(), e.config(), part, atrest.WithFS(e.fs))
		require.NoError(t, err)
		synctest.Wait()
		s := copied.Node().State()
		require.NotEqual(t, old.Cluster(), s.Cluster())
		require.Equal(t, old.Len()+2, s.Len())
		require.True(t, s.StorageCutover().Active)
		k, _ := s.Key(first)
		require.Equal(t, key.OpenOnly, k.State)
		require.NoError(t, e.opens(copied))
		require.NoError(t, e.put(copied, "c"))
		require.Equal(t, registered(), suiteOf(e.values["c"]))
		require.NoError(t, copied.Close())

		_, err = atrest.ImportLocal(t.Context(), e.config(), part, atrest.WithFS(e.fs))
		require.ErrorIs(t, err, atrest.ErrOrder, "it has keys now")
		require.NoError(t, e.opens(e.opened()))
	})
}

// A database that was never sealed is imported and sealed from then on.
func TestImportLocalOfACluster(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.started("n1")[0]
		w.commit(m, must(m.node.NewBootstrap(t.Context(), w.ids())))
		e := newEmbedded(t)
		l, err := atrest.ImportLocal(t.Context(), e.config(), must(m.node.Snapshot()), atrest.WithFS(e.fs))
		require.NoError(t, err)
		defer l.Close()
		require.True(t, l.Node().State().StorageCutover().Active)
		require.NoError(t, e.put(l, "a"))
	})
}

func TestLocalRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, e *embedded)
		want  error
		retry bool
	}{
		{"no directory", func(_ *testing.T, e *embedded) { e.fs = crashfs.New() }, fs.ErrNotExist, false},
		{"in use", func(_ *testing.T, e *embedded) { e.opened() }, guard.ErrInUse, false},
		{"unreachable", func(_ *testing.T, e *embedded) {
			e.keks[0].(*kektest.KEK).FailNext(1<<30, kek.ErrUnreachable)
		}, kek.ErrUnreachable, true},
		{"another KEK", func(_ *testing.T, e *embedded) { e.keks[0] = kektest.New("kms:b") }, guard.ErrKEKMismatch, false},
		{"a cluster's directory", func(t *testing.T, e *embedded) {
			e.fs = crashfs.New()
			e.fs.Mkdir(dir)
			n, err := atrest.Open(t.Context(), atrest.Config{Dir: dir, Name: "n1", KEK: e.config().KEK, Propose: noPropose}, atrest.WithFS(e.fs))
			require.NoError(t, err)
			require.NoError(t, n.Close())
		}, guard.ErrOtherNode, false},
		{"edited", func(t *testing.T, e *embedded) {
			text, _, err := durable.ReadFile(e.fs, keysJSON, 1<<20)
			require.NoError(t, err)
			text = bytes.Replace(text, []byte(`"active"`), []byte(`"stopped"`), 1)
			require.NoError(t, durable.WriteFile(e.fs, keysJSON, text))
		}, guard.ErrTampered, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *embedded) {
				l := e.opened()
				require.NoError(t, e.put(l, "a"))
				require.NoError(t, l.Close())
				e.fs = e.fs.Restart()
				tt.spoil(t, e)
				_, err := e.open()
				require.ErrorIs(t, err, tt.want)
				require.Equal(t, tt.retry, errors.Is(err, atrest.ErrRetry), err)
			})
		})
	}
}

// A first open that a KEK interrupts, at whichever call, is taken up by the next.
func TestLocalBeginsThroughOutages(t *testing.T) {
	failures := map[string]func(k *kektest.KEK){
		"not arrived": func(k *kektest.KEK) { k.FailNext(1, kek.ErrUnreachable) },
		"answer lost": func(k *kektest.KEK) { k.LoseNext(1, context.DeadlineExceeded) },
	}
	for name, fail := range failures {
		for at := 0; ; at++ {
			failed := false
			inBubble(t, func(t *testing.T, e *embedded) {
				k := &atCall{KEK: kektest.New("kms:a"), at: at, fail: fail}
				e.keks[0] = k
				l, err := e.open()
				if err == nil {
					defer l.Close()
				}
				if failed = k.calls > at && err != nil; !failed {
					require.NoError(t, err, "%s at call %d", name, at)
					return
				}
				require.ErrorIs(t, err, atrest.ErrRetry, "%s at call %d", name, at)
				l = e.opened()
				require.True(t, l.Status().Serving)
				require.NoError(t, e.put(l, "a"))
				require.NoError(t, e.opens(l))
			})
			if !failed {
				require.Greater(t, at, 4, "calls of a first open")
				break
			}
		}
	}
}

// atCall lets something happen at one of the calls.
type atCall struct {
	*kektest.KEK
	calls, at int
	fail      func(*kektest.KEK)
}

func (k *atCall) next() {
	if k.calls == k.at {
		k.fail(k.KEK)
	}
	k.calls++
}

func (k *atCall) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	k.next()
	return k.KEK.Wrap(ctx, plaintext, ad)
}

func (k *atCall) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	k.next()
	return k.KEK.Unwrap(ctx, wrapped, ad)
}

// An operation that a KEK interrupts has changed nothing.
func TestLocalOperationsDuringAnOutage(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		require.NoError(t, e.put(l, "a"))
		before := l.Node().State()
		e.keks[0].(*kektest.KEK).FailNext(1<<30, kek.ErrUnreachable)
		_, err := l.Rotate(t.Context())
		require.ErrorIs(t, err, atrest.ErrRetry)
		require.ErrorIs(t, l.Rewrap(t.Context()), atrest.ErrRetry)
		require.Same(t, before, l.Node().State())
		require.NoError(t, e.put(l, "b"), "values need no KEK")
		require.NoError(t, e.opens(l))
		require.NoError(t, l.Backup(applier.BackupID{1}), "nor does what brings no key")
	})
}

func TestLocalAfterClose(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened()
		require.NoError(t, l.Close())
		_, err := l.Rotate(t.Context())
		require.ErrorIs(t, err, atrest.ErrClosed)
		_, err = l.Snapshot()
		require.ErrorIs(t, err, atrest.ErrClosed)
		require.ErrorIs(t, l.Backup(applier.BackupID{1}), atrest.ErrClosed)
		require.Equal(t, "closed", l.Status().Phase)
	})
}

// With suite 0x03 alone there is nothing to register.
func TestLocalWithExtendedNonces(t *testing.T) {
	inBubble(t, func(t *testing.T, e *embedded) {
		l := e.opened(atrest.WithExtendedOnly())
		require.NoError(t, e.put(l, "a"))
		require.Equal(t, envelope.XAES256GCM, suiteOf(e.values["a"]))
		index := l.Status().Index
		require.NoError(t, l.Close())
		require.Equal(t, index, e.opened(atrest.WithExtendedOnly()).Status().Index)
	})
}
