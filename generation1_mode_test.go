package atrest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
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
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

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
			require.NoError(t, n.CatchUp(t.Context(), h.seen()))
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
	require.NoError(t, n.CatchUp(t.Context(), h.seen()))
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

// A registration that was not built does not make another load's row this one's.
func TestAdmitAfterARegistrationThatWasRefused(t *testing.T) {
	h := newFirstHost(t, "v2")
	n, err := h.open(h.mode())
	require.NoError(t, err)
	defer n.Close()
	h.node = n
	require.NoError(t, n.CatchUp(t.Context(), h.seen()))
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
