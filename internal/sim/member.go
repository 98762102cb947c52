package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2" //nolint:depguard // what a power loss leaves; the same seed draws the same
	"syscall"
	"testing/synctest"
	"time"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
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
func (m *member) serves() bool {
	if m.proc == nil {
		return false
	}
	ph, _ := m.proc.has()
	return ph == serving && m.proc.idle()
}

// voter reports whether it counts for majorities.
func (m *member) voter() bool { return m.role == Voter && !m.clone }

// member reports whether it belongs to the cluster.
func (m *member) member() bool { return m.role != Absent && !m.clone }

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
		if p.opened, err = epochsOf(b); err != nil {
			c.violate("keys.json does not parse", "%s: %v", m, err)
		}
		for id, e := range m.disk.epochs {
			if p.opened[id] < e {
				c.violate("an epoch was lowered", "%s: key %s: %d after %d", m, id, p.opened[id], e)
			}
		}
	}
	p.keks = m.keks()
	p.opts = []atrest.Option{atrest.WithFS(fs), atrest.WithGroup("simulation"), atrest.WithMembers(c.names())}
	p.first, p.log = m.disk.first, c.raft.between(m.disk.first, m.disk.last)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if f := m.fault; f != nil {
		m.fault = nil
		fs.arm(*f)
	}
	p.queue, p.fed = p.log, m.disk.last
	m.proc = p
	c.stats.Starts++
	c.note("%s starts as process %d", m, p.number)
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
	c.note("%s ends, power loss %t", m, power)
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
	if n := p.open(); n != nil {
		n.Close() //nolint:errcheck // Its disk may be broken.
	}
	<-p.done
	if n := p.open(); n != nil {
		n.Close() //nolint:errcheck // It may have come after the first.
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
	if n := p.open(); n != nil {
		if err := n.Close(); err != nil && !p.fs.Fired() {
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
		ph, err := p.has()
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
		c.stats.KeysMissing++
	case p.fs.Fired() && faulty(err):
	case p.open() == nil && m.kmsExcuse() && errors.Is(err, atrest.ErrRetry):
	case m.disk.staleKeys && errors.Is(err, guard.ErrBehindLog):
		c.stats.BehindLog++
		m.disk.forget() // as the text of the refusal says: a snapshot will come
	case m.disk.staleKeys && errors.Is(err, guard.ErrKeysMissing):
		c.stats.KeysMissing++
		m.disk.forget()
	case m.disk.staleStore && isDestroyed(err):
		c.stats.Refusals++
		m.disk.forget()
	default:
		c.violate("a node stops for no reason", "%s: %v", m, err)
	}
}

// faulty reports whether an error is that of a disk.
func faulty(err error) bool {
	for _, e := range []error{syscall.EIO, syscall.ENOSPC, crashfs.ErrCrashed, sidecar.ErrPoisoned} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
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
	took := false
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
			took = true
			if err := c.submit(m, r.entry, r.answer); err != nil {
				r.answer(err)
			}
		}
	}
	return took
}

// rand returns a source of its own for this step.
func (c *Cluster) rand() *rand.Rand {
	c.draws++
	return rand.New(rand.NewPCG(c.seed, c.draws)) //nolint:gosec // The same seed draws the same.
}

// note adds to the trace.
func (c *Cluster) note(format string, args ...any) {
	if c.opts.Trace != nil {
		fmt.Fprintf(c.opts.Trace, "\t"+format+"\n", args...)
	}
}
