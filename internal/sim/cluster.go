package sim

import (
	"bytes"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/atrestdb/atrest/key"
)

// Options are how a script is run.
type Options struct {
	// Pinned says that counted nonces start at a pinned number.
	Pinned bool
	// Trace gets each step and what becomes of it, if it is not nil.
	Trace io.Writer
	// Ignore has the rules whose violations are not reported. With them a test of
	// the oracle sees whether others notice too.
	Ignore []string
}

// Cluster is a script that runs.
type Cluster struct {
	opts    Options
	seed    uint64
	draws   uint64
	raft    raft
	oracle  *oracle
	stats   Stats
	members []*member
	clones  []*member // nil where there is none
	leader  *member   // nil: none
	written uint64    // number of the last value

	processes int
	backup    *backup

	mu        sync.Mutex
	violation *ViolationError
	line      int
	step      string
}

// backup is a copy of all disks.
type backup struct {
	last  uint64
	disks []*disk
	roles []Role
}

// Run runs a script. The error is a *[ViolationError]. It must be called in a bubble of
// testing/synctest, and what is random in it is as random as package crypto/rand.
func Run(s Script, o Options) (Stats, error) {
	c := &Cluster{opts: o, seed: s.Seed, clones: make([]*member, MaxMembers)}
	c.oracle = newOracle(c)
	c.run(s)
	for _, m := range c.all() {
		if m.up() {
			c.bury(m)
		}
		m.letGo()
	}
	synctest.Wait()
	c.stats.Scenarios = 1
	if c.violation != nil {
		return c.stats, c.violation
	}
	return c.stats, nil
}

func (c *Cluster) run(s Script) {
	defer func() {
		if r := recover(); r != nil {
			c.violate("panic", "%v\n%s", r, debug.Stack())
		}
	}()
	for i, m := range s.Members {
		c.members = append(c.members, c.newMember(i, m.Host, m.Role))
	}
	for _, m := range c.members {
		c.start(m)
	}
	for i, st := range s.Steps {
		c.at(i+1, st.String())
		if c.opts.Trace != nil {
			fmt.Fprintf(c.opts.Trace, "%d: %s\n", c.line, c.step)
		}
		steps[st.Op](c, st.Args)
		c.wait()
		c.finishSnapshots()
		c.check()
		c.stats.Steps++
		if c.failed() {
			return
		}
	}
	c.at(len(s.Steps)+1, "healing at the end")
	c.heal()
}

// violate notes what must not happen; the first one counts.
func (c *Cluster) violate(rule, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.violation == nil && !slices.Contains(c.opts.Ignore, rule) {
		c.violation = &ViolationError{Rule: rule, Detail: fmt.Sprintf(format, args...), Line: c.line, Step: c.step}
	}
}

// at says where the script is.
func (c *Cluster) at(line int, step string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line, c.step = line, step
}

// count adds one to a count, from any goroutine.
func (c *Cluster) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

func (c *Cluster) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.violation != nil
}

// all are the members and clones, down or up.
func (c *Cluster) all() []*member {
	all := slices.Clone(c.members)
	for _, m := range c.clones {
		if m != nil {
			all = append(all, m)
		}
	}
	return all
}

// who returns the member of an argument, nil if there is none.
func (c *Cluster) who(i int) *member {
	switch {
	case i < len(c.members):
		return c.members[i]
	case i >= MaxMembers:
		return c.clones[i-MaxMembers]
	}
	return nil
}

// each returns the members of an argument.
func (c *Cluster) each(i int) []*member {
	if i == All {
		return c.all()
	}
	if m := c.who(i); m != nil {
		return []*member{m}
	}
	return nil
}

// check lets the oracle look at what has changed.
func (c *Cluster) check() {
	for _, m := range c.all() {
		p := m.proc
		if p == nil {
			continue
		}
		p.mu.Lock()
		look, st := p.dirty && p.phase == serving, p.disk.store
		p.dirty = p.dirty && !look
		p.mu.Unlock()
		if !look {
			continue
		}
		c.oracle.checkState(p, p.node.State(), st.applied)
		c.oracle.checkValues(p, st)
		c.oracle.recordEpochs(p)
		m.disk.staleKeys = false
	}
}

// submit sends an entry or a command down a member's proposal path. The answer
// comes later.
func (c *Cluster) submit(m *member, payload []byte, answer func(error)) error {
	s := m.proc.node.State()
	data, err := m.proc.node.Raft().Seal(nil, payload)
	if err != nil {
		if !m.kmsExcuse() {
			c.violate("a payload is not sealed", "%s: %v", m, err)
		}
		return err
	}
	switch sealed := isFrame(data); {
	case sealed:
		c.oracle.sealed(m.proc, key.Raft, data[len(frameMagic):], s)
	case s.RaftCutover().Active:
		c.violate("a payload in clear above the Raft cutover", "%s", m)
	case !bytes.Equal(data, payload):
		c.violate("a payload is changed", "%s", m)
	}
	p := &proposal{plain: payload, data: data, answer: answer, by: m.proc}
	if m.slow {
		m.transit = append(m.transit, p)
		return nil
	}
	return c.arrive(p)
}

