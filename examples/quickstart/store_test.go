package main

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// newTestStore opens a store without files.
func newTestStore(t *testing.T) (site, *store) {
	t.Helper()
	s := newSite(t)
	_, err := ensureKEK(s.kek)
	require.NoError(t, err)
	return s, openTestStore(t, s)
}

// change makes a change to keys.json as only a holder of the KEK can.
func change(t *testing.T, s site, fn func(tx *sidecar.Tx) error) {
	t.Helper()
	source, err := kek.File(s.kek)
	require.NoError(t, err)
	set, err := kek.NewSet(source)
	require.NoError(t, err)
	f, err := sidecar.Open(t.Context(), s.out, uint64(node), set)
	require.NoError(t, err)
	require.NoError(t, f.Update(fn))
	require.NoError(t, f.Close())
}

// No two loads of a key have the same epoch, and it is on disk before it is
// used.
func TestEachLoadHasItsEpoch(t *testing.T) {
	s, st := newTestStore(t)
	first := st.table.Active
	for want := uint16(1); want < 5; want++ {
		require.Equal(t, want, st.file.Epoch(first))
		env, err := st.seal(nil, kindFile, "x", []byte("x"))
		require.NoError(t, err)
		require.Equal(t, envelope.AES256GCM, suite(t, env))
		require.NoError(t, st.close())
		st = openTestStore(t, s)
	}
	require.NoError(t, st.rotate(t.Context()))
	second := st.table.Active
	require.NotEqual(t, first, second)
	require.EqualValues(t, 1, st.file.Epoch(second))
	require.NoError(t, st.close())

	st = openTestStore(t, s)
	require.EqualValues(t, 5, st.file.Epoch(first), "only the active key gets a new one")
	require.EqualValues(t, 2, st.file.Epoch(second))
	require.NoError(t, st.close())
}

func suite(t *testing.T, env []byte) envelope.Suite {
	t.Helper()
	h, err := envelope.ParseHeader(env)
	require.NoError(t, err)
	return h.Suite
}

func TestNoEpochLeft(t *testing.T) {
	s, st := newTestStore(t)
	id := st.table.Active
	require.NoError(t, st.close())
	change(t, s, func(tx *sidecar.Tx) error { return tx.SetEpoch(id, math.MaxUint16) })

	st = openTestStore(t, s)
	env, err := st.seal(nil, kindFile, "x", []byte("some text"))
	require.NoError(t, err)
	require.Equal(t, envelope.XAES256GCM, suite(t, env))
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
	id := st.table.Active
	require.NoError(t, st.close(), "the first request is durable")
	before := reserved(t, s, id)
	require.GreaterOrEqual(t, before.Seals, uint64(1<<20))

	st = openTestStore(t, s)
	used, err := st.keys.Usage(id)
	require.NoError(t, err)
	require.Equal(t, before.Seals, used.Seals)
	more := envelope.Usage{Seals: 1 << 30, Bytes: 1 << 40}
	st.NeedReserve(id, more)
	require.NoError(t, st.close())
	require.Equal(t, more, envelope.Usage(reserved(t, s, id)))
}

func reserved(t *testing.T, s site, id key.ID) (u sidecar.Usage) {
	t.Helper()
	change(t, s, func(tx *sidecar.Tx) error { u = tx.Reserved(id); return nil })
	return u
}

// A run that is killed between keys.json and the first key leaves a store that
// the next run finds to be incomplete.
func TestStoreWithoutKey(t *testing.T) {
	s := newSite(t)
	_, err := ensureKEK(s.kek)
	require.NoError(t, err)
	source, err := kek.File(s.kek)
	require.NoError(t, err)
	set, err := kek.NewSet(source)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(s.out, 0o700))
	f, err := sidecar.Create(t.Context(), s.out, uint64(node), set)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	quickstart(t, silent, s.args()...).requireSentence(t, exitFailed, "did not finish: 0 of 46 files are in it")
	quickstart(t, silent, "-out", s.out).requireSentence(t, exitRefused, "-in is needed")
}

// The key table is believed no further than the containers bear it out.
func TestWrongKeyTable(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(table *keyTable)
		want string
	}{
		"swapped containers": {func(table *keyTable) {
			k := table.Keys
			k[0].Container, k[1].Container = k[1].Container, k[0].Container
		}, "is another key's"},
		"other purpose": {func(table *keyTable) { table.Keys[0].Purpose = key.Raft }, "is another key's"},
		"other cluster": {func(table *keyTable) { table.Cluster = key.NewClusterID() }, "is another key's"},
		"no container":  {func(table *keyTable) { table.Keys[0].Container = nil }, "container"},
		"no active key": {func(table *keyTable) { table.Active++ }, "not in this keystore"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t).filled(t)
			st := openTestStore(t, s)
			table := st.table
			require.NoError(t, st.close())
			c.edit(&table)
			state, err := json.Marshal(table)
			require.NoError(t, err)
			change(t, s, func(tx *sidecar.Tx) error { return tx.SetState(state) })
			quickstart(t, silent, s.args()...).requireSentence(t, exitRefused, c.want)
		})
	}
}

// A rotation that cannot be made durable changes nothing.
func TestRotationThatFails(t *testing.T) {
	_, st := newTestStore(t)
	defer func() { require.NoError(t, st.close()) }()
	before := st.table
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, st.rotate(ctx), context.Canceled)
	require.Equal(t, before, st.table)

	require.NoError(t, st.file.Close())
	require.ErrorIs(t, st.rotate(t.Context()), sidecar.ErrClosed)
	require.Equal(t, before, st.table)
	env, err := st.seal(nil, kindFile, "x", nil)
	require.NoError(t, err)
	h, err := envelope.ParseHeader(env)
	require.NoError(t, err)
	require.Equal(t, before.Active, h.KeyID)
}
