package atrest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
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

// partOutage is a KEK that cannot open one wrap.
type partOutage struct {
	kek.KEK
	wrap atomic.Pointer[[]byte]
}

func (o *partOutage) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if w := o.wrap.Load(); w != nil && bytes.Equal(wrapped, *w) {
		return nil, fmt.Errorf("%w: for this one", kek.ErrUnreachable)
	}
	return o.KEK.Unwrap(ctx, wrapped, ad)
}

// A node whose active key is missing does not go on under the former one, for which it
// has no epoch, and never with a suite that generation 1 does not have.
func TestGeneration1WithoutTheActiveKey(t *testing.T) {
	for _, p := range []key.Purpose{key.Storage, key.Raft} {
		t.Run(p.String(), func(t *testing.T) {
			h := newFirstHost(t, "v2")
			o := &partOutage{KEK: h.kek}
			h.keks = must(kek.NewSet(o))
			h.start(h.mode())
			entry, err := h.node.NewRotation(t.Context(), p)
			require.NoError(t, err)
			require.NoError(t, h.propose(t.Context(), entry))
			active, _ := h.node.State().Active(p)
			require.NoError(t, h.node.Close())

			o.wrap.Store(&active.Container)
			n, err := h.open(h.mode())
			require.NoError(t, err)
			defer n.Close()
			require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: h.last(), First: h.last() + 1, Snapshot: h.last(), HadKeys: true}))
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if p == key.Storage {
				_, _, err = n.Storage().SealContext(ended, nil, []byte("v"), nil)
			} else {
				_, err = n.Raft().Seal(nil, []byte("v"))
			}
			require.ErrorIs(t, err, atrest.ErrRetry)
		})
	}
}

// Whether an entry of generation 1 halts an upgraded member does not depend on which keys
// are loaded: it is waited for.
func TestPayloadOfGeneration1WhoseKeyIsMissing(t *testing.T) {
	h := newFirstHost(t, "v2")
	o := &partOutage{KEK: h.kek}
	h.keks = must(kek.NewSet(o))
	h.start(h.mode())
	missed := must(h.node.Raft().Seal(nil, []byte("missed")))
	require.NoError(t, h.node.Close())
	at := h.last() + 1
	_, err := h.upgrade(atrest.UpgradeConfig{Applied: at})
	require.NoError(t, err)
	h.start()
	active, _ := h.node.State().Active(key.Raft)
	require.NoError(t, h.node.Close())
	o.wrap.Store(&must(key.ParseContainer(active.Container)).Recipients[0].Wrap)
	h.start()
	result := make(chan error)
	go func() {
		_, err := h.node.Raft().Open(nil, at, missed)
		result <- err
	}()
	_, err = h.node.Raft().Open(nil, at+1000, missed)
	require.ErrorIs(t, err, atrest.ErrRejected, "from after the upgrade")
	_, err = h.node.Raft().Open(nil, at, []byte("in clear"))
	require.ErrorIs(t, err, atrest.ErrRejected)
	select {
	case err := <-result:
		t.Fatal("it did not wait", err)
	default:
	}
	o.wrap.Store(nil)
	err = <-result
	require.ErrorContains(t, err, "had not applied it when it was upgraded")
	require.NotErrorIs(t, err, atrest.ErrRejected)
}

// Empty payloads are never sealed in generation 1, above the cutover too.
func TestGeneration1EmptyPayload(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	sealed, err := h.node.Raft().Seal(nil, nil)
	require.NoError(t, err)
	require.Empty(t, sealed)
	opened, err := h.node.Raft().Open(nil, h.last()+1, nil)
	require.NoError(t, err)
	require.Empty(t, opened)
}

// A registration that another load proposed is not that of this one.
func TestAdmitIsNotSatisfiedByAnotherLoad(t *testing.T) {
	h := newFirstHost(t, "v2")
	n, err := h.open(h.mode())
	require.NoError(t, err)
	defer n.Close()
	h.node = n
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: h.last(), First: h.last() + 1, Snapshot: h.last(), HadKeys: true}))
	taken := h.view().Keys[foundStorage].Epoch
	entry, err := applier.Generation1.Append(nil, applier.Registration{Key: foundStorage, Node: nodeid.Derive("n1"), Epoch: taken})
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, n.Admit(ended), atrest.ErrRetry)
	require.NoError(t, n.Ready(t.Context()))
	require.NoError(t, n.Admit(t.Context()))
	require.Equal(t, taken+1, h.view().Keys[foundStorage].Epoch)
}

