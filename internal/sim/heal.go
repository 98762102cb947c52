package sim

import (
	"crypto/fips140"
	"math"
	"time"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// heal ends all faults and expects everything to come right.
func (c *Cluster) heal() {
	for _, m := range c.all() {
		m.kmsUp()
		m.fault, m.slow = nil, false
		if m.up() && !m.proc.fs.Fired() {
			m.proc.fs.ends = false
			m.proc.fs.FailAt(0, nil, 0)
		}
		if m.up() && m.proc.fs.Fired() {
			c.end(m, false)
		}
	}
	for range 3 {
		for _, m := range c.all() {
			c.start(m)
		}
		c.settle()
		c.pass(time.Minute)
	}
	c.settle()
	for _, m := range c.all() {
		if m.up() {
			m.proc.mu.Lock()
			m.proc.dirty = true
			m.proc.mu.Unlock()
		}
	}
	c.check()
	if c.failed() {
		return
	}
	if c.leader == nil {
		c.violate("no leader", "although everybody is well")
		return
	}
	for _, m := range c.all() {
		if m.role != Absent {
			c.checkWell(m)
		}
	}
}

// checkWell expects of a member what it has when nothing is wrong.
func (c *Cluster) checkWell(m *member) {
	switch {
	case !m.up():
		c.violate("a node does not recover", "%s is down", m)
		return
	case !m.serves() || m.proc.store().applied != c.raft.last():
		c.violate("a node does not recover", "%s: serves %t, applied %d of %d", m, m.serves(), m.proc.store().applied, c.raft.last())
		return
	}
	n := m.proc.node
	if !n.State().Equal(c.oracle.before().state) {
		c.violate("a node does not recover", "%s: its key state is that of %d", m, n.State().Index())
	}
	c.checkRegistered(m)
}

// checkRegistered expects that a node that is well seals with counted nonces, and
// that all its keys are loaded.
func (c *Cluster) checkRegistered(m *member) {
	st := m.proc.node.Status()
	if !st.Serving {
		c.violate("a node does not recover", "%s: %v", m, st.Waiting)
	}
	s := m.proc.node.State()
	for _, k := range st.Keys {
		if k.State != key.Active || s.Gone(m.id()) {
			continue
		}
		row, _ := s.Writer(k.ID, m.id().Node16())
		exhausted := row.Last == math.MaxUint16 && !k.Registered
		counts := !exhausted && !fips140.Enforced() // in strict FIPS mode nobody does
		if k.Registered == exhausted || (k.Suite == envelope.AES256GCM) != counts {
			c.violate("a node does not register", "%s: key %s, epoch %d, row %d, suite %v", m, k.ID, k.Epoch, row.Last, k.Suite)
		}
		if exhausted {
			c.stats.Exhausted++
		}
	}
}
