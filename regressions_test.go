package atrest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Mistakes that have been made in such systems, one test each. Some that text files
// tell better are in testdata/conversations.

func encoded(e applier.Entry) []byte { return must(applier.Generation2.Append(nil, e)) }

// row is what the registry has of a node for a key.
func row(s *applier.State, id key.ID, node nodeid.ID) applier.Writer {
	w, _ := s.Writer(id, node.Node16())
	return w
}

// All members once had one id, that of their group.
func TestEachMemberHasItsOwnID(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		ids := map[nodeid.ID]bool{}
		for _, m := range ms {
			require.Equal(t, nodeid.Derive(m.name), m.node.ID())
			ids[m.node.ID()] = true
			for _, p := range []key.Purpose{key.Storage, key.Raft} {
				require.Equal(t, m.node.ID(), row(ms[0].node.State(), m.active(p), m.node.ID()).Node)
			}
		}
		require.Len(t, ids, 3)
	})
}

// A node that could not apply what it had proposed stopped every replica.
func TestNodeIsNeverHalfConfigured(t *testing.T) {
	s := newSite(t, crashfs.New())
	good := atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}
	for name, tt := range map[string]struct {
		change func(c *atrest.Config)
		opt    atrest.Option
		want   error
	}{
		"directory":     {change: func(c *atrest.Config) { c.Dir = "" }, want: atrest.ErrConfig},
		"name":          {change: func(c *atrest.Config) { c.Name = "" }, want: atrest.ErrConfig},
		"KEK":           {change: func(c *atrest.Config) { c.KEK = nil }, want: guard.ErrNoKEK},
		"way to Raft":   {change: func(c *atrest.Config) { c.Propose = nil }, want: atrest.ErrConfig},
		"nil observer":  {opt: atrest.WithObserver(nil), want: atrest.ErrConfig},
		"nil disk":      {opt: atrest.WithFS(nil), want: atrest.ErrConfig},
		"no time":       {opt: atrest.WithKEKTimeout(0), want: atrest.ErrConfig},
		"long group":    {opt: atrest.WithGroup(strings.Repeat("g", envelope.MaxGroup+1)), want: atrest.ErrConfig},
		"no such place": {change: func(c *atrest.Config) { c.Dir = "elsewhere" }, want: fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, opts := good, []atrest.Option{atrest.WithFS(s.fs)}
			if tt.change != nil {
				tt.change(&cfg)
			}
			if tt.opt != nil {
				opts = append(opts, tt.opt)
			}
			n, err := atrest.Open(t.Context(), cfg, opts...)
			require.ErrorIs(t, err, tt.want)
			require.Nil(t, n)
		})
	}
	names := must(s.fs.ReadDir(dir))
	require.Empty(t, names, "and nothing was written")
}