// What was prepared for one entry is not installed for another one with the same id.
func TestGeneration1PreparedForAnotherEntry(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	const id = key.ID(4242)
	rotation := func(fill byte) []byte {
		var err error
		h.deks[id], err = insecurekey.New(bytes.Repeat([]byte{fill}, 32))
		require.NoError(t, err)
		w, err := h.keks.WrapGeneration1(t.Context(), id, h.deks[id])
		require.NoError(t, err)
		e, err := applier.Generation1.Append(nil, applier.Rotation{
			Key: applier.WrappedKey{ID: id, Wrap: w}, Purpose: key.Storage, Proposer: applier.WriterRow{Key: id, Node: nodeid.Derive("n1")},
		})
		require.NoError(t, err)
		return e
	}
	require.NoError(t, h.node.Prepare(t.Context(), rotation(1))) // never commits
	committed := rotation(2)
	require.NoError(t, h.propose(t.Context(), committed))
	_, err := h.node.Storage().Open(nil, h.elsewhere(id, "by another member", "x"), []byte("x"), true)
	require.NoError(t, err)
}

// A snapshot of another cluster under the same KEK, where no id tells them apart, does
// not replace the keys of this one.
func TestGeneration1RefusesTheSnapshotOfAnotherCluster(t *testing.T) {
	inClear := func(f *generation1.File) { f.StorageActive, f.StorageCutover, f.RaftCutover = false, 0, 0 }
	a := newFirstHost(t, "v2")
	a.edit(inClear)
	a.start(a.mode())
	b := newFirstHost(t, "v2")
	b.edit(func(f *generation1.File) {
		inClear(f)
		delete(f.Keys, foundOldStorage)
		f.Applied += 1000
	})
	b.skip(1000)
	b.at = b.index
	b.start(b.mode())
	part, err := b.node.Snapshot()
	require.NoError(t, err)
	require.ErrorIs(t, a.node.Restore(t.Context(), part), guard.ErrDivergence)
	require.Len(t, a.view().Keys, 3)
}

// A member of generation 1 catches up with sealed entries of its log, and another one
// starts from its snapshot.
func TestGeneration1CatchesUpAndRestores(t *testing.T) {
	a := newFirstHost(t, "v2")
	a.start(a.mode())
	entry, err := a.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	sealed, err := a.node.Raft().Seal(nil, entry)
	require.NoError(t, err)

	b := newFirstHost(t, "v2")
	b.start(b.mode())
	require.NoError(t, b.node.Close())
	at := b.last() + 10
	n, err := b.open(b.mode())
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{
		Applied: at, First: foundIndex - 5, HadKeys: true,
		Entries: func(_ context.Context, from, to uint64, yield func(uint64, []byte) error) error {
			require.Equal(t, []uint64{b.last() + 1, at}, []uint64{from, to})
			return yield(at, sealed)
		},
	}))
	require.Equal(t, at, n.State().Index())
	require.Len(t, b.view().Keys, 4)
	part, err := n.Snapshot()
	require.NoError(t, err)

	c := newFirstHost(t, "v2")
	require.NoError(t, c.fs.Remove(keysJSON))
	n, err = c.open(atrest.WithGeneration1(atrest.Generation1{}))
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.Restore(t.Context(), part))
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: at, First: at + 1, Snapshot: at, HadKeys: true}))
	require.Len(t, c.view().Keys, 4)
	_, err = n.Storage().Open(nil, c.elsewhere(foundStorage, "x", "y"), []byte("y"), true)
	require.NoError(t, err)
}

// corrupting is a KEK whose wraps do not open.
type corrupting struct{ kek.KEK }

func (corrupting) ID() string { return "kms:corrupting" }

func (c corrupting) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	w, err := c.KEK.Wrap(ctx, plaintext, ad)
	if err == nil {
		w[len(w)-1] ^= 1
	}
	return w, err
}

// lying is a KEK that unwraps to another key. In generation 1 no check value tells.
type lying struct {
	kek.KEK
	now bool
}

func (l *lying) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	b, err := l.KEK.Unwrap(ctx, wrapped, ad)
	if err == nil && l.now {
		b[0] ^= 1
	}
	return b, err
}

