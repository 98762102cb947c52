package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/examples/internal/bars"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// node is who keys.json belongs to.
var node = uint64(nodeid.Derive("local"))

// newTestStore opens a store without files.
func newTestStore(t *testing.T) (site, *store) {
	t.Helper()
	s := newSite(t)
	_, err := ensureKEK(s.kek)
	require.NoError(t, err)
	return s, openTestStore(t, s)
}

func (s site) keks() *kek.Set {
	s.Helper()
	source, err := kek.File(s.kek)
	require.NoError(s, err)
	set, err := kek.NewSet(source)
	require.NoError(s, err)
	return set
}

// make makes a keys.json as only a holder of the KEK can.
func (s site) make(owner uint64, fn func(tx *sidecar.Tx) error) {
	s.Helper()
	_, err := ensureKEK(s.kek)
	require.NoError(s, err)
	require.NoError(s, os.MkdirAll(s.out, 0o700))
	f, err := sidecar.Create(s.Context(), s.out, owner, s.keks())
	require.NoError(s, err)
	require.NoError(s, f.Update(fn))
	require.NoError(s, f.Close())
}

// change looks at keys.json and changes it.
func (s site) change(fn func(f *sidecar.File, tx *sidecar.Tx) error) {
	s.Helper()
	f, err := sidecar.Open(s.Context(), s.out, node, s.keks())
	require.NoError(s, err)
	require.NoError(s, f.Update(func(tx *sidecar.Tx) error { return fn(f, tx) }))
	require.NoError(s, f.Close())
}

func (s site) epoch(id key.ID) (epoch uint16) {
	s.Helper()
	s.change(func(_ *sidecar.File, tx *sidecar.Tx) error { epoch = tx.Epoch(id); return nil })
	return epoch
}

func (s site) reserved(id key.ID) (u envelope.Usage) {
	s.Helper()
	s.change(func(_ *sidecar.File, tx *sidecar.Tx) error { u = envelope.Usage(tx.Reserved(id)); return nil })
	return u
}

// active returns the id of the key that values are sealed under.
func (s *store) active() key.ID {
	k, _ := s.keys.Node().State().Active(key.Storage)
	return k.ID
}

func (s *store) status(id key.ID) (status atrest.KeyStatus) {
	for _, k := range s.keys.Status().Keys {
		if k.ID == id {
			status = k
		}
	}
	return status
}

// registered waits until the epoch of a key is known to be this load's own.
func (s *store) registered(t *testing.T, id key.ID) {
	t.Helper()
	require.Eventually(t, func() bool { return s.status(id).Registered }, time.Minute, time.Millisecond)
}

// sealed returns the suite and the key of what is sealed now, which must open.
func (s *store) sealed(t *testing.T) (envelope.Suite, key.ID) {
	t.Helper()
	env, err := s.seal(nil, kindFile, "x", []byte("some text"))
	require.NoError(t, err)
	plain, err := s.open(nil, kindFile, "x", env)
	require.NoError(t, err)
	require.Equal(t, "some text", string(plain))
	h, err := envelope.ParseHeader(env)
	require.NoError(t, err)
	return h.Suite, h.KeyID
}

// No two loads of a key have the same epoch, and it is on disk.
func TestEachLoadHasItsEpoch(t *testing.T) {
	s, st := newTestStore(t)
	first := st.active()
	for want := uint16(1); want < 5; want++ {
		require.Equal(t, want, st.status(first).Epoch)
		st.registered(t, first)
		suite, id := st.sealed(t)
		require.Equal(t, envelope.AES256GCM, suite)
		require.Equal(t, first, id)
		require.NoError(t, st.close())
		require.Equal(t, want, s.epoch(first))
		st = openTestStore(t, s)
	}
	require.NoError(t, st.rotate(t.Context()))
	second := st.active()
	require.NotEqual(t, first, second)
	_, id := st.sealed(t)
	require.Equal(t, second, id)
	require.EqualValues(t, 1, st.status(second).Epoch)
	require.NoError(t, st.close())

	st = openTestStore(t, s)
	require.EqualValues(t, 2, st.status(second).Epoch)
	require.NoError(t, st.close())
	require.EqualValues(t, 5, s.epoch(first), "only the active key gets a new one")
	require.EqualValues(t, 2, s.epoch(second))
}

func TestNoEpochLeft(t *testing.T) {
	s, st := newTestStore(t)
	id := st.active()
	require.NoError(t, st.close())
	s.change(func(_ *sidecar.File, tx *sidecar.Tx) error { return tx.SetEpoch(id, math.MaxUint16) })

	st = openTestStore(t, s)
	require.Zero(t, st.status(id).Epoch)
	env, err := st.seal(nil, kindFile, "x", []byte("some text"))
	require.NoError(t, err)
	suite, _ := st.sealed(t)
	require.Equal(t, envelope.XAES256GCM, suite)
	require.NoError(t, st.close())

	st = openTestStore(t, s)
	plain, err := st.open(nil, kindFile, "x", env)
	require.NoError(t, err)
	require.Equal(t, "some text", string(plain))
	_, err = st.open(nil, kindManifest, "x", env)
	require.ErrorIs(t, err, envelope.ErrIntegrity)
	_, err = st.open(nil, kindFile, "y", env)
	require.ErrorIs(t, err, envelope.ErrIntegrity)
	require.NoError(t, st.close())
}

