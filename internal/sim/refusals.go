package sim

import (
	"bytes"
	"context"
	"errors"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
)

// stepSecond starts a second process in a directory that is in use.
func (c *Cluster) stepSecond(m *member, _ []int) {
	if !m.serves() {
		return
	}
	n, err := atrest.Open(context.Background(), m.proc.config(), atrest.WithFS(m.proc.fs))
	if err == nil {
		n.Close() //nolint:errcheck // The violation says enough.
	}
	if !errors.Is(err, guard.ErrInUse) && !m.proc.fs.Fired() {
		c.violate("two processes in one directory", "%s: %v", m, err)
	}
	c.stats.Refusals++
}

// tryStart starts a member on other bytes of keys.json, which must be refused, and
// puts the old ones back.
func (c *Cluster) tryStart(m *member, b []byte, rule string) {
	f := m.disk.fs.Restart()
	if err := overwrite(f, b); err != nil {
		c.violate("a disk does not write", "%s: %v", m, err)
		return
	}
	p := &proc{m: m, keks: m.keks()}
	n, err := atrest.Open(context.Background(), p.config(), atrest.WithFS(f))
	if err == nil {
		n.Close() //nolint:errcheck // The violation says enough.
		c.violate(rule, "%s starts with it", m)
		return
	}
	if refusal := new(guard.Refusal); !errors.As(err, &refusal) || errors.Is(err, atrest.ErrRetry) {
		c.violate(rule, "%s: refused without a reason: %v", m, err)
	}
	c.stats.Refusals++
}

// stepEdit starts a member with keys.json changed in one bit.
func (c *Cluster) stepEdit(m *member, a []int) {
	b := c.keysOf(m)
	if b == nil || m.up() || m.outage {
		return
	}
	bit := a[1] % (8 * len(b))
	b[bit/8] ^= 1 << (bit % 8)
	c.tryStart(m, b, "an edited keys.json")
}

// stepForeign starts a member with the keys.json of another.
func (c *Cluster) stepForeign(m *member, a []int) {
	other := c.who(a[1])
	if other == nil || other.name == m.name || m.up() || m.outage {
		return
	}
	if b := c.keysOf(other); b != nil {
		c.tryStart(m, b, "the keys.json of another node")
	}
}

// keysOf returns a copy of a member's keys.json.
func (c *Cluster) keysOf(m *member) []byte {
	b, err := content(m.disk.fs.Restart())
	if err != nil {
		c.violate("a disk does not read", "%s: %v", m, err)
		return nil
	}
	return bytes.Clone(b)
}

// stepLose takes keys.json away. Where the store shows that there were keys and no
// snapshot brings them back, the member must not start.
func (c *Cluster) stepLose(m *member, a []int) {
	if m.clone || m.role == Absent || m.outage || !c.spare(m) {
		return
	}
	c.end(m, false)
	before := m.disk.fs.Restart()
	if err := overwrite(m.disk.fs, nil); err != nil {
		c.violate("a disk does not write", "%s: %v", m, err)
		return
	}
	epochs := m.disk.epochs
	m.disk.epochs, m.fault = nil, nil
	_, restored := m.disk.newest()
	if !m.disk.store.keys || restored {
		m.disk.epochs, m.disk.staleKeys = map[key.ID]uint16{}, true
		c.stats.LostKeys++
		c.start(m)
		return
	}
	m.expect = guard.ErrKeysMissing
	c.start(m)
	if m.expect != nil {
		m.expect = nil
		c.violate("a node starts without its keys", "%s", m)
		return
	}
	if a[1] == 0 {
		m.disk.fs, m.disk.epochs = before, epochs // it was found again
		return
	}
	m.disk.epochs, m.disk.staleKeys = map[key.ID]uint16{}, true
	m.disk.forget()
}