// The id 0, which stands for nobody, was taken for a member's.
func TestNobodyIsNoMember(t *testing.T) {
	require.Zero(t, nodeid.Derive(""))
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	_, err := s.node.NewBootstrap(s.ctx, []nodeid.Member{{Name: "n1", ID: s.node.ID()}, {}})
	require.Error(t, err)
	require.NoError(t, s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	_, err = s.node.NewWriterGone(0)
	require.ErrorIs(t, err, applier.ErrNodeZero)
}

// reject applies an entry that all replicas reject.
func (s *site) reject(t *testing.T, entry []byte, why error) {
	t.Helper()
	before, index := s.node.State(), s.node.State().Index()+1
	o, err := s.node.Apply(index, entry)
	require.NoError(t, err, "the replica goes on")
	require.Equal(t, applier.Rejected, o.Kind, "%v", o.Why)
	require.ErrorIs(t, o.Why, why)
	require.Same(t, before, s.node.State())
}

// Lengths and counts that are larger than what follows, or than anything, had memory
// reserved for them, or overflowed on 32-bit machines.
func TestHostileLengthsAreRejected(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	defer s.node.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, length := range []uint32{1 << 16, math.MaxInt32 - 20, math.MaxInt32, 1 << 31, math.MaxUint32 - 20, math.MaxUint32} {
		n := binary.BigEndian.AppendUint32(nil, length)
		for what, body := range map[string]string{
			"storage wrap of a bootstrap": "\x04\x02\x00\x00\x00\x07" + string(n) + "wrap",
			"raft wrap of a bootstrap":    "\x04\x02\x00\x00\x00\x07\x00\x00\x00\x01w\x00\x00\x00\x08" + string(n) + "wrap",
			"rows of a bootstrap":         "\x04\x02\x00\x00\x00\x07\x00\x00\x00\x01w\x00\x00\x00\x08\x00\x00\x00\x01w" + string(n) + "rows",
			"wrap of a rotation":          "\x05\x02\x01\x00\x00\x00\x07\x01" + string(n) + "wrap",
			"keys of a rewrap":            "\x05\x02\x02" + string(n) + "keys",
			"members of a destroy":        "\x05\x02\x03\x02\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x09" + string(n) + "members",
			"keys of a backup":            "\x05\x02\x03\x04" + strings.Repeat("b", 16) + string(n) + "keys",
		} {
			t.Run(fmt.Sprintf("%s %d", what, length), func(t *testing.T) {
				s.reject(t, []byte("\xa7EN\x02"+body), applier.ErrMalformed)
			})
		}
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

// A wrap had a limit in one kind of entry and none in the other.
func TestOversizedWrapsAreRejected(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	long := bytes.Repeat([]byte{1}, key.MaxContainer+1)
	wrap := append(binary.BigEndian.AppendUint32(nil, uint32(len(long))), long...)
	bootstrap := append([]byte("\xa7EN\x02\x04\x02\x00\x00\x00\x07"), wrap...)
	bootstrap = append(bootstrap, "\x00\x00\x00\x08\x00\x00\x00\x01w\x00\x00\x00\x00"...)
	s.reject(t, bootstrap, applier.ErrMalformed)
	require.NoError(t, s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	rotation := append([]byte("\xa7EN\x02\x05\x02\x01\x00\x00\x00\x07\x01"), wrap...)
	rotation = append(rotation, "\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00"...)
	s.reject(t, rotation, applier.ErrMalformed)
}

// What this version does not know was skipped, or taken for the host's.
func TestUnknownEntriesAreNotSkipped(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	defer s.node.Close()
	state := s.node.State()
	halts := func(entry string) {
		t.Helper()
		payload := []byte("\xa7EN\x02" + entry)
		require.True(t, s.node.IsEntry(payload))
		require.ErrorIs(t, s.node.CheckPayload(payload), atrest.ErrReservedPrefix)
		_, err := s.node.Apply(state.Index()+1, payload)
		require.ErrorAs(t, err, new(*applier.UnknownError), "%x", entry)
		require.NotErrorIs(t, err, atrest.ErrRetry)
		require.Same(t, state, s.node.State())
		o, err := s.node.Apply(state.Index(), payload)
		require.NoError(t, err, "it was applied, by a later version")
		require.Equal(t, applier.NoOp, o.Kind)
	}
	for op := range 256 {
		if op < 3 || op > 5 {
			halts(string([]byte{byte(op), 2}))
		}
		if op != 2 {
			halts(string([]byte{3, byte(op)}))
		}
		if op == 0 || op > 5 {
			halts(string([]byte{5, 2, byte(op)}))
			halts(string([]byte{5, 2, 3, byte(op)}))
		}
	}
	for _, purpose := range []byte{0, 3, 255} {
		e := encoded(applier.EnableStorage{Key: 7, Proposer: applier.WriterRow{Key: 7, Node: 5}})
		e[11] = purpose
		halts(string(e[4:]))
	}
}

// A replayed registration, whose epoch is the last one, was taken for a rollback, and
// the node never started again.
func TestEqualEpochReplayIsNoRollback(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n2 := ms[1]
		n2.disk.memory = true
		for epoch := uint16(2); epoch < 5; epoch++ {
			require.NoError(t, n2.restart()) // replays everything
			require.NoError(t, n2.halted)
			k := n2.status(n2.active(key.Storage))
			require.Equal(t, epoch, k.Epoch)
			require.True(t, k.Registered)
		}
		registration := must(n2.node.NewBackup(applier.BackupID{1})) // any other entry
		w.commit(n2, registration)
		s := n2.node.State()
		last := row(s, n2.active(key.Storage), n2.node.ID())
		again := encoded(applier.Registration{Key: last.Key, Node: last.Node, Epoch: last.Last, Load: last.Load})
		o, err := n2.node.Apply(s.Index()+1, again)
		require.NoError(t, err)
		require.Equal(t, applier.NoOp, o.Kind)
		require.ErrorIs(t, o.Why, applier.ErrDuplicate)
	})
}

// Replayed registrations of earlier loads, which are below the last one, stopped the
// replica.
func TestReplayedRegistrationsDoNotHalt(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	defer s.node.Close()
	id, other := s.active(key.Storage), nodeid.Derive("n2")
	for epoch := range uint16(5) {
		entry := encoded(applier.Registration{Key: id, Node: other, Epoch: epoch, Load: applier.LoadID{byte(epoch)}})
		i, err := s.commit(entry, nil)
		if epoch == 0 {
			s.log = s.log[:len(s.log)-1] // the bootstrap has reserved it
			continue
		}
		require.NoError(t, err)
		require.NoError(t, s.apply(s.node, i))
	}
	want := s.node.State().Digest()
	for range 2 {
		for i := range s.log {
			require.NoError(t, s.apply(s.node, uint64(i+1)))
		}
	}
	require.Equal(t, want, s.node.State().Digest())
}

// A replayed bootstrap set the epochs in the file back to 0, and the next start used
// one a second time.
func TestReplayedBootstrapDoesNotResetEpochs(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	id := s.active(key.Storage)
	for want := uint16(2); want < 6; want++ {
		require.NoError(t, s.node.Close())
		n := must(s.open(s.fs))
		require.NoError(t, n.CatchUp(s.ctx, s.view(0))) // its store is gone
		require.NoError(t, s.apply(n, 1))
		for _, k := range n.Status().Keys {
			require.Equal(t, want, k.Epoch)
		}
		bootstrap := s.log[0]
		for _, i := range []uint64{1, 2, uint64(len(s.log)), uint64(len(s.log)) + 1} { // wherever it comes again
			o, err := n.Apply(i, bootstrap)
			require.NoError(t, err)
			require.Equal(t, applier.NoOp, o.Kind, "%v", o.Why)
		}
		require.Equal(t, s.pure.Digest(), n.State().Digest())
		require.Contains(t, string(read(s.fs.Restart())), fmt.Sprintf(`"%s": %d`, id, want))
		s.node = n
	}
	require.NoError(t, s.node.Close())
}

// One id for two keys, rows of keys that the entry is not about, and bootstraps after
// the first were accepted, or stopped every replica.
func TestContradictoryEntriesAreRejected(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	self := s.node.ID()
	first := must(applier.Generation2.Parse(must(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: self}})))).(applier.Bootstrap)
	second := must(applier.Generation2.Parse(must(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: self}})))).(applier.Bootstrap)

	oneID := first
	oneID.Raft.ID = oneID.Storage.ID
	oneID.Writers = nil
	if b, err := applier.Generation2.Append(nil, oneID); err == nil {
		o, err := s.node.Apply(1, b)
		require.NoError(t, err)
		require.Equal(t, applier.Rejected, o.Kind)
	}
	swapped := first
	swapped.Storage, swapped.Raft = first.Raft, first.Storage
	swapped.Writers = nil
	s.reject(t, encoded(swapped), applier.ErrContainer)
	mixed := first
	mixed.Raft = second.Raft
	mixed.Writers = nil
	s.reject(t, encoded(mixed), applier.ErrContainer) // of two clusters
	foreign := first
	foreign.Writers = []applier.WriterRow{{Key: 77, Node: self}}
	s.reject(t, encoded(foreign), applier.ErrForeignRow)

	require.NoError(t, s.add(encoded(first), nil))
	s.reject(t, encoded(second), applier.ErrBootstrapped)
	same := first
	same.Storage.Wrap, same.Raft.Wrap = second.Storage.Wrap, second.Raft.Wrap
	s.reject(t, encoded(same), applier.ErrBootstrapped)
	rotation := must(applier.Generation2.Parse(must(s.node.NewRotation(s.ctx, key.Storage)))).(applier.Rotation)
	rotation.Proposer.Key = first.Storage.ID
	s.reject(t, encoded(rotation), applier.ErrForeignRow)
}

