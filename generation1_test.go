package atrest_test

import (
	"context"
	"crypto/fips140"
	"encoding/hex"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"sync"
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

// The keys of the directory in sidecar/generation1/testdata.
const (
	foundStorage    = key.ID(686633749)
	foundOldStorage = key.ID(1161666055)
	foundRaft       = key.ID(2754695158)
	foundIndex      = 184273
)

// firstHost is a host in generation-1 mode whose log is what it proposed itself.
type firstHost struct {
	t    testing.TB
	fs   *crashfs.FS
	at   uint64 // of the take-over
	kek  kek.KEK
	keks *kek.Set
	deks map[key.ID]key.DEK
	rows []applier.RegistryRow
	node *atrest.Node

	mu    sync.Mutex
	index uint64
	log   [][]byte // the entries up to index
}

func needsGeneration1(t testing.TB) {
	t.Helper()
	if fips140.Enforced() {
		t.Skip("generation 1 is refused in strict FIPS mode, see TestRefusalsInStrictFIPSMode")
	}
}

// newFirstHost makes a directory as the reference system left it.
func newFirstHost(t testing.TB, version string) *firstHost {
	t.Helper()
	needsGeneration1(t)
	h := &firstHost{t: t, fs: crashfs.New(), at: foundIndex, deks: map[key.ID]key.DEK{}, index: foundIndex}
	h.fs.Mkdir(dir)
	b, err := os.ReadFile("sidecar/generation1/testdata/keys-" + version + ".json")
	require.NoError(t, err)
	write(h.fs, b)

	b, err = os.ReadFile("sidecar/generation1/testdata/kek_and_deks.json")
	require.NoError(t, err)
	var secrets struct {
		KEK  string            `json:"kek"`
		DEKs map[string]string `json:"deks"`
	}
	require.NoError(t, json.Unmarshal(b, &secrets))
	raw, err := hex.DecodeString(secrets.KEK)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "kek")
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	h.kek, err = kek.File(path)
	require.NoError(t, err)
	h.keks, err = kek.NewSet(h.kek)
	require.NoError(t, err)
	for name, text := range secrets.DEKs {
		id, err := key.ParseID(name)
		require.NoError(t, err)
		raw, err := hex.DecodeString(text)
		require.NoError(t, err)
		h.deks[id], err = insecurekey.New(raw)
		require.NoError(t, err)
	}
	n := nodeid.Derive("n1")
	h.rows = applier.RowsOf([]applier.Writer{
		{Key: foundStorage, Node: n, First: 0, Last: 7}, {Key: foundRaft, Node: n, First: 2, Last: 8},
	})
	return h
}

// on is the same host on another disk, its next process.
func (h *firstHost) on(fs *crashfs.FS) *firstHost {
	return &firstHost{t: h.t, fs: fs, at: h.at, kek: h.kek, keks: h.keks, deks: h.deks, rows: h.rows, index: h.last(), log: h.log}
}

func (h *firstHost) propose(_ context.Context, entry []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index++
	h.log = append(h.log, entry)
	_, err := h.node.Apply(h.index, entry)
	return err
}

// skip lets entries of others pass.
func (h *firstHost) skip(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index += n
}

// last is the index of the last entry.
func (h *firstHost) last() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index
}

func (h *firstHost) open(opts ...atrest.Option) (*atrest.Node, error) {
	c := atrest.Config{Dir: dir, Name: "n1", KEK: h.keks, Propose: h.propose}
	return atrest.Open(h.t.Context(), c, append(opts, atrest.WithFS(h.fs))...)
}

func (h *firstHost) upgrade(cfg atrest.UpgradeConfig) (*atrest.Upgraded, error) {
	cfg.Dir, cfg.Name, cfg.KEK = dir, "n1", h.keks
	if cfg.Applied == 0 {
		cfg.Applied = h.last()
	}
	return atrest.Upgrade(h.t.Context(), cfg, atrest.WithFS(h.fs))
}

func (h *firstHost) mode() atrest.Option {
	return atrest.WithGeneration1(atrest.Generation1{TakeOver: true, Applied: h.at, Registry: h.rows})
}

func (h *firstHost) start(opts ...atrest.Option) {
	h.t.Helper()
	var err error
	h.node, err = h.open(opts...)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { require.NoError(h.t, h.node.Close()) })
	require.NoError(h.t, h.node.CatchUp(h.t.Context(), h.seen()))
	require.NoError(h.t, h.node.Ready(h.t.Context()))
}

// seen is what a host says that has applied all of its log and has a snapshot.
func (h *firstHost) seen() atrest.View {
	last := h.last()
	return atrest.View{Applied: last, First: last + 1, Snapshot: last, HadKeys: true}
}

