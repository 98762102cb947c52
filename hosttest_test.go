package atrest_test

import (
	"context"
	"crypto/fips140"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// dir is where each node's keys.json lies, on a disk of its own.
const (
	dir      = "data"
	keysJSON = dir + "/keys.json"
)

// newDisk has an empty directory for a node.
func newDisk() *crashfs.FS {
	f := crashfs.New()
	f.Mkdir(dir)
	return f
}

// world is a cluster of hosts in one process: a log, which has a leader but no
// elections, and members that apply it. It lives in a bubble of synctest, so that
// nothing waits for a clock, and settle knows when nothing moves any more.
type world struct {
	t testing.TB

	mu       sync.Mutex
	log      [][]byte // index i is log[i-1]; as it was proposed, sealed or not
	members  []*member
	pending  []*proposal
	hold     bool // registrations stay on their way
	outcomes map[uint64]map[string]string
	nonces   map[string]string // who used it, by key and nonce
}

// member is a host: a disk, a store, and a node while it runs.
type member struct {
	w    *world
	name string
	keks []*kektest.KEK
	opts []atrest.Option

	fs   *crashfs.FS
	disk disk

	node    *atrest.Node // nil while it is down
	ready   bool
	halted  error
	feeding bool
	seen    []atrest.Event
	apart   bool // gets nothing of the log
	group   string
	backup  []byte                      // what its next start imports
	past    map[uint64]map[string]value // its store after each entry
}

// disk is what the host itself has stored.
type disk struct {
	applied uint64
	store   map[string]value // replaced, never changed
	first   uint64           // of the log
	snap    *hostSnapshot
	memory  bool // the store is lost when the process ends
}

type value struct {
	out    []byte
	sealed bool
}

type hostSnapshot struct {
	applied uint64
	store   map[string]value
	part    []byte
	keyed   bool
}

// proposal is an entry on its way into the log.
type proposal struct {
	from  *member
	data  []byte
	index uint64 // 0 until it is in the log
	done  chan struct{}
}

// inWorld runs a test in a world of its own.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		f(t, w)
	})
}

// bubble is synctest.Test. In FIPS mode Go takes entropy from how long things take,
// which in a bubble they do not, so there randomness comes from elsewhere.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if fips140.Enabled() {
		cryptotest.SetGlobalRandom(t, 1)
	}
	synctest.Test(t, f)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{
		t:        t,
		outcomes: map[uint64]map[string]string{},
		nonces:   map[string]string{},
	}
}

// end ends all that runs.
func (w *world) end() {
	for _, m := range w.members {
		m.stop()
	}
	synctest.Wait()
}

// join adds members that have never run. Each has its own way to the KEK "kms:a".
func (w *world) join(names ...string) []*member {
	for _, name := range names {
		m := &member{w: w, name: name, group: "g", keks: []*kektest.KEK{kektest.New("kms:a")}, past: map[uint64]map[string]value{}}
		m.wipe()
		w.members = append(w.members, m)
	}
	return w.members[len(w.members)-len(names):]
}

// wipe gives a member an empty disk.
func (m *member) wipe() {
	m.fs = newDisk()
	m.disk = disk{store: map[string]value{}, first: 1}
}

// started returns n members that run and know no keys.
func (w *world) started(names ...string) []*member {
	w.t.Helper()
	ms := w.join(names...)
	for _, m := range ms {
		require.NoError(w.t, m.start())
	}
	return ms
}

// bootstrapped returns members with keys and both cutovers.
func (w *world) bootstrapped(names ...string) []*member {
	w.t.Helper()
	ms := w.started(names...)
	w.commit(ms[0], must(ms[0].node.NewBootstrap(w.t.Context(), w.ids())))
	w.commit(ms[0], must(ms[0].node.NewEnableStorage()))
	w.commit(ms[0], must(ms[0].node.NewEnableRaft()))
	return ms
}

// ids are the members of the cluster.
func (w *world) ids() (ids []nodeid.Member) {
	for _, m := range w.members {
		ids = append(ids, nodeid.Member{Name: m.name, ID: nodeid.Derive(m.name)})
	}
	return ids
}

func (m *member) set() *kek.Set {
	keks := make([]kek.KEK, 0, len(m.keks))
	for _, k := range m.keks {
		keks = append(keks, k)
	}
	return must(kek.NewSet(keks[0], keks[1:]...))
}

// Observe implements atrest.Observer.
func (m *member) Observe(e atrest.Event) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.seen = append(m.seen, e)
}

// open starts a process: what the host does before it replays its log.
func (m *member) open(hadKeys bool) error {
	m.fs = m.fs.Restart()
	m.halted, m.ready = nil, false
	if m.disk.memory {
		m.disk.applied, m.disk.store = 0, map[string]value{}
	}
	ctx := m.w.t.Context()
	n, err := m.process()
	if err != nil {
		return err
	}
	v := atrest.View{First: m.disk.first, HadKeys: hadKeys, Entries: m.w.entries}
	if m.backup != nil {
		if err := n.Import(ctx, m.backup); err != nil {
			return errors.Join(err, n.Close())
		}
		m.backup = nil
	}
	if s := m.disk.snap; s != nil {
		if err := n.Restore(ctx, s.part); err != nil {
			return errors.Join(err, n.Close())
		}
		v.Snapshot = s.applied
		if s.applied > m.disk.applied {
			m.disk.applied, m.disk.store = s.applied, s.store
		}
	}
	v.Applied = m.disk.applied
	if err := n.CatchUp(ctx, v); err != nil {
		return errors.Join(err, n.Close())
	}
	m.node = n
	return nil
}