// A start without the host's log passed the check that needs it.
func TestCatchUpNeedsTheLog(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	require.NoError(t, s.node.Close())
	n := must(s.open(s.fs))
	defer n.Close()
	applied := uint64(len(s.log)) + 3
	require.ErrorIs(t, n.CatchUp(s.ctx, atrest.View{Applied: applied, First: 1}), atrest.ErrConfig)
	gone := errors.New("the log does not read")
	v := s.view(applied)
	v.Entries = func(context.Context, uint64, uint64, func(uint64, []byte) error) error { return gone }
	require.ErrorIs(t, n.CatchUp(s.ctx, v), gone)
	_, err := n.Apply(applied+1, s.log[0])
	require.ErrorIs(t, err, atrest.ErrOrder, "nothing is applied before")
	require.ErrorIs(t, n.Ready(s.ctx), atrest.ErrOrder)
	require.ErrorIs(t, n.Compacted(1), atrest.ErrOrder)
	v.Entries = func(context.Context, uint64, uint64, func(uint64, []byte) error) error { return nil }
	require.NoError(t, n.CatchUp(s.ctx, v))
	require.ErrorIs(t, n.CatchUp(s.ctx, v), atrest.ErrOrder)
}

// A file that could not be parsed hid that there was no KEK to read it with.
func TestMissingKEKIsSaidBeforeADamagedFile(t *testing.T) {
	s := newSite(t, crashfs.New())
	write(s.fs, []byte("damaged"))
	_, err := atrest.Open(t.Context(), atrest.Config{Dir: dir, Name: "n1", Propose: noPropose}, atrest.WithFS(s.fs))
	require.ErrorIs(t, err, guard.ErrNoKEK)
	_, err = s.open(s.fs)
	require.ErrorIs(t, err, guard.ErrTampered)
}

