package sim

import (
	"bytes"
	"context"
	"errors"

	"github.com/atrestdb/atrest"
)

// stepSnapshot takes a snapshot: the store as it is now, and the key state of now or
// of one step later.
func (c *Cluster) stepSnapshot(m *member, a []int) {
	if !m.serves() || m.proc.store().applied == 0 {
		return
	}
	p := m.proc
	s := snapshot{store: p.store()}
	if a[1] == 1 {
		c.finishSnapshot(p)
		p.pending = &s
		p.hold = true
		return
	}
	c.finishSnapshot(p)
	c.take(p, s)
}

// finishSnapshots ends those that began a step ago.
func (c *Cluster) finishSnapshots() {
	for _, m := range c.all() {
		if p := m.proc; p != nil && p.pending != nil && !p.hold {
			c.finishSnapshot(p)
		} else if p != nil {
			p.hold = false
		}
	}
}

// finishSnapshot ends one that is under way.
func (c *Cluster) finishSnapshot(p *proc) {
	if s := p.pending; s != nil {
		p.pending = nil
		c.take(p, *s)
	}
}

// take adds the key state of now to a snapshot, and keeps it.
func (c *Cluster) take(p *proc, s snapshot) {
	part, err := p.node.Snapshot()
	if err != nil {
		if !p.m.kmsExcuse() || !errors.Is(err, atrest.ErrRetry) {
			c.violate("no snapshot", "%s: %v", p, err)
		}
		return
	}
	s.part, s.keyed = part, p.node.State().Bootstrapped()
	if newest, ok := p.disk.newest(); ok && newest.store.applied >= s.store.applied {
		return
	}
	p.disk.keep(s)
	c.stats.Snapshots++
}

// stepCompact drops the log up to the newest snapshot, or up to what the store
// holds durably.
func (c *Cluster) stepCompact(m *member, a []int) {
	if !m.serves() {
		return
	}
	p := m.proc
	s, ok := p.disk.newest()
	switch {
	case a[1] == 0 && ok:
		c.compact(p.disk, s.store.applied)
	case a[1] == 1 && m.host != Memory:
		through := p.durable()
		if p.pending != nil {
			through = min(through, p.pending.store.applied)
		}
		if err := p.node.Compacted(through); err != nil {
			if !p.fs.Fired() {
				c.violate("Compacted failed", "%s: %v", m, err)
			}
			return
		}
		c.compact(p.disk, through)
	}
}

func (c *Cluster) compact(d *disk, through uint64) {
	if through < d.first || through > d.last {
		return
	}
	d.first = through + 1
	c.stats.Compactions++
}

// stepInstall installs another member's snapshot. The host writes the snapshot to its
// disk before it gives it to the node, or after.
func (c *Cluster) stepInstall(m *member, a []int) {
	if from := c.who(a[1]); from != nil && from != m {
		c.install(m, from, a[2] == 1)
	}
}

// install brings the snapshot of another member, which takes one if it has none that
// is newer than what m has.
func (c *Cluster) install(m, from *member, storeFirst bool) {
	if !m.serves() || m == c.leader {
		return
	}
	have := m.proc.store().applied
	s, ok := from.disk.newest()
	if from.serves() && (!ok || s.store.applied <= have || s.store.applied+1 < from.disk.first) {
		c.stepSnapshot(from, []int{0, 0})
		s, ok = from.disk.newest()
	}
	if !ok || s.store.applied <= have {
		return
	}
	p := m.proc
	if storeFirst {
		p.disk.keep(s)
	}
	err := p.node.Restore(context.Background(), s.part)
	c.wait()
	if err != nil {
		c.note("%s: snapshot not installed: %v", m, err)
		switch {
		case !m.up(), p.fs.Fired():
		case errors.Is(err, atrest.ErrRetry) && m.kmsExcuse():
		default:
			c.violate("a snapshot is refused", "%s: %v", m, err)
		}
		if storeFirst && m.up() {
			c.end(m, false) // it finds the snapshot when it starts again
		}
		return
	}
	if m.proc != p {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.disk
	d.setStore(s.store)
	d.snaps = []snapshot{s}
	d.first, d.last = s.store.applied+1, max(d.last, s.store.applied)
	d.staleStore = m.clone || from.disk.staleStore
	p.fed = s.store.applied
	p.dirty = true
	c.note("%s installs the snapshot of %s at %d", m, from, s.store.applied)
	c.stats.Installs++
}

// partHead is the size of what stands before the key state in a node's part of a
// snapshot: magic, key id, MAC.
const partHead = 4 + 4 + 32

// stepTamper gives a node a snapshot of another one with one bit changed.
func (c *Cluster) stepTamper(m *member, a []int) {
	from := c.who(a[1])
	if from == nil || !from.serves() || !m.serves() || !from.proc.node.State().Bootstrapped() {
		return
	}
	part, err := from.proc.node.Snapshot()
	if err != nil {
		return // a snapshot says so
	}
	part = bytes.Clone(part)
	bit := a[2] % (8 * len(part))
	if a[2]%2 == 0 {
		bit %= 8 * partHead
	}
	part[bit/8] ^= 1 << (bit % 8)
	before := m.proc.node.State()
	err = m.proc.node.Restore(context.Background(), part)
	switch {
	case err == nil:
		c.violate("a changed snapshot is taken", "%s: bit %d of %d", m, bit, 8*len(part))
	case m.proc.node.State() != before:
		c.violate("a refused snapshot leaves a trace", "%s: %v", m, err)
	}
	c.stats.Refusals++
}
