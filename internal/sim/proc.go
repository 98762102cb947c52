package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// phase is how far a process has come.
type phase uint8

const (
	starting phase = iota
	serving
	ended // by itself: see proc.err
)

// proc is one process of a member: a host around an [atrest.Node]. One goroutine
// starts it and applies entries; the script's goroutine does the rest while that
// one waits.
type proc struct {
	m      *member
	c      *Cluster
	number int
	disk   *disk
	fs     *watched
	node   *atrest.Node
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
	done   chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex // of what follows, and of disk.store and disk.history
	phase  phase
	err    error
	queue  []*entry
	fed    uint64 // last index that was given to queue
	outbox []*request

	dirty    bool      // the oracle has not looked yet
	pending  *snapshot // one that is under way
	hold     bool      // for one more step
	keks     *kek.Set
	opts     []atrest.Option
	first    uint64            // of the log, when it started
	log      []*entry          // that it found
	opened   map[key.ID]uint16 // the epochs in keys.json before Open
	recorded int64             // writes of keys.json that the oracle has seen
}

// request is an entry that a node wants proposed.
type request struct {
	entry []byte
	done  chan error
}

// answer tells the node what became of it; the first word counts.
func (r *request) answer(err error) {
	select {
	case r.done <- err:
	default:
	}
}

func (p *proc) String() string { return p.m.String() }

var (
	errNoLeader = errors.New("sim: no leader")
	errLost     = errors.New("sim: the proposal is lost")
	errDead     = errors.New("sim: the process is dead")
)

// done is a context that has ended.
var done = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// has reports how far the process is, and the error that it ended with.
func (p *proc) has() (phase, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.phase, p.err
}

// open returns the node, nil as long as there is none.
func (p *proc) open() *atrest.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.node
}

// idle reports whether everything is applied that was fed.
func (p *proc) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) == 0 && p.disk.store.applied >= p.fed
}

// store returns what the state machine holds.
func (p *proc) store() store {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.disk.store
}

// durable is up to where a power loss leaves the store.
func (p *proc) durable() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.disk.history[0].applied
}

// config is the host's configuration of the node.
func (p *proc) config() atrest.Config {
	return atrest.Config{Dir: home, Name: p.m.name, KEK: p.keks, Propose: p.propose}
}

// propose is the node's way into the log.
func (p *proc) propose(ctx context.Context, entry []byte) error {
	r := &request{entry: append([]byte(nil), entry...), done: make(chan error, 1)}
	p.mu.Lock()
	p.outbox = append(p.outbox, r)
	p.mu.Unlock()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run is the process.
func (p *proc) run() {
	defer close(p.done)
	defer func() {
		if r := recover(); r != nil {
			p.c.violate("panic", "%s: %v\n%s", p, r, debug.Stack())
		}
	}()
	err := p.start()
	for err == nil {
		select {
		case <-p.wake:
			err = p.drain()
		case <-p.ctx.Done():
			err = p.ctx.Err()
		}
	}
	p.mu.Lock()
	p.phase, p.err, p.dirty = ended, err, true
	p.mu.Unlock()
}

// start is what a host does at start.
func (p *proc) start() error {
	node, err := atrest.Open(p.ctx, p.config(), p.opts...)
	if err != nil {
		return fmt.Errorf("node.Open: %w", err)
	}
	p.mu.Lock()
	p.node = node
	p.mu.Unlock()
	p.c.oracle.checkEpochs(p)
	view := atrest.View{First: p.first, Entries: p.entries}
	if s, ok := p.disk.newest(); ok {
		if err := node.Restore(p.ctx, s.part); err != nil {
			return fmt.Errorf("node.Restore: %w", err)
		}
		view.Snapshot, view.HadKeys = s.store.applied, s.keyed
		p.mu.Lock()
		if p.disk.store.applied < s.store.applied {
			p.disk.setStore(s.store)
		}
		p.mu.Unlock()
	}
	view.Applied = p.disk.store.applied
	view.HadKeys = view.HadKeys || p.disk.store.keys
	if err := node.CatchUp(p.ctx, view); err != nil {
		return fmt.Errorf("node.CatchUp: %w", err)
	}
	if err := p.drain(); err != nil {
		return err
	}
	if err := node.Ready(p.ctx); err != nil {
		return fmt.Errorf("node.Ready: %w", err)
	}
	p.mu.Lock()
	p.phase, p.dirty = serving, true
	p.mu.Unlock()
	return nil
}

// entries reads the log for CatchUp.
func (p *proc) entries(_ context.Context, from, to uint64, yield func(uint64, []byte) error) error {
	p.c.count(&p.c.stats.CaughtUp)
	for _, e := range p.log {
		if e.data == nil || e.index < from || e.index > to {
			continue
		}
		if err := yield(e.index, e.data); err != nil {
			return err
		}
	}
	return nil
}

// feed lets the process apply its log up to an index.
func (p *proc) feed(to uint64) {
	p.mu.Lock()
	p.queue = append(p.queue, p.c.raft.between(p.fed+1, to)...)
	p.fed = max(p.fed, to)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// drain applies what was fed.
func (p *proc) drain() error {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.mu.Unlock()
			return nil
		}
		e := p.queue[0]
		p.queue = p.queue[1:]
		skip := e.index <= p.disk.store.applied
		p.dirty = true
		p.mu.Unlock()
		if skip {
			continue
		}
		if err := p.apply(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.index, err)
		}
	}
}