// process takes a member's directory into use.
func (m *member) process() (*atrest.Node, error) {
	opts := append([]atrest.Option{atrest.WithFS(m.fs), atrest.WithObserver(m), atrest.WithGroup(m.group)}, m.opts...)
	return atrest.Open(m.w.t.Context(), atrest.Config{Dir: dir, Name: m.name, KEK: m.set(), Propose: m.propose}, opts...)
}

// hadKeys is what a host can tell from its own data.
func (m *member) hadKeys() bool {
	for _, v := range m.disk.store {
		if v.sealed {
			return true
		}
	}
	if m.disk.snap != nil && m.disk.snap.keyed {
		return true
	}
	for i := m.disk.first; i <= m.disk.applied; i++ {
		if data := m.w.log[i-1]; atrest.IsEntry(data) || strings.HasPrefix(string(data), "\xa7RP") {
			return true
		}
	}
	return false
}

// start starts a member, and lets it replay its log and register.
func (m *member) start() error {
	if err := m.open(m.hadKeys()); err != nil {
		return err
	}
	m.w.settle()
	return m.readied()
}

func (m *member) readied() error {
	if m.halted == nil {
		return m.serve()
	}
	return nil // that it halted is an outcome
}

func (m *member) serve() error {
	if err := m.node.Ready(m.w.t.Context()); err != nil {
		m.stop()
		return err
	}
	m.ready = true
	m.w.settle()
	return nil
}

// entries is the log as View wants it.
func (w *world) entries(_ context.Context, from, to uint64, yield func(uint64, []byte) error) error {
	for i := from; i <= to; i++ {
		if err := yield(i, w.log[i-1]); err != nil {
			return err
		}
	}
	return nil
}

// stop ends a process in an orderly way.
func (m *member) stop() {
	if m.node == nil {
		return
	}
	n := m.node
	m.leave()
	require.NoError(m.w.t, n.Close())
}

// kill ends a process at once; with it goes the machine, if power is lost.
func (m *member) kill(power bool) {
	n, now := m.node, m.fs.Restart()
	if power {
		for _, now = range m.fs.PowerLosses(1, 1) {
			break // nothing survives that is not durable
		}
	}
	m.leave()
	if n != nil {
		require.NoError(m.w.t, n.Close())
	}
	m.fs = now
}

// leave takes a member and what it has on its way out of the cluster.
func (m *member) leave() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	m.node = nil
	m.w.pending = slices.DeleteFunc(m.w.pending, func(p *proposal) bool { return p.from == m })
}

// restart is stop and start.
func (m *member) restart() error {
	m.stop()
	return m.start()
}

// get reads a value, as the host does.
func (m *member) get(k string) (string, error) {
	v, ok := m.disk.store[k]
	if !ok {
		return "", errors.New("no such value")
	}
	ctx, cancel := context.WithCancel(m.w.t.Context())
	cancel() // what is not there at once is waited for
	out, err := m.node.Storage().OpenContext(ctx, nil, v.out, []byte(k), v.sealed)
	return string(out), err
}

// snapshot takes a snapshot and keeps it.
func (m *member) snapshot() error {
	part, err := m.node.Snapshot()
	if err != nil {
		return err
	}
	m.disk.snap = &hostSnapshot{m.disk.applied, m.disk.store, part, m.node.State().Bootstrapped()}
	return nil
}

// install brings another member's snapshot to a running one.
func (m *member) install(from *member) error {
	s := from.disk.snap
	if err := m.node.Restore(m.w.t.Context(), s.part); err != nil {
		return err
	}
	if s.applied > m.disk.applied {
		m.disk.applied, m.disk.store, m.disk.first = s.applied, s.store, s.applied+1
		m.disk.snap = s
	}
	m.w.settle()
	return nil
}

// compact drops the log up to an index.
func (m *member) compact(through uint64) { m.disk.first = through + 1 }

// active is the key that a purpose seals under.
func (m *member) active(p key.Purpose) key.ID {
	k, ok := m.node.State().Active(p)
	require.True(m.w.t, ok, "%s has no active %v key", m.name, p)
	return k.ID
}

// status is what Status says about a key.
func (m *member) status(id key.ID) atrest.KeyStatus {
	for _, k := range m.node.Status().Keys {
		if k.ID == id {
			return k
		}
	}
	m.w.t.Fatalf("%s has no key %s", m.name, id)
	return atrest.KeyStatus{}
}

// must returns a result that cannot fail here.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// contextOver returns a context that ends as soon as something waits for it.
func contextOver(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), time.Nanosecond)
}