// A disk on which directories cannot be synced went unnoticed.
func TestDiskThatForgetsNamesIsRefused(t *testing.T) {
	s := newSite(t, crashfs.New())
	forgetful := forgetfulDisk{s.fs}
	cfg := atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}
	_, err := atrest.Open(t.Context(), cfg, atrest.WithFS(forgetful))
	require.ErrorIs(t, err, guard.ErrFilesystem)
	require.NoError(t, s.both())
	require.NoError(t, s.node.Close())
	_, err = atrest.Open(t.Context(), cfg, atrest.WithFS(forgetful))
	require.ErrorIs(t, err, guard.ErrFilesystem, "nor later")
}

type forgetfulDisk struct{ *crashfs.FS }

func (forgetfulDisk) SyncDir(name string) error {
	return &fs.PathError{Op: "fsync", Path: name, Err: syscall.EINVAL}
}

// Each part of a host had its own idea of whether values are sealed, and some never
// learned of the cutover.
func TestAllWaysToValuesSeeTheCutover(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	ways := []*atrest.Storage{s.node.Storage(), s.node.Storage()}
	raft := s.node.Raft()
	require.NoError(t, s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	require.NoError(t, s.add(s.node.NewEnableStorage()))
	require.NoError(t, s.add(s.node.NewEnableRaft()))
	for _, v := range append(ways, s.node.Storage()) {
		_, sealed, err := v.Seal(nil, []byte("v"), []byte("k"))
		require.NoError(t, err)
		require.True(t, sealed)
	}
	p, err := raft.Seal(nil, []byte("payload"))
	require.NoError(t, err)
	require.NotContains(t, string(p), "payload")
}

// A stale cutover entry, which changes nothing, made a node seal its payloads.
func TestStaleRaftCutoverSealsNothing(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	require.NoError(t, s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	marker := must(s.node.NewEnableRaft())
	require.NoError(t, s.add(s.node.NewRotation(s.ctx, key.Raft)))
	s.reject(t, marker, applier.ErrStaleMarker)
	p, err := s.node.Raft().Seal(nil, []byte("payload"))
	require.NoError(t, err)
	require.Equal(t, "payload", string(p))
	p, err = s.node.Raft().Open(nil, 1000, p)
	require.NoError(t, err)
	require.Equal(t, "payload", string(p))
}

// A replay that met the cutover after a rotation took it for stale, and the node went
// on in clear.
func TestReplayedRaftCutoverAfterARotation(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	require.NoError(t, s.add(s.node.NewRotation(s.ctx, key.Raft)))
	require.NoError(t, s.node.Close())
	n := must(s.open(s.fs))
	defer n.Close()
	require.NoError(t, n.CatchUp(s.ctx, s.view(0)))
	for i := range s.log {
		require.NoError(t, s.apply(n, uint64(i+1)))
		p, err := n.Raft().Seal(nil, []byte("payload"))
		require.NoError(t, err)
		require.NotContains(t, string(p), "payload")
	}
}

// Index 0, which no log gives, became the index of a cutover.
func TestIndexZeroIsRefused(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	_, err := s.node.Apply(0, must(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	require.ErrorIs(t, err, applier.ErrIndex)
	require.False(t, s.node.State().Bootstrapped())
}

// An empty value came back as nil, which means that there is none.
func TestEmptyValueIsNotAbsent(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.begin())
	defer s.node.Close()
	values := s.node.Storage()
	check := func() {
		t.Helper()
		for _, v := range [][]byte{nil, {}} {
			out, sealed, err := values.Seal(nil, v, []byte("k"))
			require.NoError(t, err)
			got, err := values.Open(nil, out, []byte("k"), sealed)
			require.NoError(t, err)
			require.NotNil(t, got)
			require.Empty(t, got)
		}
	}
	check()
	require.NoError(t, s.add(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))
	require.NoError(t, s.add(s.node.NewEnableStorage()))
	check()
	require.NoError(t, s.add(s.node.NewRegistration(key.Storage)))
	check()
}

// A payload could be opened at the index, or with the flags, of another.
func TestSealedPayloadIsBound(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	defer s.node.Close()
	p, err := s.node.Raft().Seal(nil, []byte("payload"))
	require.NoError(t, err)
	at := uint64(len(s.log)) + 1
	for bit := range 8 * len(p) {
		changed := bytes.Clone(p)
		changed[bit/8] ^= 1 << (bit % 8)
		got, err := s.node.Raft().Open(nil, at, changed)
		require.Error(t, err, "bit %d", bit)
		require.Nil(t, got)
	}
	_, err = s.node.Raft().Open(nil, s.node.State().RaftCutover().Index, p)
	require.Error(t, err)
	require.NotErrorIs(t, err, atrest.ErrRejected, "a node that does not know the cutover stops")
}

// A part of a snapshot was taken for a snapshot of another kind, or for none at all.
func TestPartsOfSnapshotsAreRefused(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	snap := must(s.node.Snapshot())
	require.NoError(t, s.node.Close())
	other := newSite(t, crashfs.New())
	require.NoError(t, other.begin())
	defer other.node.Close()
	state := other.node.State()
	for n := range snap {
		require.ErrorIs(t, other.node.Restore(t.Context(), snap[:n]), atrest.ErrSnapshot, "%d of %d bytes", n, len(snap))
	}
	require.ErrorIs(t, other.node.Restore(t.Context(), append(bytes.Clone(snap), 0)), atrest.ErrSnapshot)
	require.ErrorIs(t, other.node.Restore(t.Context(), nil), atrest.ErrSnapshot)
	require.Same(t, state, other.node.State())
	require.NoError(t, other.node.Restore(t.Context(), snap))
}

// A directory that was lost took its epochs from the beginning again.
func TestRestoreTakesEpochsAboveTheRegistry(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	for _, p := range []key.Purpose{key.Storage, key.Raft} {
		require.NoError(t, s.add(encoded(applier.Registration{Key: s.active(p), Node: s.node.ID(), Epoch: 40, Load: applier.LoadID{1}}), nil))
	}
	snap := must(s.node.Snapshot())
	require.NoError(t, s.node.Close())
	empty := newSite(t, crashfs.New())
	n := must(empty.open(empty.fs))
	defer n.Close()
	require.NoError(t, n.Restore(t.Context(), snap))
	for _, k := range n.Status().Keys {
		require.Equal(t, uint16(41), k.Epoch)
	}
}

// An entry that every replica had rejected, because it was in clear above the cutover,
// took effect where it was looked through later.
func TestCatchUpRejectsWhatWasRejected(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	inClear := must(s.node.NewRotation(s.ctx, key.Storage))
	require.NoError(t, s.node.Close())
	s.log = append(s.log, inClear)
	n := must(s.open(s.fs))
	defer n.Close()
	_, err := n.Raft().Open(nil, uint64(len(s.log)), inClear)
	require.ErrorIs(t, err, atrest.ErrRejected)
	require.NoError(t, n.CatchUp(t.Context(), s.view(uint64(len(s.log)))))
	require.Equal(t, s.pure.Digest(), n.State().Digest())
}

// The row of another node in the registry was taken for one's own.
func TestForeignRowIsNotOnesOwn(t *testing.T) {
	s := newSite(t, crashfs.New())
	cfg := atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}
	require.NoError(t, s.begin())
	twin := nodeid.ID(1<<40 | uint64(s.node.ID().Node16()))
	e := must(applier.Generation2.Parse(must(s.node.NewBootstrap(s.ctx, []nodeid.Member{{ID: s.node.ID()}})))).(applier.Bootstrap)
	for i := range e.Writers {
		e.Writers[i].Node = twin
	}
	require.NoError(t, s.add(encoded(e), nil))
	require.ErrorIs(t, s.node.Ready(s.ctx), guard.ErrCollision)
	_, err := s.node.NewRegistration(key.Storage)
	require.ErrorIs(t, err, applier.ErrCollision)
	require.NoError(t, s.node.Close())
	_, err = atrest.Open(t.Context(), cfg, atrest.WithFS(s.fs))
	require.ErrorIs(t, err, guard.ErrCollision)
	require.NotErrorIs(t, err, atrest.ErrRetry)
}

// A snapshot of a log that had forked was taken because it was authentic.
func TestSnapshotOfAForkIsRefused(t *testing.T) {
	s := newSite(t, crashfs.New())
	require.NoError(t, s.both())
	require.NoError(t, s.node.Close())
	fork := func(fs *crashfs.FS) *atrest.Node {
		n := must(s.open(fs))
		require.NoError(t, n.CatchUp(t.Context(), s.view(uint64(len(s.log)))))
		_, err := n.Apply(uint64(len(s.log))+1, must(n.NewRotation(t.Context(), key.Storage)))
		require.NoError(t, err)
		return n
	}
	one, two := fork(s.fs.Restart()), fork(s.fs.Restart())
	defer one.Close()
	defer two.Close()
	state := one.State()
	require.ErrorIs(t, one.Restore(t.Context(), must(two.Snapshot())), guard.ErrDivergence)
	require.Same(t, state, one.State())
}

// A backup was refused by a host that has a log already, though nothing of it is older
// than the new cluster.
func TestImportIntoAHostThatHasALog(t *testing.T) {
	old := newSite(t, crashfs.New())
	require.NoError(t, old.both())
	snap := must(old.node.Snapshot())
	require.NoError(t, old.node.Close())
	s := newSite(t, crashfs.New())
	n := must(s.open(s.fs))
	require.NoError(t, n.Import(t.Context(), snap))
	v := atrest.View{Applied: 5000, First: 4001, HadKeys: true}
	v.Entries = func(_ context.Context, _, to uint64, yield func(uint64, []byte) error) error {
		return yield(to, []byte("not an entry"))
	}
	require.NoError(t, n.CatchUp(t.Context(), v))
	require.ErrorIs(t, n.Import(t.Context(), snap), atrest.ErrOrder)
	require.NoError(t, n.Close())
	n = must(s.open(s.fs))
	defer n.Close()
	require.NoError(t, n.CatchUp(t.Context(), v), "nor by the next start")
}
