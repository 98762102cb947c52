package sim

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

var purposes = [...]key.Purpose{key.Storage, key.Raft}

// operate proposes an entry that a builder made, unless it says why not.
func (c *Cluster) operate(m *member, entry []byte, err error) {
	if err != nil {
		c.note("%s: %v", m, err)
		if rejection := new(applier.Rejection); errors.As(err, &rejection) || errors.Is(err, applier.ErrDuplicate) {
			c.stats.NotBuilt++
			return
		}
		if !m.up() || errors.Is(err, atrest.ErrRetry) && m.kmsExcuse() || m.proc.fs.Fired() {
			return
		}
		c.violate("an entry is not built", "%s: %v", m, err)
		return
	}
	c.propose(m, entry)
}

// propose sends an entry on its way, whoever made it.
func (c *Cluster) propose(m *member, entry []byte) {
	if m.up() {
		c.submit(m, entry, nil) //nolint:errcheck // The operator tries again, which is another step.
	}
}

// raw proposes an entry that no builder checked.
func (c *Cluster) raw(m *member, e applier.Entry) {
	b, err := applier.Generation2.Append(nil, e)
	if err != nil {
		c.violate("an entry is not encoded", "%T: %v", e, err)
		return
	}
	c.propose(m, b)
}

func (c *Cluster) stepBootstrap(m *member, _ []int) {
	entry, err := m.proc.node.NewBootstrap(context.Background(), c.names())
	if !m.member() {
		return // it must be one of them
	}
	c.operate(m, entry, err)
}

func (c *Cluster) stepEnable(m *member, a []int) {
	build := m.proc.node.NewEnableStorage
	if a[1] == 1 {
		build = m.proc.node.NewEnableRaft
	}
	entry, err := build()
	c.operate(m, entry, err)
}

func (c *Cluster) stepRotate(m *member, a []int) {
	ctx := context.Background()
	entry, err := m.proc.node.NewRotation(ctx, purposes[a[1]])
	if a[2] == 1 && err == nil {
		for _, other := range c.all() {
			if !other.up() || other.proc.open() == nil {
				continue
			}
			if err := other.proc.open().Prepare(ctx, entry); err != nil && !other.kmsExcuse() && !errors.Is(err, atrest.ErrClosed) {
				c.violate("a key is not prepared", "%s: %v", other, err)
			}
		}
	}
	c.operate(m, entry, err)
}

func (c *Cluster) stepRewrap(m *member, a []int) {
	var ids []key.ID
	if k, ok := pick(m, a[1], func(k applier.Key) bool { return k.State != key.Destroyed }); ok && a[1] > 0 {
		ids = append(ids, k.ID)
	}
	entries, err := m.proc.node.NewRewrap(context.Background(), ids...)
	if err != nil {
		c.operate(m, nil, err)
	}
	for _, e := range entries {
		c.operate(m, e, nil)
	}
}

// pick returns the i-th of a node's keys that are such.
func pick(m *member, i int, such func(applier.Key) bool) (applier.Key, bool) {
	var keys []applier.Key
	for k := range m.proc.node.State().Keys() {
		if such(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return applier.Key{}, false
	}
	slices.SortFunc(keys, func(a, b applier.Key) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Purpose, b.Purpose))
	})
	return keys[i%len(keys)], true
}

func (c *Cluster) stepRetire(m *member, a []int) {
	if k, ok := pick(m, a[1], func(k applier.Key) bool { return k.State == key.OpenOnly }); ok {
		entry, err := m.proc.node.NewStop(k.ID)
		c.operate(m, entry, err)
	}
}