func TestGeneration1VerifiesItsWraps(t *testing.T) {
	h := newFirstHost(t, "v2")
	k := &lying{KEK: h.kek}
	h.keks = must(kek.NewSet(k))
	h.start(h.mode())
	k.now = true
	_, err := h.node.NewRotation(t.Context(), key.Storage)
	require.ErrorContains(t, err, "does not unwrap to the same key")
}

// An upgrade writes no container that one of its KEKs does not open.
func TestUpgradeVerifiesEveryRecipient(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Close())
	before := read(h.fs)
	good := h.keks
	h.keks = must(kek.NewSet(h.kek, corrupting{h.kek}))
	u, err := h.upgrade(atrest.UpgradeConfig{})
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.Nil(t, u)
	require.Equal(t, before, read(h.fs))
	h.keks = good
	_, err = h.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
}

// What a member must not adopt.
func TestUpgradeRefusesWhatIsNotOfThisCluster(t *testing.T) {
	generation2 := func(index uint64, change func(h *firstHost)) []byte {
		h := newFirstHost(t, "v2")
		h.index, h.at = index, index
		change(h)
		h.start(h.mode())
		require.NoError(t, h.node.Close())
		_, err := h.upgrade(atrest.UpgradeConfig{})
		require.NoError(t, err)
		h.start()
		part, err := h.node.Snapshot()
		require.NoError(t, err)
		require.NoError(t, h.node.Close())
		return part
	}
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	entry, err := h.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	h.skip(100)
	require.NoError(t, h.propose(t.Context(), entry))
	first, err := h.node.Snapshot()
	require.NoError(t, err)
	index := h.node.State().Index()
	require.NoError(t, h.node.Close())
	same := func(*firstHost) {}
	lacking := func(h *firstHost) { h.edit(func(f *generation1.File) { delete(f.Keys, foundOldStorage) }) }
	inClear := func(h *firstHost) {
		h.edit(func(f *generation1.File) { f.StorageActive, f.StorageCutover = false, 0 })
	}
	noRows := func(h *firstHost) {
		h.rows = nil
		h.edit(func(f *generation1.File) {
			epochOf(foundStorage, 1)(f)
			epochOf(foundRaft, 1)(f)
		})
	}
	otherPurpose := func(h *firstHost) {
		h.edit(func(f *generation1.File) {
			k := f.Keys[foundOldStorage]
			k.Purpose = key.Raft
			f.Keys[foundOldStorage] = k
		})
	}
	otherDEK := func(h *firstHost) {
		h.edit(func(f *generation1.File) {
			k := f.Keys[foundOldStorage]
			k.Wrapped = must(h.keks.WrapGeneration1(t.Context(), foundOldStorage, key.NewDEK()))
			f.Keys[foundOldStorage] = k
		})
	}
	good := generation2(index+1000, same)
	forged := bytes.Clone(good)
	forged[8] ^= 1 // of the MAC
	for name, tt := range map[string]struct {
		part []byte
		want error
	}{
		"generation 1":   {first, atrest.ErrSnapshot},
		"forged":         {forged, atrest.ErrSnapshot},
		"behind":         {generation2(foundIndex, same), atrest.ErrSnapshot},
		"another's keys": {generation2(index+1000, lacking), atrest.ErrOtherCluster},
		"no cutover":     {generation2(index+1000, inClear), atrest.ErrOtherCluster},
		"lower epochs":   {generation2(index+1000, noRows), atrest.ErrOtherCluster},
		"other purpose":  {generation2(index+1000, otherPurpose), atrest.ErrOtherCluster},
		"another DEK":    {generation2(index+1000, otherDEK), atrest.ErrOtherCluster},
	} {
		t.Run(name, func(t *testing.T) {
			before := read(h.fs)
			_, err := h.upgrade(atrest.UpgradeConfig{Adopt: tt.part})
			require.ErrorIs(t, err, tt.want)
			require.Equal(t, before, read(h.fs))
		})
	}
	_, err = h.upgrade(atrest.UpgradeConfig{Adopt: good})
	require.ErrorIs(t, err, atrest.ErrOtherCluster, "it does not have the rotation")
}

// An upgrade keeps the epochs that only the registry knows, and what was reserved.
func TestUpgradeKeepsEpochsAndUsage(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	before := h.node.Status()
	require.NoError(t, h.node.Close())
	u, err := h.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	h.start()
	for i, k := range h.node.Status().Keys {
		if k.State != key.Active {
			continue
		}
		require.Equal(t, before.Keys[i].Epoch, u.Epochs[k.ID])
		require.Equal(t, u.Epochs[k.ID]+1, k.Epoch)
		require.Positive(t, k.Usage.Seals, "what the load before had reserved counts as used")
	}
}

