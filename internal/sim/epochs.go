package sim

import (
	"crypto/fips140"
	"math"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// checkEpochs looks at what a start made of keys.json: an epoch of its own for each
// active key, above all that were there.
func (o *oracle) checkEpochs(p *proc) {
	now, err := epochsOf(p.fs.content())
	if err != nil {
		o.c.violate("keys.json does not parse", "%s: %v", p, err)
		return
	}
	s := p.node.State()
	for _, purpose := range purposes {
		k, ok := s.Active(purpose)
		if !ok {
			continue
		}
		was := p.opened[k.ID]
		if row, ok := s.Writer(k.ID, p.m.id().Node16()); ok {
			was = max(was, row.Last)
		}
		if got := now[k.ID]; got <= was && was != math.MaxUint16 {
			o.c.violate("a start takes no epoch", "%s: key %s: %d, before it %d", p, k.ID, got, was)
		}
	}
}

// recordEpochs notes the epochs in keys.json, which no later start may lower.
func (o *oracle) recordEpochs(p *proc) {
	if p.fs.Fired() || p.fs.writes.Load() == p.recorded {
		return
	}
	p.recorded = p.fs.writes.Load()
	now, err := epochsOf(p.fs.content())
	if err != nil {
		o.c.violate("keys.json does not parse", "%s: %v", p, err)
		return
	}
	for id, e := range p.disk.epochs {
		if now[id] < e {
			o.c.violate("an epoch was lowered", "%s: key %s: %d after %d", p, id, now[id], e)
		}
	}
	p.disk.epochs = now
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
		switch {
		case fips140.Enforced(): // there are no counted nonces
			if k.Suite != envelope.XAES256GCM || !exhausted && !k.Registered {
				c.violate("a node does not register", "%s: key %s, suite %v, under strict FIPS mode", m, k.ID, k.Suite)
			}
		case exhausted && k.Suite != envelope.XAES256GCM, !exhausted && (k.Suite != envelope.AES256GCM || !k.Registered):
			c.violate("a node does not register", "%s: key %s, epoch %d, row %d, suite %v", m, k.ID, k.Epoch, row.Last, k.Suite)
		case exhausted:
			c.stats.Exhausted++
		}
	}
}
