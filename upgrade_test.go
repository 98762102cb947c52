package atrest_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

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
