package sim

import "math"

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
