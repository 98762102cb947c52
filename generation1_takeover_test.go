package atrest_test

import (
	"context"
	"io/fs"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// nothing holds that a refused start has left the directory as it was.
func (h *firstHost) untouched(before []byte) {
	h.t.Helper()
	require.Equal(h.t, string(before), string(read(h.fs)))
	_, err := h.fs.Lstat(dir + "/" + guard.MetaName)
	require.Error(h.t, err)
}

// edit changes keys.json.
func (h *firstHost) edit(change func(f *generation1.File)) []byte {
	h.t.Helper()
	f := h.view()
	change(f)
	b, err := f.Append(nil)
	require.NoError(h.t, err)
	write(h.fs, b)
	return b
}

func epochOf(id key.ID, epoch uint16) func(f *generation1.File) {
	return func(f *generation1.File) {
		k := f.Keys[id]
		k.Epoch = epoch
		f.Keys[id] = k
	}
}

// A first start that is refused writes nothing, so what was wrong can be put right.
func TestRefusedTakeOverWritesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(h *firstHost)
		want  error
	}{
		"another KEK": {func(h *firstHost) { h.keks = must(kek.NewSet(kektest.New("kms:other"))) }, guard.ErrKEKMismatch},
		"KEK unreachable": {func(h *firstHost) {
			k := kektest.New("kms:a")
			k.FailNext(math.MaxInt, kek.ErrUnreachable)
			h.keks = must(kek.NewSet(k))
		}, guard.ErrKEKUnreachable},
		"an old copy":    {func(h *firstHost) { h.edit(epochOf(foundStorage, 3)) }, guard.ErrEpochRollback},
		"no epochs left": {func(h *firstHost) { h.edit(epochOf(foundStorage, math.MaxUint16)) }, guard.ErrEpochExhausted},
		"a row of another node": {func(h *firstHost) {
			own := nodeid.Derive("n1")
			h.rows = applier.RowsOf([]applier.Writer{{Key: foundStorage, Node: own ^ 1<<40, Last: 7}})
		}, guard.ErrCollision},
		"not parseable": {func(h *firstHost) { write(h.fs, []byte("{")) }, guard.ErrTampered},
		"upgraded":      {func(h *firstHost) { write(h.fs, []byte(`{"version": 3}`)) }, guard.ErrTampered},
		"too large":     {func(h *firstHost) { write(h.fs, make([]byte, generation1.MaxSize+1)) }, guard.ErrTampered},
		"no active keys": {func(h *firstHost) {
			h.edit(func(f *generation1.File) { f.Storage, f.Raft, f.RaftCutover = 0, 0, 0 })
		}, applier.ErrForm},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFirstHost(t, "v2")
			good, keks, rows := read(h.fs), h.keks, h.rows
			tt.spoil(h)
			before := read(h.fs)
			_, err := h.open(h.mode())
			require.ErrorIs(t, err, tt.want)
			h.untouched(before)

			write(h.fs, good)
			h.keks, h.rows = keks, rows
			h.start(h.mode())
			require.Len(t, h.view().Keys, 3)
		})
	}
}

// Whoever removes keys.meta.json does not make keys.json, which nothing authenticates,
// the truth: that takes a word of the operator, for one start.
func TestTakeOverIsAnExplicitAct(t *testing.T) {
	h := newFirstHost(t, "v2")
	_, err := h.open(atrest.WithGeneration1(atrest.Generation1{}))
	require.ErrorIs(t, err, guard.ErrKeysMissing)
	h.start(h.mode())
	require.NoError(t, h.node.Close())

	require.NoError(t, h.fs.Remove(dir+"/"+guard.MetaName))
	edited := h.edit(func(f *generation1.File) { f.StorageActive, f.StorageCutover, f.RaftCutover = false, 0, 0 })
	_, err = h.open(atrest.WithGeneration1(atrest.Generation1{}))
	require.ErrorIs(t, err, guard.ErrKeysMissing)
	h.untouched(edited)
}

// A start in a directory that was empty by mistake does not make the next one write
// over the keys that were put back.
func TestTakeOverAfterAStartThatFoundNothing(t *testing.T) {
	h := newFirstHost(t, "v2")
	found := read(h.fs)
	require.NoError(t, h.fs.Remove(keysJSON))
	n, err := h.open(h.mode())
	require.NoError(t, err)
	err = n.CatchUp(t.Context(), atrest.View{Applied: h.last(), First: h.last() + 1, HadKeys: true})
	require.ErrorIs(t, err, guard.ErrKeysMissing)
	require.NoError(t, n.Close())

	write(h.fs, found)
	_, err = h.open(atrest.WithGeneration1(atrest.Generation1{}))
	require.ErrorIs(t, err, guard.ErrTampered)
	require.Equal(t, found, read(h.fs))
	h.start(h.mode())
	require.Len(t, h.view().Keys, 3)
}

