package atrest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

// scripted is a KEK whose answers depend on the key that is to be unwrapped: 0 is the
// file key.
type scripted struct {
	*kektest.KEK
	keys   []key.ID
	answer func(id key.ID) error
}

func (k *scripted) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := k.answer(k.which(ad)); err != nil {
		return nil, err
	}
	return k.KEK.Unwrap(ctx, wrapped, ad)
}

// which finds the id of a key in what its wrap is bound to.
func (k *scripted) which(ad []byte) key.ID {
	for _, id := range k.keys {
		if bytes.Contains(ad, binary.BigEndian.AppendUint32(nil, uint32(id))) {
			return id
		}
	}
	return 0
}

// startWith starts a site's node with a KEK that answers as a function says for the
// keys of a state.
func (s *site) startWith(of *applier.State, answer func(id key.ID) error) (*atrest.Node, error) {
	k := &scripted{KEK: kektest.New("kms:a"), answer: answer}
	for held := range of.Keys() {
		k.keys = append(k.keys, held.ID)
	}
	s.set = must(kek.NewSet(k))
	return s.open(s.fs)
}

// outage is a KEK that answers for some keys only, until it is over.
type outage struct {
	only []key.ID
	over atomic.Bool
}

func (o *outage) answer(id key.ID) error {
	if o.over.Load() || slices.Contains(o.only, id) {
		return nil
	}
	return kek.ErrUnreachable
}

func missing(n *atrest.Node) (ids []key.ID) {
	for _, k := range n.Status().Keys {
		if k.Missing != nil {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// A start needs one active key: with none it is tried again, with one it goes on, and
// the rest arrives later.
func TestOpenDuringAnOutage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, crashfs.New())
		rotated(t, s, 3)
		_, err := s.startWith(s.pure, (&outage{}).answer)
		require.ErrorIs(t, err, atrest.ErrRetry, "not even the file key")
		for k := range s.pure.Keys() {
			o := &outage{only: []key.ID{0, k.ID}}
			n, err := s.startWith(s.pure, o.answer)
			if k.State != key.Active {
				require.ErrorIs(t, err, atrest.ErrRetry)
				require.ErrorIs(t, err, guard.ErrKEKUnreachable)
				continue
			}
			require.NoError(t, err)
			require.Len(t, missing(n), 4)
			ctx, cancel := contextOver(t)
			defer cancel()
			_, _, err = n.Storage().SealContext(ctx, nil, []byte("v"), []byte("k"))
			if k.Purpose == key.Storage {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, atrest.ErrRetry)
			}
			_, err = n.Raft().Seal(nil, []byte("p"))
			if k.Purpose == key.Raft {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, atrest.ErrRetry)
			}
			o.over.Store(true)
			<-time.After(time.Minute)
			require.Empty(t, missing(n))
			require.NoError(t, n.Close())
		}
	})
}

// A KEK that does not open some keys and never will is refused, and always with the
// same words: the lowest key's.
func TestOpenWithTheWrongKEK(t *testing.T) {
	s := newSite(t, crashfs.New())
	rotated(t, s, 5)
	var ids []key.ID
	for k := range s.pure.Keys() {
		ids = append(ids, k.ID)
	}
	for lowest := range ids { // the ones before it open, or are out of reach
		for _, before := range []error{nil, kek.ErrUnreachable, kek.ErrDenied} {
			_, err := s.startWith(s.pure, func(id key.ID) error {
				switch {
				case id == 0:
					return nil
				case id < ids[lowest]:
					return before
				}
				return kek.ErrWrongKey
			})
			var refusal *guard.Refusal
			require.ErrorAs(t, err, &refusal)
			require.ErrorIs(t, err, guard.ErrKEKMismatch)
			require.NotErrorIs(t, err, atrest.ErrRetry)
			require.Equal(t, ids[lowest], refusal.Key)
		}
	}
}

// A snapshot that cannot be authenticated at the moment changes nothing, and is taken
// once it can be. With a key that is loaded no KEK is asked.
func TestRestoreDuringAnOutage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n1, n2 := ms[0], ms[1]
		w.put(n1, "a", "1")
		n2.apart = true
		w.commit(n1, must(n1.node.NewRotation(t.Context(), key.Raft)))
		require.NoError(t, n1.snapshot())
		index := n1.node.State().Index()

		n2.down()
		calls := n2.keks[0].Calls()
		require.NoError(t, n2.install(n1), "its MAC is under a key that n2 has")
		require.Equal(t, index, n2.node.State().Index())
		require.Equal(t, calls.Done, n2.keks[0].Calls().Done)

		n3 := w.join("n3")[0]
		require.NoError(t, n3.open(false))
		n3.down()
		state := n3.node.State()
		n3.fs.FailAt(0, nil, crashfs.None)
		require.ErrorIs(t, n3.node.Restore(t.Context(), n1.disk.snap.part), atrest.ErrRetry)
		require.Same(t, state, n3.node.State())
		require.Empty(t, n3.fs.Ops(), "nothing was written")
		require.Empty(t, n3.node.Status().Keys)
		n3.heal()
		require.NoError(t, n3.install(n1))
		got, err := n3.get("a")
		require.NoError(t, err)
		require.Equal(t, "1", got)
	})
}

// A snapshot whose MAC key opens and others do not is taken; the others arrive later.
func TestRestoreWithSomeKeysMissing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		old := newSite(t, crashfs.New())
		require.NoError(t, old.both())
		for range 3 {
			require.NoError(t, old.add(old.node.NewRotation(old.ctx, key.Storage)))
		}
		snap := must(old.node.Snapshot())
		require.NoError(t, old.node.Close())
		for k := range old.pure.Keys() {
			s := newSite(t, crashfs.New())
			o := &outage{only: []key.ID{0, k.ID}}
			n, err := s.startWith(old.pure, o.answer)
			require.NoError(t, err)
			err = n.Restore(s.ctx, snap)
			if k.State == key.Active && k.Purpose == key.Storage {
				require.NoError(t, err)
				require.Len(t, missing(n), old.pure.Len()-1)
				o.over.Store(true)
				<-time.After(time.Minute)
			} else {
				require.ErrorIs(t, err, atrest.ErrRetry)
				require.False(t, n.State().Bootstrapped())
				o.over.Store(true)
				require.NoError(t, n.Restore(s.ctx, snap))
			}
			require.Empty(t, missing(n))
			for k, v := range old.values {
				_, err := n.Storage().Open(nil, v.out, []byte(k), v.sealed)
				require.NoError(t, err)
			}
			require.NoError(t, n.Close())
		}
	})
}

// An import during an outage changes nothing and can be repeated.
func TestImportDuringAnOutage(t *testing.T) {
	old := newSite(t, crashfs.New())
	require.NoError(t, old.both())
	snap := must(old.node.Snapshot())
	require.NoError(t, old.node.Close())
	s := newSite(t, crashfs.New())
	k := kektest.New("kms:a")
	s.set = must(kek.NewSet(k))
	n := must(s.open(s.fs))
	defer n.Close()
	s.fs.FailAt(0, nil, crashfs.None)
	k.FailNext(math.MaxInt, kek.ErrUnreachable)
	require.ErrorIs(t, n.Import(s.ctx, snap), atrest.ErrRetry)
	k.Heal()
	require.False(t, n.State().Bootstrapped())
	require.Empty(t, s.fs.Ops())
	require.NoError(t, n.Import(s.ctx, snap))
	require.True(t, n.State().Bootstrapped())
}
