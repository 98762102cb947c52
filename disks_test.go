package atrest_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
)

// What a conversation can say about disks, snapshots and key services.

func (c *conversation) kms(m *member) error {
	for _, k := range m.keks {
		if id := c.arg("kek"); id != "" && k.ID() != "kms:"+id {
			continue
		}
		switch c.words()[1] {
		case "down":
			k.FailNext(math.MaxInt, kek.ErrUnreachable)
		case "denied":
			k.FailNext(math.MaxInt, kek.ErrDenied)
		case "up":
			k.Heal()
		case "gone":
			k.Gone()
		case "wrong":
			k.WrongKey()
		}
	}
	return nil
}

// save copies the disk of a member that is down.
func (c *conversation) save(m *member) error {
	fs := m.fs.Restart()
	fs.SyncAll()
	c.disks[c.arg("as")] = saved{fs, m.disk}
	return nil
}

// putBack gives a member an old disk, or only its keys.json.
func (c *conversation) putBack(m *member) error {
	old := c.disks[c.arg("of")]
	switch {
	case c.has("keys.json"):
		f := m.fs.Restart()
		write(f, read(old.fs.Restart()))
		m.fs = f
	case c.has("store"):
		m.disk = old.disk
	default:
		m.fs, m.disk = old.fs.Restart(), old.disk
	}
	return nil
}

func read(f *crashfs.FS) []byte {
	h := must(f.OpenFile(keysJSON, os.O_RDONLY, 0))
	defer h.Close()
	return must(io.ReadAll(h))
}

// write replaces keys.json, durably.
func write(f *crashfs.FS, b []byte) {
	h := must(f.OpenFile(keysJSON, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600))
	must(h.Write(b))
	if err := h.Close(); err != nil {
		panic(err)
	}
	f.SyncAll()
}

func (c *conversation) deleteKeys(m *member) error {
	m.fs = m.fs.Restart()
	if err := m.fs.Remove(keysJSON); err != nil {
		return err
	}
	m.fs.SyncAll()
	return nil
}

// edits are what somebody may do to keys.json with a text editor.
var edits = map[string]struct{ old, repl string }{
	"clear-cutover":    {`(?s),\s*"storage_cutover": \{[^}]*\}`, ``},
	"change-state":     {`"open-only"`, `"active"`},
	"lower-epoch":      {`(\d+": )2,`, `${1}1,`},
	"swap-containers":  {`(?s)("container": ")([^"]*)(.*"container": ")([^"]*)`, `${1}${4}${3}${2}`},
	"add-a-member":     {`\{`, `{"more": 1,`},
	"add-one-twice":    {`"version": 3`, `"version": 3, "version": 3`},
	"change-a-letter":  {`"version"`, `"Version"`},
	"change-an-id":     {`"(\d+)": \{`, `"0${1}": {`},
	"write-it-shorter": {`\n *`, ` `},
	"empty-it":         {`(?s).*`, `{}`},
}

// edit changes keys.json.
func (c *conversation) edit(m *member) error {
	f := m.fs.Restart()
	b, e := read(f), edits[c.words()[1]]
	old := regexp.MustCompile(e.old)
	at := old.FindSubmatchIndex(b)
	require.NotNil(c.t, at, "%s", b)
	write(f, slices.Concat(b[:at[0]], old.Expand(nil, []byte(e.repl), b, at), b[at[1]:]))
	m.fs = f
	return nil
}

// snapshot takes a snapshot of the host's store, as of an earlier entry if need be.
func (c *conversation) snapshot(m *member) error {
	if err := m.snapshot(); err != nil {
		return err
	}
	if c.arg("at") != "" {
		m.disk.snap.applied = c.number("at")
		m.disk.snap.store = m.past[c.number("at")]
	}
	return nil
}

// startFrom starts a member with the snapshot of another one.
func (c *conversation) startFrom(m *member) error {
	m.disk.snap = c.member(c.arg("snapshot")).disk.snap
	m.disk.first = m.disk.snap.applied + 1
	return c.startOne(m)
}

// unmark takes a host's mark from a value that it is sealed.
func (c *conversation) unmark(_ *member) error {
	ws := c.words()
	for _, name := range ws[:len(ws)-1] {
		m := c.member(name)
		m.disk.store = maps.Clone(m.disk.store)
		v := m.disk.store[ws[len(ws)-1]]
		v.sealed = false
		m.disk.store[ws[len(ws)-1]] = v
	}
	return nil
}

func (c *conversation) install(m *member) error {
	from := c.member(c.arg("from"))
	if bit := c.arg("flip"); bit != "" {
		part := bytes.Clone(from.disk.snap.part)
		part[c.number("flip")] ^= 1
		s := *from.disk.snap
		s.part = part
		err := m.install(&member{w: c.world, disk: disk{snap: &s}})
		if errors.Is(err, atrest.ErrSnapshot) {
			return atrest.ErrSnapshot // what it noticed first depends on the ids of the keys
		}
		return err
	}
	return m.install(from)
}

// importFrom lets the next start of a member begin a cluster of its own with another
// one's snapshot, whose data is put in place.
func (c *conversation) importFrom(m *member) error {
	s := c.member(c.arg("from")).disk.snap
	m.backup = s.part
	m.disk.store = s.store
	if c.arg("applied") != "" { // the host's store remembers its index
		m.disk.applied, m.disk.first = c.number("applied"), c.number("applied")+1
		for uint64(len(c.log)) < m.disk.applied {
			c.log = append(c.log, nil)
		}
	}
	return nil
}

// altered tells what a member says to a payload of the log with a byte changed, at
// the same index or another.
func (c *conversation) altered(m *member) error {
	i := c.number("entry")
	require.LessOrEqual(c.t, i, uint64(len(c.log)), c.d.Pos)
	data := bytes.Clone(c.log[i-1])
	if c.arg("byte") != "" {
		data[c.number("byte")] ^= 1
	}
	if c.arg("at") != "" {
		i = c.number("at")
	}
	payload, err := m.node.Raft().Open(nil, i, data)
	if err != nil {
		return err
	}
	if atrest.IsEntry(payload) {
		c.tell("opens: an entry")
		return nil
	}
	c.tell("opens: %q", payload)
	return nil
}

func (c *conversation) compact(m *member) error {
	through := m.disk.applied
	if c.arg("through") != "" {
		through = c.number("through")
	}
	if c.has("recorded") {
		if err := m.node.Compacted(through); err != nil {
			return err
		}
	}
	m.compact(through)
	return nil
}

// rewind takes a host's store back, as one that does not sync does at a power loss.
func (c *conversation) rewind(m *member) error {
	m.disk.applied = c.number("to")
	return nil
}

func (c *conversation) checkPayload(m *member) error {
	for _, p := range []string{"put a 1", "\xa7EN\x02 an entry", "\xa7RP\x02 a sealed payload", "", "\x03", "\x0a\xa7EN\x02"} {
		err := m.node.CheckPayload([]byte(p))
		c.tell("%q: %v", p, err)
	}
	return nil
}
