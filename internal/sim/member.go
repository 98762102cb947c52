package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2" //nolint:depguard // what a power loss leaves; the same seed draws the same
	"testing/synctest"
	"time"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/nodeid"
)

// member is a member of the cluster with its disk, or a clone of one.
type member struct {
	c     *Cluster
	slot  int // of its letter
	name  string
	host  Host
	role  Role
	clone bool

	disk  *disk
	saves []*disk // the newest first
	proc  *proc   // nil while it is down

	kms     [2]*kektest.KEK
	set     int    // which of them are configured at the next start
	fault   *fault // to be armed at the next start
	expect  error  // which its next start must be refused with
	release func()
	outage  bool
	well    time.Time // from when on no outage explains a missing key

	slow    bool
	transit []*proposal
}

func (m *member) String() string { return lettersOf(m.slot) }

func (m *member) id() nodeid.ID { return nodeid.Derive(m.name) }

func (c *Cluster) newMember(slot int, host Host, role Role) *member {
	return &member{
		c: c, slot: slot, name: "node-" + lettersOf(slot%MaxMembers), host: host, role: role,
		disk:    newDisk(),
		kms:     [2]*kektest.KEK{kektest.New("kms:a"), kektest.New("kms:b")},
		release: func() {},
	}
}

// up reports whether a process runs.
func (m *member) up() bool { return m.proc != nil }

// serves reports whether a process has started and has nothing to do.
func (m *member) serves() bool { return m.proc != nil && m.proc.phase == serving && m.proc.idle() }

// voter reports whether it counts for majorities.
func (m *member) voter() bool { return m.role == Voter && !m.clone }

// member reports whether it belongs to the cluster.
func (m *member) member() bool { return m.role != Absent && !m.clone }

func (p *proc) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) == 0 && p.disk.store.applied >= p.fed
}

// keks is the set that a process is configured with.
func (m *member) keks() *kek.Set {
	first, more := m.kms[0], []kek.KEK{}
	switch m.set {
	case 1:
		more = append(more, m.kms[1])
	case 2:
		first, more = m.kms[1], append(more, m.kms[0])
	}
	set, err := kek.NewSet(first, more...)
	if err != nil {
		panic(err)
	}
	return set
}

func (c *Cluster) config(p *proc) atrest.Config {
	return atrest.Config{Dir: home, Name: p.m.name, KEK: p.keks, Propose: p.propose}
}

func (c *Cluster) options(p *proc) []atrest.Option {
	return []atrest.Option{atrest.WithFS(p.fs), atrest.WithGroup("simulation"), atrest.WithMembers(c.names())}
}

// names are the members as a host's configuration has them.
func (c *Cluster) names() (all []nodeid.Member) {
	for _, m := range c.members {
		if m.member() {
			all = append(all, nodeid.Member{Name: m.name, ID: m.id()})
		}
	}
	return all
}

// start starts a process.
func (c *Cluster) start(m *member) {
	if m.up() || m.role == Absent {
		return
	}
	fs, err := watch(m.disk.fs)
	if err != nil {
		c.violate("a disk does not read", "%s: %v", m, err)
		return
	}
	c.processes++
	p := &proc{m: m, c: c, number: c.processes, disk: m.disk, fs: fs, wake: make(chan struct{}, 1), done: make(chan struct{}), dirty: true}
	if b := fs.content(); b != nil {
		if was, err := parsePrivate(b); err == nil {
			p.opened = &was
			for id, e := range m.disk.epochs {
				if was.epochs[id] < e {
					c.violate("an epoch was lowered", "%s: key %s: %d after %d", m, id, was.epochs[id], e)
				}
			}
		}
	}
	p.keks = m.keks()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if f := m.fault; f != nil {
		m.fault = nil
		fs.arm(*f)
	}
	p.queue, p.fed = c.raft.between(m.disk.first, m.disk.last), m.disk.last
	m.proc = p
	c.stats.Starts++
	go p.run()
	c.wait()
}