// arrive brings a proposal to the leader.
func (c *Cluster) arrive(p *proposal) error {
	if c.leader == nil {
		p.resolve(errNoLeader)
		return errNoLeader
	}
	c.raft.propose(p)
	return nil
}

// quorum returns the voters that have, or can get from the leader's log, all that is
// committed; nil if they are no majority.
func (c *Cluster) quorum() []*member {
	var ok []*member
	voters := 0
	for _, m := range c.members {
		if !m.voter() {
			continue
		}
		voters++
		if m.up() && m.disk.last+1 >= c.leader.disk.first {
			ok = append(ok, m)
		}
	}
	if 2*len(ok) <= voters {
		return nil
	}
	return ok
}

// commit makes proposals entries, on a majority of logs; 0 is all of them.
func (c *Cluster) commit(n int) {
	if c.leader == nil {
		return
	}
	q := c.quorum()
	if q == nil {
		return
	}
	if n == 0 {
		n = len(c.raft.tail)
	}
	for ; n > 0 && len(c.raft.tail) > 0; n-- {
		e := c.raft.next()
		c.oracle.judge(e)
		c.raft.append(e)
		c.stats.Entries++
	}
	voters := 0
	for _, m := range c.members {
		if m.voter() {
			voters++
		}
	}
	c.receive(c.leader)
	for i, got := 0, 1; got <= voters/2 && i < len(q); i++ {
		if q[i] != c.leader {
			c.receive(q[i])
			got++
		}
	}
	c.deliver(c.leader, 0)
}

// receive brings a member's log to the end, without applying it.
func (c *Cluster) receive(m *member) { m.disk.last = c.raft.last() }

// deliver brings committed entries to a member and lets it apply them; 0 is all.
func (c *Cluster) deliver(m *member, n int) {
	if !m.up() || c.leader == nil || c.leader.disk.first > m.disk.last+1 {
		return
	}
	to := c.raft.last()
	if n > 0 {
		to = min(to, max(m.proc.fed, m.disk.first-1)+uint64(n))
	}
	m.disk.last = max(m.disk.last, to)
	m.proc.feed(to)
	c.wait()
}

// elect makes a member the leader.
func (c *Cluster) elect(m *member, survive int) {
	if m == nil || !m.voter() || !m.serves() || m.disk.last != c.raft.last() {
		return
	}
	up, voters := 0, 0
	for _, v := range c.members {
		if v.voter() {
			voters++
			if v.up() {
				up++
			}
		}
	}
	if 2*up <= voters {
		return
	}
	if c.leader != nil && c.leader != m && len(c.raft.tail) > 0 {
		c.stats.InFlight++
	}
	c.leader = m
	c.note("%s leads", m)
	c.stats.Elections++
	for _, p := range c.raft.elect(survive) {
		c.stats.Lost++
		p.resolve(errLost)
	}
}

// settle is a quiet minute: messages arrive, entries commit and are applied, and
// those that are too far behind get a snapshot.
func (c *Cluster) settle() {
	for range 12 {
		if c.leader == nil {
			for _, m := range c.members {
				c.elect(m, len(c.raft.tail))
				if c.leader != nil {
					break
				}
			}
		}
		before := c.raft.last()
		for _, m := range c.all() {
			c.arriveAll(m)
		}
		c.commit(0)
		for _, m := range c.all() {
			c.bring(m)
		}
		c.wait()
		if c.failed() {
			return
		}
		if c.raft.last() == before && len(c.raft.tail) == 0 && c.calm() {
			return
		}
		c.pass(time.Second)
	}
}

// calm reports whether nobody waits for anything.
func (c *Cluster) calm() bool {
	return !slices.ContainsFunc(c.all(), func(m *member) bool { return m.up() && (!m.serves() || m.disk.last < c.raft.last()) })
}

// bring gives a member all that is committed, by log or by snapshot.
func (c *Cluster) bring(m *member) {
	if !m.up() || c.leader == nil {
		return
	}
	if c.leader.disk.first > m.disk.last+1 {
		c.install(m, c.leader, false)
	}
	c.deliver(m, 0)
}

// pass lets time pass.
func (c *Cluster) pass(d time.Duration) {
	<-time.After(d)
	c.wait()
}