// What a load may have sealed is counted by the next one.
func TestUsageIsReserved(t *testing.T) {
	s, st := newTestStore(t)
	id := st.active()
	require.Equal(t, envelope.Usage{}, st.status(id).Usage)
	st.sealed(t)
	require.Equal(t, envelope.Usage{Seals: 1, Bytes: 9}, st.status(id).Usage)
	require.NoError(t, st.close())
	chunk := envelope.Usage{Seals: keystore.ChunkSeals, Bytes: keystore.ChunkBytes}
	require.Equal(t, chunk, s.reserved(id), "it was durable before the seal")

	st = openTestStore(t, s)
	require.Equal(t, chunk, st.status(id).Usage)
	require.NoError(t, st.close())
	require.Equal(t, envelope.Usage{Seals: 2 * chunk.Seals, Bytes: 2 * chunk.Bytes}, s.reserved(id))
}

// A run that is killed between keys.json and the first key leaves a store that
// the next run finds to be incomplete.
func TestStoreWithoutKey(t *testing.T) {
	s := newSite(t)
	s.make(node, func(*sidecar.Tx) error { return nil })
	quickstart(t, bars.Silent, s.args()...).requireSentence(t, exitFailed, "did not finish: 0 of 46 files are in it")
	quickstart(t, bars.Silent, "-out", s.out).requireSentence(t, exitRefused, "-in is needed")
}

// Keys that are lost are not made anew beside a database that needs them.
func TestLostKeys(t *testing.T) {
	s := newSite(t).filled(t)
	require.NoError(t, os.Remove(filepath.Join(s.out, sidecar.FileName)))
	for range 2 {
		_, err := openStore(t.Context(), s.out, s.kek)
		require.ErrorIs(t, err, guard.ErrKeysMissing)
	}
}

// fillFirstVersion leaves what this program left before its keys were those of
// an embedded database.
func fillFirstVersion(s site) {
	s.Helper()
	s.make(uint64(nodeid.Derive("quickstart")), func(tx *sidecar.Tx) error {
		return tx.SetState([]byte(`{"cluster":"83680f69f9d86cc509bd7aae3bfcc4de","active":7,"keys":[{"id":7,"purpose":"storage","state":"active","container":"p0RL"}]}`))
	})
	db, err := openPebble(filepath.Join(s.out, dbDir), func() error { return nil })
	require.NoError(s, err)
	require.NoError(s, db.Set(recordKey(kindManifest, ""), []byte("sealed"), pebble.Sync))
	require.NoError(s, db.Close())
}

// The key state is believed no further than the containers bear it out, even if
// a holder of the KEK has written it.
func TestWrongKeyState(t *testing.T) {
	container := regexp.MustCompile(`"container":"[^"]*"`)
	for name, c := range map[string]struct {
		edit func(state string) string
		want string
	}{
		"swapped containers": {func(state string) string {
			two := container.FindAllString(state, 2)
			return strings.NewReplacer(two[0], two[1], two[1], two[0]).Replace(state)
		}, "the container is another key's"},
		"other purpose": {func(state string) string {
			return strings.Replace(state, `"purpose":"raft"`, `"purpose":"storage"`, 1)
		}, "the container is another key's"},
		"other cluster": {func(state string) string {
			return regexp.MustCompile(`"cluster":"[^"]*"`).ReplaceAllString(state, `"cluster":"`+key.NewClusterID().String()+`"`)
		}, "the container is another key's"},
		"no container": {func(state string) string {
			return strings.Replace(state, ","+container.FindString(state), "", 1)
		}, "a container of 0 bytes"},
		"no active key": {func(state string) string {
			return strings.ReplaceAll(state, `"state":"active"`, `"state":"open-only"`)
		}, "was never active"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t).filled(t)
			s.change(func(f *sidecar.File, tx *sidecar.Tx) error {
				state := c.edit(string(f.State()))
				require.NotEqual(t, string(f.State()), state)
				return tx.SetState([]byte(state))
			})
			r := quickstart(t, bars.Silent, s.args()...)
			r.requireSentence(t, exitRefused, "out cannot be opened: ")
			r.requireSentence(t, exitRefused, c.want)
		})
	}
}

// A rotation that cannot be made durable changes nothing.
func TestRotationThatFails(t *testing.T) {
	_, st := newTestStore(t)
	before := st.active()
	st.registered(t, before)
	raft, _ := st.keys.Node().State().Active(key.Raft)
	st.registered(t, raft.ID) // nothing else changes the state now
	state := st.keys.Node().State()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, st.rotate(ctx), context.Canceled)
	require.Same(t, state, st.keys.Node().State())

	require.NoError(t, st.keys.Close())
	require.ErrorIs(t, st.rotate(t.Context()), atrest.ErrClosed)
	require.Same(t, state, st.keys.Node().State())
	_, id := st.sealed(t)
	require.Equal(t, before, id)
	require.NoError(t, st.close())
}