// end ends a process as its own end or a power loss would: whatever it does from now
// on reaches no disk.
func (c *Cluster) end(m *member, power bool) {
	p := m.proc
	if p == nil {
		return
	}
	if power {
		c.stats.PowerLosses++
	} else {
		c.stats.Kills++
	}
	p.mu.Lock()
	m.disk.end(m.host, power, c.rand())
	p.disk = m.disk.copy() // what it still does to its store is lost
	p.mu.Unlock()
	c.bury(m)
}

// bury takes a process away.
func (c *Cluster) bury(m *member) {
	p := m.proc
	p.fs.dead.Store(true)
	p.cancel()
	if p.node != nil {
		p.node.Close() //nolint:errcheck // Its disk may be broken.
	}
	<-p.done
	if p.node != nil {
		p.node.Close() //nolint:errcheck // It may have come after the first.
	}
	m.proc = nil
	if c.leader == m {
		c.leader = nil
	}
}

// stop ends a process in good order.
func (c *Cluster) stop(m *member) {
	p := m.proc
	if p == nil {
		return
	}
	if p.node != nil {
		err := p.node.Close()
		if err != nil && !p.fs.Fired() {
			c.violate("Close failed", "%s: %v", m, err)
		}
	}
	m.disk.sync()
	m.disk.end(m.host, false, c.rand())
	c.stats.Stops++
	c.bury(m)
}

// reap looks for processes that ended by themselves, and asks why.
func (c *Cluster) reap() {
	for _, m := range c.all() {
		p := m.proc
		if p == nil {
			continue
		}
		p.mu.Lock()
		ph, err := p.phase, p.err
		p.mu.Unlock()
		switch {
		case p.fs.died():
			c.stats.Crashes++
			c.end(m, p.fs.power)
		case ph == ended:
			c.end(m, false)
			c.halted(m, p, err)
		}
	}
}

// halted decides whether a process had a reason to stop.
func (c *Cluster) halted(m *member, p *proc, err error) {
	c.stats.Halts++
	c.note("%s stops: %v", m, err)
	defer func() { m.expect = nil }()
	switch {
	case m.expect != nil && errors.Is(err, m.expect):
		c.stats.Refusals++
	case p.fs.Fired():
	case p.node == nil && m.kmsExcuse() && errors.Is(err, atrest.ErrRetry):
	case m.disk.stale && (errors.Is(err, guard.ErrBehindLog) || errors.Is(err, guard.ErrKeysMissing) || isDestroyed(err)):
		c.stats.Refusals++
		m.disk.forget() // as the text of the refusal says: a snapshot will come
	default:
		c.violate("a node stops for no reason", "%s: %v", m, err)
	}
}

// kmsExcuse reports whether an outage of the key service explains that a key is not
// loaded.
func (m *member) kmsExcuse() bool { return m.outage || time.Now().Before(m.well) }

// wait lets everything run until it waits for a time or for the script.
func (c *Cluster) wait() {
	for range 100 {
		synctest.Wait()
		c.reap()
		if !c.collect() {
			return
		}
	}
	c.violate("no rest", "nodes propose on and on")
}

// collect takes over what nodes want proposed, and reports whether there was
// anything.
func (c *Cluster) collect() bool {
	any := false
	for _, m := range c.all() {
		p := m.proc
		if p == nil {
			continue
		}
		p.mu.Lock()
		out := p.outbox
		p.outbox = nil
		p.mu.Unlock()
		for _, r := range out {
			any = true
			if err := c.submit(m, r.entry, r.answer); err != nil {
				r.answer(err)
			}
		}
	}
	return any
}

// rand returns a source of its own for this step.
func (c *Cluster) rand() *rand.Rand {
	c.draws++
	return rand.New(rand.NewPCG(c.seed, c.draws)) //nolint:gosec // The same seed draws the same.
}

func (c *Cluster) note(format string, args ...any) {
	if c.opts.Trace != nil {
		fmt.Fprintf(c.opts.Trace, "\t"+format+"\n", args...)
	}
}