// A host that compacts its log without snapshots starts after an upgrade, too.
func TestUpgradeKeepsWhatWasCompacted(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	applied := h.last() + 500
	require.NoError(t, h.node.Compacted(applied))
	require.NoError(t, h.node.Close())
	_, err := h.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	n, err := h.open()
	require.NoError(t, err)
	defer n.Close()
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: applied, First: applied + 1, HadKeys: true}))
}

// After an upgrade a part of generation 1 has no effect if it is an older one of this
// cluster, and is refused if it is anything else.
func TestPartsOfGeneration1AfterAnUpgrade(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	part, err := h.node.Snapshot()
	require.NoError(t, err)
	require.NoError(t, h.node.Close())

	other := newFirstHost(t, "v2")
	other.start(other.mode())
	entry, err := other.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	require.NoError(t, other.propose(t.Context(), entry))
	unknown, err := other.node.Snapshot()
	require.NoError(t, err)

	newer := newFirstHost(t, "v2")
	newer.index, newer.at = foundIndex+1000, foundIndex+1000
	newer.start(newer.mode())
	later, err := newer.node.Snapshot()
	require.NoError(t, err)

	_, err = h.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	h.skip(100)
	n, err := h.open()
	require.NoError(t, err)
	defer n.Close()
	before := n.State()
	require.NoError(t, n.Restore(t.Context(), part))
	forged := bytes.Clone(part)
	forged[8] ^= 1
	for _, bad := range [][]byte{forged, unknown, later} {
		require.ErrorIs(t, n.Restore(t.Context(), bad), atrest.ErrSnapshot)
	}
	require.Same(t, before, n.State())
}

// Members of which one took over a file of version 1, which does not say where the
// storage cutover was, do not contradict each other.
func TestMembersWithFilesOfBothVersions(t *testing.T) {
	a, b := newFirstHost(t, "v1"), newFirstHost(t, "v2")
	a.start(a.mode())
	b.start(b.mode())
	require.NoError(t, a.node.Restore(t.Context(), must(b.node.Snapshot())))
	entry, err := b.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	b.skip(10)
	require.NoError(t, b.propose(t.Context(), entry))
	part := must(b.node.Snapshot())
	require.NoError(t, a.node.Restore(t.Context(), part))
	require.GreaterOrEqual(t, a.node.State().Index(), must(applier.ParseSnapshot(part[40:])).Index())
}

// A process in generation-1 mode keeps out of a directory in which one of generation 2
// runs, and the other way round, and removes nothing that is still being written.
func TestGenerationsExcludeEachOther(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	_, err := h.open()
	require.ErrorIs(t, err, guard.ErrInUse)
	require.NoError(t, h.node.Close())
	meta := func() []byte {
		f := must(h.fs.OpenFile(dir+"/"+guard.MetaName, os.O_RDONLY, 0))
		defer f.Close()
		return must(io.ReadAll(f))
	}()
	_, err = h.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	h.start()
	f := must(h.fs.OpenFile(dir+"/"+guard.MetaName, os.O_WRONLY|os.O_CREATE, 0o600)) // as if it were still there
	must(f.Write(meta))
	require.NoError(t, f.Close())
	for _, start := range []func() error{
		func() error { _, err := h.open(h.mode()); return err },
		func() error { _, err := h.upgrade(atrest.UpgradeConfig{}); return err },
	} {
		require.ErrorIs(t, start(), guard.ErrInUse)
	}
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

// A registration that was not built does not make another load's row this one's.
func TestAdmitAfterARegistrationThatWasRefused(t *testing.T) {
	h := newFirstHost(t, "v2")
	n, err := h.open(h.mode())
	require.NoError(t, err)
	defer n.Close()
	h.node = n
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: h.last(), First: h.last() + 1, Snapshot: h.last(), HadKeys: true}))
	taken := h.view().Keys[foundStorage].Epoch
	entry, err := applier.Generation1.Append(nil, applier.Registration{Key: foundStorage, Node: nodeid.Derive("n1"), Epoch: taken})
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	_, err = n.NewRegistration(key.Storage)
	require.ErrorIs(t, err, applier.ErrDuplicate)
	require.NoError(t, n.Restore(t.Context(), must(n.Snapshot())))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, n.Admit(ended), atrest.ErrRetry)
}

