package sim

import (
	"context"
	"errors"
	"time"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
)

// steps has what each operation of the grammar does.
var steps = map[string]func(*Cluster, []int){
	"put":     (*Cluster).stepPut,
	"inject":  (*Cluster).stepInject,
	"commit":  func(c *Cluster, a []int) { c.commit(a[0]) },
	"deliver": eachUp(func(c *Cluster, m *member, a []int) { c.deliver(m, a[1]) }),
	"elect":   func(c *Cluster, a []int) { c.elect(c.who(a[0]), a[1]) },
	"slow":    one(func(_ *Cluster, m *member, a []int) { m.slow = a[1] == 1 }),
	"arrive":  eachOf(func(c *Cluster, m *member, _ []int) { c.arriveAll(m) }),
	"settle":  func(c *Cluster, _ []int) { c.settle() },
	"tick":    func(c *Cluster, a []int) { c.pass(ticks[a[0]]) },
	"again":   (*Cluster).stepAgain,

	"start":   eachOf(func(c *Cluster, m *member, _ []int) { c.start(m) }),
	"stop":    eachUp(func(c *Cluster, m *member, _ []int) { c.stop(m) }),
	"kill":    eachUp(func(c *Cluster, m *member, _ []int) { c.end(m, false) }),
	"power":   eachUp(func(c *Cluster, m *member, _ []int) { c.end(m, true) }),
	"fault":   one((*Cluster).stepFault),
	"sync":    eachUp(func(_ *Cluster, m *member, _ []int) { m.sync() }),
	"wipe":    one((*Cluster).stepWipe),
	"save":    one((*Cluster).stepSave),
	"restore": one((*Cluster).stepRestore),
	"clone":   one((*Cluster).stepClone),
	"swap":    one((*Cluster).stepSwap),
	"backup":  (*Cluster).stepBackup,
	"return":  (*Cluster).stepReturn,
	"second":  one((*Cluster).stepSecond),
	"edit":    one((*Cluster).stepEdit),
	"foreign": one((*Cluster).stepForeign),
	"lose":    one((*Cluster).stepLose),
	"kms":     eachOf((*Cluster).stepKMS),
	"kek":     one(func(_ *Cluster, m *member, a []int) { m.set = a[1] }),

	"snapshot": eachUp((*Cluster).stepSnapshot),
	"compact":  eachUp((*Cluster).stepCompact),
	"install":  one((*Cluster).stepInstall),
	"tamper":   one((*Cluster).stepTamper),

	"join":    one((*Cluster).stepJoin),
	"promote": one((*Cluster).stepPromote),
	"remove":  one((*Cluster).stepRemove),

	"bootstrap": leads((*Cluster).stepBootstrap),
	"enable":    leads((*Cluster).stepEnable),
	"rotate":    leads((*Cluster).stepRotate),
	"rewrap":    leads((*Cluster).stepRewrap),
	"retire":    leads((*Cluster).stepRetire),
	"rewrite":   eachUp((*Cluster).stepRewrite),
	"destroy":   leads((*Cluster).stepDestroy),
	"gone":      leads((*Cluster).stepGone),
	"register":  leads((*Cluster).stepRegister),
	"keep":      leads((*Cluster).stepKeep),
	"forget":    leads((*Cluster).stepForget),

	"rebootstrap": leads((*Cluster).stepRebootstrap),
	"stopactive":  leads((*Cluster).stepStopActive),
	"forge":       leads((*Cluster).stepForge),
	"swapwraps":   leads((*Cluster).stepSwapWraps),
	"malformed":   leads((*Cluster).stepMalformed),
}

type memberStep func(c *Cluster, m *member, a []int)

// one calls f with the member that the first argument names, if there is one.
func one(f memberStep) func(*Cluster, []int) {
	return func(c *Cluster, a []int) {
		if m := c.who(a[0]); m != nil {
			f(c, m, a)
		}
	}
}

// eachOf calls f with each member that the first argument names.
func eachOf(f memberStep) func(*Cluster, []int) {
	return func(c *Cluster, a []int) {
		for _, m := range c.each(a[0]) {
			f(c, m, a)
		}
	}
}

// eachUp calls f with those that run.
func eachUp(f memberStep) func(*Cluster, []int) {
	return eachOf(func(c *Cluster, m *member, a []int) {
		if m.up() {
			f(c, m, a)
		}
	})
}

// leads calls f if the member serves, whether it is the leader or not: its proposals
// are forwarded.
func leads(f memberStep) func(*Cluster, []int) {
	return one(func(c *Cluster, m *member, a []int) {
		if m.serves() {
			f(c, m, a)
		}
	})
}

var ticks = []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 15 * time.Minute}

func (c *Cluster) stepPut(a []int) {
	m := c.who(a[0])
	if m == nil || !m.serves() {
		return
	}
	c.written++
	v := value(a[1], c.written)
	if err := m.proc.node.CheckPayload(v); err != nil {
		c.violate("a command is refused", "%s: %v", m, err)
		return
	}
	c.submit(m, v, nil) //nolint:errcheck // The client tries again, which is another step.
}

func (c *Cluster) stepInject(a []int) {
	m := c.who(a[0])
	if m == nil || !m.serves() {
		return
	}
	b := []byte("\xa7EN\x02\x05\x02\x03")
	if a[1] == 1 {
		b = []byte(frameMagic + "\x01\x00")
	}
	if err := m.proc.node.CheckPayload(b); !errors.Is(err, atrest.ErrReservedPrefix) {
		c.violate("a client may inject an entry", "%s: %x: %v", m, b, err)
	}
	c.stats.Refusals++
}