// view reads keys.json.
func (h *firstHost) view() *generation1.File {
	h.t.Helper()
	f, err := generation1.Parse(read(h.fs))
	require.NoError(h.t, err)
	return f
}

// elsewhere seals a value as the reference system does.
func (h *firstHost) elsewhere(id key.ID, value, location string) []byte {
	h.t.Helper()
	c, err := envelope.NewCipher(id, h.deks[id])
	require.NoError(h.t, err)
	s, err := c.NewCountedSealer(envelope.Writer{Node16: 9, Epoch: 9}, nil)
	require.NoError(h.t, err)
	env, err := s.SealStorage(nil, []byte(value), []byte(location))
	require.NoError(h.t, err)
	return env
}

// A directory that the reference system wrote goes through open, rotation, restart
// and upgrade, and everything that was sealed on the way opens to the end.
func TestGeneration1Life(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			h := newFirstHost(t, version)
			type sealed struct{ env, value, location []byte }
			var all []sealed
			for _, id := range []key.ID{foundStorage, foundOldStorage} {
				all = append(all, sealed{h.elsewhere(id, "from elsewhere", "a"), []byte("from elsewhere"), []byte("a")})
			}
			check := func() {
				t.Helper()
				for _, s := range all {
					got, err := h.node.Storage().Open(nil, s.env, s.location, true)
					require.NoError(t, err)
					require.Equal(t, s.value, got)
				}
			}
			seal := func(suite envelope.Suite) {
				t.Helper()
				env, ok, err := h.node.Storage().Seal(nil, []byte("value"), []byte("b"))
				require.NoError(t, err)
				require.True(t, ok)
				require.Equal(t, byte(suite), env[0])
				all = append(all, sealed{env, []byte("value"), []byte("b")})
			}

			// Open.
			h.start(h.mode())
			require.NoError(t, h.node.Admit(t.Context()))
			check()
			seal(envelope.AES256GCM)
			s := h.node.State()
			require.Equal(t, applier.Generation1, s.Generation())
			require.True(t, s.StorageCutover().Active)
			require.EqualValues(t, 184201, s.RaftCutover().Index)
			row, _ := s.Writer(foundStorage, nodeid.Derive("n1").Node16())
			require.EqualValues(t, 8, row.Last, "above the row and above the file")
			f := h.view()
			require.Equal(t, 2, f.Version)
			require.EqualValues(t, 8, f.Keys[foundStorage].Epoch)
			require.EqualValues(t, 9, f.Keys[foundOldStorage].Epoch)
			require.EqualValues(t, 9, f.Keys[foundRaft].Epoch)
			require.Equal(t, "2026-04-29T10:00:00Z", f.Keys[foundRaft].Created)
			require.LessOrEqual(t, f.Applied, h.last())

			// Raft payloads are bare envelopes of suite 0x01.
			framed, err := h.node.Raft().Seal(nil, []byte("payload"))
			require.NoError(t, err)
			require.Equal(t, []byte{1, 0}, framed[:2])
			got, err := h.node.Raft().Open(nil, h.last()+1, framed)
			require.NoError(t, err)
			require.Equal(t, "payload", string(got))
			got, err = h.node.Raft().Open(nil, 184201, []byte("clear"))
			require.NoError(t, err)
			require.Equal(t, "clear", string(got))
			framed[1] = 1
			_, err = h.node.Raft().Open(nil, h.last()+1, framed)
			require.Error(t, err, "the flag is not malleable")
			for op := byte(3); op <= 7; op++ {
				require.ErrorIs(t, h.node.CheckPayload([]byte{op, 1}), atrest.ErrReservedPrefix)
				require.True(t, h.node.IsEntry([]byte{op, 1}))
			}
			require.NoError(t, h.node.CheckPayload([]byte{8}))

			// Rotate.
			entry, err := h.node.NewRotation(t.Context(), key.Storage)
			require.NoError(t, err)
			require.Equal(t, []byte{5, 1, 1}, entry[:3])
			require.NoError(t, h.propose(t.Context(), entry))
			require.NoError(t, h.node.Admit(t.Context()))
			seal(envelope.AES256GCM)
			check()
			rotated, _ := h.node.State().Active(key.Storage)
			require.NotEqual(t, foundStorage, rotated.ID)
			require.Len(t, rotated.Container, 60)
			require.Equal(t, rotated.ID, h.view().Storage)
			for _, e := range []func() ([]byte, error){
				func() ([]byte, error) { return h.node.NewStop(foundStorage) },
				func() ([]byte, error) { return h.node.NewWriterGone(5) },
			} {
				_, err = e()
				require.Error(t, err, "generation 1 has no such entry")
			}

			// Restart.
			require.NoError(t, h.node.Close())
			h.start(h.mode())
			require.NoError(t, h.node.Admit(t.Context()))
			check()
			seal(envelope.AES256GCM)
			require.EqualValues(t, 2, h.view().Keys[rotated.ID].Epoch)
			before := h.node.State()
			require.NoError(t, h.node.Close())

			// Upgrade.
			cfg := atrest.UpgradeConfig{DryRun: true}
			u, err := h.upgrade(cfg)
			require.NoError(t, err)
			require.Len(t, u.Keys, 4)
			require.Contains(t, u.String(), "would upgrade")
			h.view() // still there
			cfg.DryRun = false
			u, err = h.upgrade(cfg)
			require.NoError(t, err)
			require.EqualValues(t, 2, u.Epochs[rotated.ID])
			_, err = h.upgrade(cfg)
			require.ErrorIs(t, err, atrest.ErrConfig, "a second time")
			_, err = h.open(h.mode())
			require.ErrorIs(t, err, guard.ErrTampered)
			require.ErrorIs(t, err, generation1.ErrVersion)

			events := make(registrations, 8)
			h.start(atrest.WithObserver(events))
			check()
			after := h.node.State()
			require.Equal(t, applier.Generation2, after.Generation())
			require.GreaterOrEqual(t, u.Index, before.Index(), "a registration may have come since")
			require.GreaterOrEqual(t, after.Index(), u.Index)
			<-events // one for each purpose
			<-events
			seal(envelope.AES256GCM)
			check()
			row, _ = h.node.State().Writer(rotated.ID, nodeid.Derive("n1").Node16())
			require.EqualValues(t, 3, row.Last)
		})
	}
}