// Before the storage cutover values are in clear, and nothing is waited for.
func TestAdmitBeforeTheCutover(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.edit(func(f *generation1.File) { f.StorageActive, f.StorageCutover, f.RaftCutover = false, 0, 0 })
	n, err := h.open(h.mode())
	require.NoError(t, err)
	defer n.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, n.Admit(ended))
}

// An upgrade is refused where the start after it would be.
func TestUpgradeChecksTheRegistry(t *testing.T) {
	// The same place in the registry, taken by another node for another key.
	own := nodeid.Derive("n1")
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	entry, err := applier.Generation1.Append(nil, applier.Registration{Key: foundOldStorage, Node: own ^ 1<<40, Epoch: 3})
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	require.NoError(t, h.node.Close())
	_, err = h.upgrade(atrest.UpgradeConfig{DryRun: true})
	require.ErrorIs(t, err, guard.ErrCollision)
}

// An empty file of version 3 beside keys.meta.json is not what an upgrade left.
func TestUpgradeBesideAnEmptyFileOfVersion3(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Close())
	empty := &firstHost{t: t, fs: crashfs.New(), keks: h.keks}
	empty.fs.Mkdir(dir)
	n, err := empty.open()
	require.NoError(t, err)
	require.NoError(t, n.Close())
	write(h.fs, read(empty.fs))
	_, err = h.upgrade(atrest.UpgradeConfig{})
	require.ErrorIs(t, err, atrest.ErrConfig)
	require.ErrorContains(t, err, "move it away")
}

// The refused starts of generation-1 mode.
func TestGeneration1IsRefused(t *testing.T) {
	h := newFirstHost(t, "v2")
	for name, opt := range map[string]atrest.Option{
		"extended": atrest.WithExtendedOnly(), "several groups": atrest.WithSeveralGroups(),
	} {
		_, err := h.open(h.mode(), opt)
		require.ErrorIs(t, err, atrest.ErrConfig, name)
	}
	_, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: h.keks}, h.mode(), atrest.WithFS(h.fs))
	require.ErrorIs(t, err, atrest.ErrConfig)
	h.fs.FailAt(0, nil, crashfs.None)
	h.start(h.mode())
	require.ErrorIs(t, h.node.Import(t.Context(), must(h.node.Snapshot())), atrest.ErrConfig)
	_, err = h.node.WriteBackup(t.Context(), nil, applier.BackupID{1}, 0, nil)
	require.ErrorIs(t, err, atrest.ErrConfig)
	_, err = h.node.NewBackup(applier.BackupID{1})
	require.ErrorIs(t, err, atrest.ErrConfig)
	_, err = h.node.NewStop(foundOldStorage)
	require.ErrorIs(t, err, atrest.ErrConfig)
	_, _, _, err = h.node.Streams().NewStreamKey()
	require.ErrorIs(t, err, atrest.ErrConfig)
	part := must(h.node.Snapshot())
	file := append([]byte("\xa7BK\x02"), make([]byte, 24)...)
	file = append(binary.BigEndian.AppendUint32(file, uint32(len(part))), part...)
	_, err = atrest.ReadBackup(t.Context(), bytes.NewReader(file), h.keks)
	require.ErrorIs(t, err, atrest.ErrBackup)
	env, _, err := h.node.Storage().Seal(nil, []byte("v"), nil)
	require.NoError(t, err)
	require.Equal(t, byte(envelope.AES256GCM), env[0])
}

// The registry goes on in the host's store where a mirror keeps it, in the keys and
// values of the reference system.
func TestGeneration1MirrorsTheRegistry(t *testing.T) {
	h := newFirstHost(t, "v2")
	store := &rowStore{rows: map[string]string{}}
	h.start(h.mode(), atrest.WithMirror(store))
	entry, err := h.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	require.NoError(t, h.node.Admit(t.Context()))
	active, _ := h.node.State().Active(key.Storage)
	require.NoError(t, h.node.Close())
	store.has(t, h.node.State())
	n := nodeid.Derive("n1")
	name := append([]byte("!encryption|writers|"), 0, 0, 0, 0, '|', 0, 0)
	binary.BigEndian.PutUint32(name[20:], uint32(active.ID))
	binary.BigEndian.PutUint16(name[25:], n.Node16())
	value := binary.BigEndian.AppendUint64(nil, uint64(n))
	require.Equal(t, string(append(value, 0, 0, 0, 1)), store.rows[string(name)])
}