// stepAgain proposes an old payload as it was: a message that the network held back
// for long, or sent twice.
func (c *Cluster) stepAgain(a []int) {
	n := uint64(a[0])
	if c.leader == nil || n >= c.raft.last() {
		return
	}
	if e := c.raft.at(c.raft.last() - n); e.data != nil && e.fate != write {
		c.raft.propose(&proposal{plain: e.plain, data: e.data})
	}
}

func (c *Cluster) arriveAll(m *member) {
	transit := m.transit
	m.transit = nil
	for _, p := range transit {
		c.arrive(p) //nolint:errcheck // Who waits for it is told.
	}
}

func (c *Cluster) stepFault(m *member, a []int) {
	f := fault{at: a[1], form: crashfs.Form(a[2] + 1)}
	switch {
	case !m.up():
		m.fault = &f
	case !m.proc.fs.Fired(): // one fault a process: what it did stays
		m.proc.fs.arm(f)
	}
}

func (m *member) sync() {
	m.proc.mu.Lock()
	defer m.proc.mu.Unlock()
	if m.host == NoSync {
		m.disk.sync()
	}
}

// spare reports whether the log survives without a member's disk.
func (c *Cluster) spare(m *member) bool {
	if m.clone || !m.voter() {
		return true
	}
	for _, v := range c.members {
		if v != m && v.voter() && v.disk.last == c.raft.last() && (v.serves() || !v.disk.staleKeys && !v.disk.staleStore) {
			return true
		}
	}
	return false
}

func (c *Cluster) stepWipe(m *member, _ []int) {
	if m.clone || !c.spare(m) {
		return
	}
	c.end(m, false)
	m.disk = newDisk()
	c.stats.Wipes++
}

func (c *Cluster) stepSave(m *member, _ []int) {
	m.saves = append([]*disk{c.copyOf(m)}, m.saves...)
	m.saves = m.saves[:min(3, len(m.saves))]
}

// copyOf copies a disk while its process runs.
func (c *Cluster) copyOf(m *member) *disk {
	if m.up() {
		m.proc.mu.Lock()
		defer m.proc.mu.Unlock()
	}
	d := m.disk.copy()
	if m.host == Memory {
		d.setStore(store{})
	}
	return d
}

func (c *Cluster) stepRestore(m *member, a []int) {
	if a[1] >= len(m.saves) || m.clone {
		return
	}
	save := m.saves[a[1]].copy()
	if !c.spare(m) {
		return
	}
	c.end(m, false)
	if a[2] == 0 {
		m.disk = save
		m.disk.sync()
		m.disk.staleStore = true
	} else {
		m.disk.fs, m.disk.epochs = save.fs, save.epochs
		m.disk.staleKeys = true
	}
	c.stats.Restores++
}

func (c *Cluster) stepClone(m *member, _ []int) {
	if m.clone || c.clones[m.slot] != nil || m.role == Absent {
		return
	}
	twin := c.newMember(m.slot+MaxMembers, m.host, m.role)
	twin.clone, twin.set, twin.disk = true, m.set, c.copyOf(m)
	twin.disk.staleStore = true
	c.clones[m.slot] = twin
	c.stats.Clones++
	c.start(twin)
}

// stepSwap ends a member whose clone runs, and gives the clone's disk its place.
func (c *Cluster) stepSwap(m *member, _ []int) {
	twin := c.clones[m.slot%MaxMembers]
	if m.clone || twin == nil || !c.spare(m) {
		return
	}
	c.end(m, false)
	c.end(twin, false)
	c.clones[m.slot] = nil
	m.disk = twin.disk
}

func (c *Cluster) stepBackup([]int) {
	b := &backup{last: c.raft.last()}
	for _, m := range c.members {
		b.disks, b.roles = append(b.disks, c.copyOf(m)), append(b.roles, m.role)
	}
	c.backup = b
}

// stepReturn sets all disks back to a copy, and with them the log.
func (c *Cluster) stepReturn([]int) {
	b := c.backup
	if b == nil {
		return
	}
	for _, m := range c.all() {
		c.end(m, false)
	}
	clear(c.clones)
	for _, p := range c.raft.tail {
		p.resolve(errLost)
	}
	c.raft.truncate(b.last)
	c.oracle.truncate(b.last)
	for i, m := range c.members {
		m.disk, m.role = b.disks[i].copy(), b.roles[i]
		m.disk.sync()
		m.saves, m.transit = nil, nil
	}
	c.stats.Rollbacks++
}

func (c *Cluster) stepKMS(m *member, a []int) {
	m.kmsUp()
	if a[1] == 0 {
		return
	}
	m.outage = true
	c.stats.Outages++
	for _, k := range m.kms {
		switch a[1] {
		case 1:
			k.FailNext(1<<30, kek.ErrUnreachable)
		case 2:
			_, release := k.Hold()
			before := m.release
			m.release = func() { before(); release() }
		case 3:
			k.FailNext(3, kek.ErrUnreachable)
		case 4:
			k.LoseNext(3, context.DeadlineExceeded)
		}
	}
}

// kmsUp ends an outage. What failed in it is tried again within the time until the
// member has to be well.
func (m *member) kmsUp() {
	if !m.outage {
		return
	}
	m.outage, m.well = false, time.Now().Add(45*time.Second)
	for _, k := range m.kms {
		k.Heal()
	}
	m.letGo()
}

// letGo lets calls go that are held.
func (m *member) letGo() {
	m.release()
	m.release = func() {}
}