// apply is the host's state machine.
func (p *proc) apply(e *entry) error {
	st, err := p.effect(e)
	if err != nil {
		return err
	}
	if p.fs.dead.Load() {
		return errDead
	}
	st.applied = e.index
	st.keys = p.node.State().Bootstrapped()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk.store = st
	if p.m.host == NoSync && e.index%4 != 0 {
		p.disk.history = append(p.disk.history, st)
	} else {
		p.disk.history = append(p.disk.history[:0:0], st)
	}
	if e.prop.by == p {
		if e.fate == rejected {
			e.prop.resolve(atrest.ErrRejected)
		} else {
			e.prop.resolve(nil)
		}
	}
	return nil
}

// effect returns the store after an entry.
func (p *proc) effect(e *entry) (store, error) {
	st := p.disk.store
	if e.data == nil {
		return st, nil
	}
	payload, err := p.node.Raft().Open(nil, e.index, e.data)
	switch {
	case errors.Is(err, atrest.ErrRejected):
		if e.fate != rejected {
			p.c.violate("a payload is rejected that should not be", "%s: entry %d: %v", p, e.index, err)
		}
		return st, nil
	case err != nil:
		return st, fmt.Errorf("node.Raft().Open: %w", err)
	case e.fate == rejected:
		p.c.violate("a payload is not rejected that should be", "%s: entry %d", p, e.index)
	case !bytes.Equal(payload, e.plain):
		p.c.violate("another payload", "%s: entry %d: %x, want %x", p, e.index, payload, e.plain)
	}
	if p.node.IsEntry(payload) {
		return st, p.change(e, payload)
	}
	if e.fate != write {
		p.c.violate("an entry is handed to the host", "%s: entry %d", p, e.index)
		return st, nil
	}
	k, _, err := parseValue(payload)
	if err != nil {
		return st, err
	}
	st.values[k], err = p.seal(k, payload)
	return st, err
}

// change applies an entry of keys.
func (p *proc) change(e *entry, payload []byte) error {
	before, writes := p.node.State(), p.fs.states.Load()
	outcome, err := p.node.Apply(e.index, payload)
	if err != nil {
		return fmt.Errorf("node.Apply: %w", err)
	}
	after := p.node.State()
	if e.index <= before.Index() {
		if outcome.Kind != applier.NoOp || !errors.Is(outcome.Why, applier.ErrReplayed) {
			p.c.violate("a replayed entry is not ignored", "%s: entry %d is %v (%v)", p, e.index, outcome.Kind, outcome.Why)
		}
	} else if outcome.Kind != e.outcome.Kind || outcome.Op != e.outcome.Op {
		p.c.violate("replicas disagree", "%s: entry %d is %v %v (%v), want %v %v", p, e.index, outcome.Op, outcome.Kind, outcome.Why, e.outcome.Op, e.outcome.Kind)
	}
	if outcome.Kind != applier.Applied && (after != before || p.fs.states.Load() != writes) {
		p.c.violate("an entry without effect leaves a trace", "%s: entry %d (%v) is %v (%v)", p, e.index, outcome.Op, outcome.Kind, outcome.Why)
	}
	if outcome.Kind == applier.Applied && p.fs.states.Load() != writes+1 {
		p.c.violate("not one durable write", "%s: entry %d (%v): %d writes", p, e.index, outcome.Op, p.fs.states.Load()-writes)
	}
	return nil
}

// seal seals a value for this process's store. It may wait for a key.
func (p *proc) seal(k int, v []byte) (stored, error) {
	s := p.node.State()
	out, sealed, err := p.node.Storage().Seal(nil, v, location(k))
	if err != nil {
		return stored{}, fmt.Errorf("node.Storage().Seal: %w", err)
	}
	if p.node.State() != s {
		s = p.node.State() // it waited, and a snapshot was restored meanwhile
	}
	if sealed {
		p.c.oracle.sealed(p, key.Storage, out, s)
	} else if s.StorageCutover().Active {
		p.c.violate("a value in clear above the storage cutover", "%s: key %d", p, k)
	}
	return stored{data: out, sealed: sealed}, nil
}

// isDestroyed reports whether a key is gone that was needed.
func isDestroyed(err error) bool { return errors.Is(err, keystore.ErrDestroyed) }