// registrations gets an event for each.
type registrations chan atrest.Registered

func (r registrations) Observe(e atrest.Event) {
	if reg, ok := e.(atrest.Registered); ok {
		r <- reg
	}
}

// The other members take the first one's state and keep their epochs.
func TestUpgradeOfAnotherMember(t *testing.T) {
	first := newFirstHost(t, "v2")
	registered := make(registrations, 8)
	first.start(first.mode(), atrest.WithObserver(registered))
	<-registered // for both keys: the other one may have come as far by itself
	<-registered
	require.NoError(t, first.node.Close())
	_, err := first.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	first.start()
	part, err := first.node.Snapshot()
	require.NoError(t, err)

	second := newFirstHost(t, "v2")
	second.start(second.mode())
	require.NoError(t, second.node.Close())
	epoch := second.view().Keys[foundStorage].Epoch
	var cfg atrest.UpgradeConfig
	bad := append([]byte(nil), part...)
	bad[len(bad)-1] ^= 1
	cfg.Adopt = bad
	_, err = second.upgrade(cfg)
	require.ErrorIs(t, err, atrest.ErrSnapshot)
	cfg.Adopt = part
	u, err := second.upgrade(cfg)
	require.NoError(t, err)
	require.Equal(t, first.node.State().Cluster(), u.Cluster)
	require.GreaterOrEqual(t, u.Epochs[foundStorage], epoch)
	second.index = first.last()
	second.start()
	require.Equal(t, first.node.State().Cluster(), second.node.State().Cluster())
}

// Writes that do not come through the log wait for the registration; those that do
// go ahead.
func TestAdmitWaitsForTheRegistration(t *testing.T) {
	h := newFirstHost(t, "v2")
	var err error
	h.node, err = h.open(h.mode())
	require.NoError(t, err)
	defer h.node.Close()
	require.NoError(t, h.node.CatchUp(t.Context(), h.seen()))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, h.node.Admit(ctx), atrest.ErrRetry, "Ready has not come")
	env, _, err := h.node.Storage().Seal(nil, []byte("during apply"), nil)
	require.NoError(t, err)
	require.Equal(t, byte(envelope.AES256GCM), env[0])
	require.NoError(t, h.node.Ready(t.Context()))
	require.NoError(t, h.node.Admit(t.Context()))
}

// Without a suite whose nonces are safe by themselves, a node without epochs does not
// start.
func TestGeneration1RefusesExhaustedEpochs(t *testing.T) {
	h := newFirstHost(t, "v2")
	f := h.view()
	k := f.Keys[foundStorage]
	k.Epoch = math.MaxUint16
	f.Keys[foundStorage] = k
	b, err := f.Append(nil)
	require.NoError(t, err)
	write(h.fs, b)
	_, err = h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrEpochExhausted)
}

// A view that was lost or edited is written again from keys.meta.json.
func TestTheViewIsOnlyAView(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Close())
	for _, spoil := range []func(){
		func() { require.NoError(t, h.fs.Remove(keysJSON)) },
		func() { write(h.fs, []byte("{")) },
	} {
		spoil()
		h.start(h.mode())
		require.Equal(t, foundStorage, h.view().Storage)
		require.NoError(t, h.node.Close())
	}
}