// The reference system inserts a row of node 0 for the proposer of a cutover. It stands
// for nobody.
func TestTakeOverSkipsRowsOfNodeZero(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.rows = append(h.rows, applier.RowsOf([]applier.Writer{{Key: foundStorage, First: 2, Last: 2}, {Key: 99, Node: 5}})...)
	h.start(h.mode())
	_, ok := h.node.State().Writer(foundStorage, 0)
	require.False(t, ok)
}

// The state of a take-over is that of the host's durable applied index: another one
// would part the members, or make entries count as applied that were not.
func TestTakeOverAtAnotherIndexIsRefused(t *testing.T) {
	h := newFirstHost(t, "v2")
	before := read(h.fs)
	h.at = h.view().Applied - 1
	_, err := h.open(h.mode())
	require.ErrorIs(t, err, atrest.ErrConfig)
	h.untouched(before)

	view := atrest.View{Applied: foundIndex, First: foundIndex + 1, HadKeys: true}
	for _, at := range []uint64{foundIndex + 50, math.MaxUint64} {
		h.at = at
		n, err := h.open(h.mode())
		require.NoError(t, err)
		require.ErrorIs(t, n.Restore(t.Context(), must(n.Snapshot())), atrest.ErrOrder)
		err = n.CatchUp(t.Context(), view)
		require.ErrorIs(t, err, atrest.ErrConfig)
		require.ErrorContains(t, err, "nothing was taken over")
		require.NoError(t, n.Close())
		h.untouched(before)
		require.ErrorIs(t, n.CatchUp(t.Context(), view), atrest.ErrClosed)
		h.untouched(before)
	}
	h.at = foundIndex
	h.start(h.mode())
	require.Len(t, h.view().Keys, 3)
}

// What a crash left of a write of the view is removed by the next start.
func TestViewThatWasNotFinishedIsRemoved(t *testing.T) {
	h := newFirstHost(t, "v2")
	left := keysJSON + ".AAAAAAAAAAAAAAAAAAAAAAAAAA.tmp"
	f := must(h.fs.OpenFile(left, os.O_WRONLY|os.O_CREATE, 0o600))
	require.NoError(t, f.Close())
	h.start(h.mode())
	_, err := h.fs.Lstat(left)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// The file that a take-over believes is nobody else's to write, and is a file.
func TestTakeOverLooksAtTheFileItself(t *testing.T) {
	h := newFirstHost(t, "v2")
	found := read(h.fs)
	require.NoError(t, h.fs.Remove(keysJSON))
	f := must(h.fs.OpenFile(keysJSON, os.O_WRONLY|os.O_CREATE, 0o644))
	must(f.Write(found))
	require.NoError(t, f.Close())
	_, err := h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrTampered)
	require.ErrorContains(t, err, "chmod 600")
	h.untouched(found)

	d := t.TempDir()
	require.NoError(t, os.Mkdir(d+"/keys.json", 0o700))
	c := atrest.Config{Dir: d, Name: "n1", KEK: h.keks, Propose: h.propose}
	_, err = atrest.Open(t.Context(), c, h.mode())
	require.ErrorIs(t, err, guard.ErrTampered)
}

// A host whose store is in memory has no applied index when it catches up.
func TestTakeOverOfAHostInMemory(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.at = h.view().Applied
	n, err := h.open(h.mode())
	require.NoError(t, err)
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{First: 1, HadKeys: true}))
	require.Equal(t, h.at, n.State().Index())
	require.NoError(t, n.Close())
}

// Nor does a word too many make a keys.json that is ahead the worse one.
func TestViewThatIsAheadAndReadableByOthers(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Close())
	ahead := h.edit(epochOf(foundStorage, 500))
	require.NoError(t, h.fs.Remove(keysJSON))
	f := must(h.fs.OpenFile(keysJSON, os.O_WRONLY|os.O_CREATE, 0o644))
	must(f.Write(ahead))
	require.NoError(t, f.Close())
	_, err := h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrTampered)
	require.Equal(t, ahead, read(h.fs))
}

// A start that caught up without keys is not one that found nothing: the host went on.
func TestTakeOverAfterAHostWentOn(t *testing.T) {
	h := newFirstHost(t, "v2")
	found := read(h.fs)
	require.NoError(t, h.fs.Remove(keysJSON))
	n, err := h.open(h.mode())
	require.NoError(t, err)
	nothing := func(context.Context, uint64, uint64, func(uint64, []byte) error) error { return nil }
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: 5000, First: 4001, Entries: nothing}))
	require.NoError(t, n.Close())
	write(h.fs, found)
	_, err = h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrTampered)
	require.Equal(t, found, read(h.fs))
}
