package atrest

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// Node is the encryption state of one process: the replicated key state, the
// file that makes it durable, and the unwrapped keys. All methods may be called
// from several goroutines; the order that they need is that of docs/HOSTING.md.
type Node struct {
	opts    options
	id      nodeid.ID
	name    string
	load    applier.LoadID // names this process's use of its keys
	keks    *kek.Set
	propose func(ctx context.Context, entry []byte) error

	file *sidecar.File
	keys *keystore.Store
	view string    // path of keys.json in generation-1 mode
	lock io.Closer // of keys.json in generation-1 mode, nil if it is not held

	// state is the key state, as it is in the file. It is replaced under mu; the
	// paths of values and payloads read it without.
	state  atomic.Pointer[applier.State]
	values atomic.Bool              // the storage cutover is in force
	raft   atomic.Pointer[payloads] // nil until there is a cluster id

	mu       sync.Mutex // of every change of keys
	phase    phase
	fresh    bool                // keys.json was made by this start
	taking   bool                // over, and keys.meta.json is a draft
	imported bool                // so was the cluster
	epochs   map[key.ID]uint16   // taken by this load, for counted nonces
	counted  map[key.ID]bool     // the epoch is registered: our entry was applied
	proposed map[key.ID]uint16   // the last epoch whose registration this load made
	spent    map[key.ID]bool     // the epoch has served a sealer
	loaded   map[key.ID]bool     // unwrapped and in keys
	missing  map[key.ID]*missing // keys of the state that are not unwrapped
	text     []byte              // of the last state written, for its memory
	prepared prepared            // unwrapped before their entry committed
	changed  chan struct{}       // closed and replaced when a waiter may go on

	ctx      context.Context // ends at Close
	cancel   context.CancelFunc
	calls    chan struct{} // bounds the calls to KEKs in the background
	tasks    tasks
	closing  sync.Once
	closeErr error
}

// phase is how far a start has come.
type phase uint8

const (
	opened   phase = iota // Restore, Import and CatchUp are possible
	caughtUp              // entries are applied
	ready                 // registration runs
)

// ID returns the node's id.
func (n *Node) ID() nodeid.ID { return n.id }

// State returns the key state. It never changes; the node gets another one.
func (n *Node) State() *applier.State { return n.state.Load() }

// publish makes a state that is durable the one that everybody sees. n.mu is
// held.
func (n *Node) publish(s *applier.State) {
	if n.raft.Load() == nil && s.Bootstrapped() {
		p := n.payloads(s)
		n.raft.Store(&p)
	}
	n.state.Store(s)
	if s.StorageCutover().Active {
		n.values.Store(true)
	}
}

// payloads is what seals and opens Raft payloads.
type payloads interface {
	Seal(dst, payload []byte) ([]byte, error)
	Open(dst, sealed []byte) ([]byte, error)
}

func (n *Node) payloads(s *applier.State) payloads {
	if n.first() {
		return n.keys.RaftGeneration1()
	}
	return n.keys.Raft(envelope.RaftGroup{Cluster: s.Cluster(), Label: n.opts.group})
}

// wake lets all waiters look again. n.mu is held.
func (n *Node) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// change returns a channel that is closed at the next change of keys.
func (n *Node) change() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// wait returns when ch is closed, or the error of what ended first.
func (n *Node) wait(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return retry(ctx.Err())
	case <-n.ctx.Done():
		return ErrClosed
	}
}

// start runs f in the background until the node closes.
func (n *Node) start(f func(ctx context.Context)) {
	n.tasks.start(func() { f(n.ctx) })
}

// Close ends what runs in the background, lets waiters go with [ErrClosed] and
// releases the directory. A second Close does nothing.
func (n *Node) Close() error {
	n.closing.Do(func() {
		n.cancel()
		n.tasks.end()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.file != nil {
			n.closeErr = n.file.Close()
		}
		n.closeErr = errors.CombineErrors(n.closeErr, n.unlockView())
	})
	return n.closeErr
}

// tasks are the goroutines of a node. Once they have ended, no other starts.
type tasks struct {
	mu    sync.Mutex
	ended bool
	wg    sync.WaitGroup
}

func (t *tasks) start(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.wg.Go(f)
	}
}

// end waits for what runs.
func (t *tasks) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.wg.Wait()
}

// pause returns nil after d, or the error of what ended first.
func (n *Node) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *Node) closed() bool { return n.ctx.Err() != nil }