// stepRewrite seals anew what is not sealed under the active key. Nothing waits for a
// key that is missing.
func (c *Cluster) stepRewrite(m *member, _ []int) {
	if !m.serves() {
		return
	}
	p := m.proc
	s := p.node.State()
	active, ok := s.Active(key.Storage)
	if !ok || !s.StorageCutover().Active {
		return
	}
	st := p.store()
	for k, v := range st.values {
		if v.data == nil || v.sealed && keyOf(v) == active.ID {
			continue
		}
		plain, err := p.node.Storage().OpenContext(done, nil, v.data, location(k), v.sealed)
		if err != nil {
			continue // checkValues says whether it may
		}
		out, sealed, err := p.node.Storage().SealContext(done, nil, plain, location(k))
		switch {
		case err == nil && sealed:
			c.oracle.sealed(p, key.Storage, out, s)
			st.values[k] = stored{out, sealed}
		case err == nil:
			c.violate("a value in clear above the storage cutover", "%s: key %d", p, k)
		case !m.kmsExcuse():
			c.violate("a value is not sealed", "%s: key %d: %v", p, k, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disk.store, p.dirty = st, true
	if m.host == NoSync {
		p.disk.history = append(p.disk.history, st)
	} else {
		p.disk.history = []store{st}
	}
	c.stats.Rewrites++
}

// keyOf returns the key that a value is sealed under, 0 if it is in clear.
func keyOf(v stored) key.ID {
	if !v.sealed {
		return 0
	}
	h, err := envelope.ParseHeader(v.data)
	if err != nil {
		return 0
	}
	return h.KeyID
}

func (c *Cluster) stepGone(m *member, a []int) {
	other := c.who(a[1])
	if other == nil || other.clone {
		return
	}
	entry, err := m.proc.node.NewWriterGone(other.id())
	c.operate(m, entry, err)
}

// stepRegister proposes a registration of another load of the member, as one whose
// disk was lost or set back had.
func (c *Cluster) stepRegister(m *member, a []int) {
	s := m.proc.node.State()
	for i, p := range purposes {
		k, ok := s.Active(p)
		if !ok {
			return
		}
		row, _ := s.Writer(k.ID, m.id().Node16())
		epoch := uint64(row.Last) + []uint64{0, 1, 3, 0xffff}[a[1]]
		e := applier.Registration{Key: k.ID, Node: m.id(), Epoch: uint16(min(epoch, 0xffff))}
		c.processes++
		e.Load[0], e.Load[1], e.Load[2] = byte(c.processes), byte(c.processes>>8), byte(i+1)
		c.raw(m, e)
	}
}

func backupID(i int) applier.BackupID { return applier.BackupID{15: byte(i + 1)} }

func (c *Cluster) stepKeep(m *member, a []int) {
	entry, err := m.proc.node.NewBackup(backupID(a[1]))
	c.operate(m, entry, err)
}

func (c *Cluster) stepForget(m *member, a []int) {
	entry, err := m.proc.node.NewBackupForgotten(backupID(a[1]))
	c.operate(m, entry, err)
}

// stepRebootstrap proposes a second bootstrap, with the containers of another
// cluster.
func (c *Cluster) stepRebootstrap(m *member, _ []int) {
	if !m.proc.node.State().Bootstrapped() || m.outage {
		return
	}
	if b, err := m.proc.node.NewBootstrap(context.Background(), c.names()); err == nil {
		c.violate("a second bootstrap may be built", "%s: %x", m, b)
	}
	e := applier.Bootstrap{}
	cluster := key.NewClusterID()
	for i, to := range []*applier.WrappedKey{&e.Storage, &e.Raft} {
		id := key.NewID()
		w, err := m.proc.keks.WrapDEK(context.Background(), cluster, id, purposes[i], key.NewDEK())
		if err != nil {
			return
		}
		*to = applier.WrappedKey{ID: id, Wrap: w}
	}
	c.stats.Forgeries++
	c.raw(m, e)
}

func (c *Cluster) stepStopActive(m *member, a []int) {
	k, ok := m.proc.node.State().Active(purposes[a[1]])
	if !ok {
		return
	}
	if b, err := m.proc.node.NewStop(k.ID); err == nil {
		c.violate("an active key may be stopped", "%s: %x", m, b)
	}
	c.stats.Forgeries++
	c.raw(m, applier.Stop{Key: k.ID})
}

// stepSwapWraps proposes a rewrap that gives two keys each other's containers.
func (c *Cluster) stepSwapWraps(m *member, _ []int) {
	s := m.proc.node.State()
	a, ok1 := s.Active(key.Storage)
	b, ok2 := s.Active(key.Raft)
	if !ok1 || !ok2 {
		return
	}
	keys := []applier.WrappedKey{{ID: a.ID, Wrap: b.Container}, {ID: b.ID, Wrap: a.Container}}
	slices.SortFunc(keys, func(x, y applier.WrappedKey) int { return cmp.Compare(x.ID, y.ID) })
	c.stats.Forgeries++
	c.raw(m, applier.Rewrap{Keys: keys})
}

// stepMalformed proposes what no version of an entry is.
func (c *Cluster) stepMalformed(m *member, a []int) {
	bodies := []string{"\x03\x02", "\x05\x02\x03\x01\x00", "\x05\x02\x02\x00\x00\x00\x09", "\x04\x02\xff"}
	c.stats.Forgeries++
	c.propose(m, []byte("\xa7EN\x02"+bodies[a[1]]))
}

// stepJoin makes a member of one that is none: a learner with an empty disk.
func (c *Cluster) stepJoin(m *member, _ []int) {
	if m.clone || m.role != Absent || c.leader == nil {
		return
	}
	m.role, m.disk = Learner, newDisk()
	c.raft.propose(&proposal{})
	c.stats.Joins++
	c.start(m)
}

func (c *Cluster) stepPromote(m *member, _ []int) {
	if m.clone || m.role != Learner || c.leader == nil || !m.serves() || m.disk.last != c.raft.last() {
		return
	}
	m.role = Voter
	c.raft.propose(&proposal{})
}

func (c *Cluster) stepRemove(m *member, _ []int) {
	if m.clone || m.role == Absent || m == c.leader || c.leader == nil || !c.spare(m) {
		return
	}
	voters := 0
	for _, v := range c.members {
		if v.voter() {
			voters++
		}
	}
	if m.role == Voter && voters <= 2 {
		return
	}
	c.end(m, false)
	if twin := c.clones[m.slot]; twin != nil {
		c.end(twin, false)
		c.clones[m.slot] = nil
	}
	m.role, m.disk, m.saves = Absent, newDisk(), nil
	c.raft.propose(&proposal{})
	c.stats.Removals++
}
