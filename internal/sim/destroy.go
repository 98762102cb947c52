package sim

import (
	"cmp"
	"slices"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// evidence is what a member says of its need of a key: its synced store, its
// snapshots, one that is under way included, and its log.
func (m *member) evidence(id key.ID) applier.Evidence {
	m.sync()
	d := m.disk
	kept := slices.Clone(d.snaps)
	if m.proc.pending != nil {
		kept = append(kept, *m.proc.pending)
	}
	st := m.proc.store()
	e := applier.Evidence{Node: m.id(), Taken: st.applied, Live: st.count(id), FirstLog: d.first}
	for _, s := range kept {
		e.Live += s.store.count(id)
		if e.OldestSnapshot == 0 || s.store.applied < e.OldestSnapshot {
			e.OldestSnapshot = s.store.applied
		}
	}
	return e
}

func (s store) count(id key.ID) (n uint64) {
	for _, v := range s.values {
		if keyOf(v) == id {
			n++
		}
	}
	return n
}

func (c *Cluster) memberIDs() (ids []nodeid.ID) {
	for _, m := range c.members {
		if m.member() {
			ids = append(ids, m.id())
		}
	}
	slices.Sort(ids)
	return ids
}

// proofs are the evidence of all members that answer.
func (c *Cluster) proofs(id key.ID) (all []applier.Evidence) {
	for _, m := range c.members {
		if m.member() && m.serves() {
			all = append(all, m.evidence(id))
		}
	}
	slices.SortFunc(all, func(a, b applier.Evidence) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

func isStopped(k applier.Key) bool { return k.State == key.Stopped }

func (c *Cluster) stepDestroy(m *member, a []int) {
	k, ok := pick(m, a[1], isStopped)
	if !ok {
		return
	}
	entry, err := m.proc.node.NewDestroy(k.ID, c.memberIDs(), c.proofs(k.ID))
	c.operate(m, entry, err)
}

// stepForge proposes to destroy a key that may still be needed.
func (c *Cluster) stepForge(m *member, a []int) {
	k, ok := pick(m, a[1], isStopped)
	if !ok {
		return
	}
	d := applier.Destroy{Key: k.ID, Stopped: k.Stopped, Members: c.memberIDs(), Evidence: c.proofs(k.ID)}
	if len(d.Evidence) == 0 {
		return
	}
	for i := range d.Evidence { // all would be well but for one thing
		d.Evidence[i].Live, d.Evidence[i].OldestSnapshot = 0, 0
		d.Evidence[i].Taken, d.Evidence[i].FirstLog = max(d.Evidence[i].Taken, k.Stopped), k.Stopped+1
	}
	last := &d.Evidence[len(d.Evidence)-1]
	switch a[2] {
	case 0:
		d.Evidence = nil
	case 1:
		last.Live = 1
	case 2:
		last.FirstLog = k.Stopped
	case 3:
		last.OldestSnapshot = k.Stopped - 1
	case 4:
		last.Taken = k.Stopped - 1
	case 5:
		d.Evidence = d.Evidence[:len(d.Evidence)-1]
	}
	if a[2] == 5 && len(d.Evidence)+1 < len(d.Members) || a[2] == 3 && last.OldestSnapshot == 0 {
		return
	}
	if b, err := m.proc.node.NewDestroy(d.Key, d.Members, d.Evidence); err == nil {
		c.violate("a key may be destroyed that is needed", "%s: %x", m, b)
	}
	c.stats.Forgeries++
	c.raw(m, d)
}
