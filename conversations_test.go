package atrest_test

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
)

// Each file in testdata/conversations tells one story of a cluster: what an operator
// or fate does, and what the hosts answer. Keys are called S1, S2, ... and R1, R2, ...
// by purpose in the order in which they appear. Where the system whose data this
// library can take over does otherwise, a comment that begins with "Elsewhere" says
// so.
func TestConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		if fips140.Enforced() && filepath.Base(path) == "altered_raft_payload" {
			t.Skip("it changes bits of suite 0x01, which is not sealed with in strict FIPS mode")
		}
		bubble(t, func(t *testing.T) {
			c := &conversation{
				world: newWorld(t), names: map[string]string{},
				later: map[string][]byte{}, disks: map[string]saved{}, told: map[uint64]string{},
			}
			defer c.end()
			datadriven.RunTest(t, path, func(_ *testing.T, d *datadriven.TestData) string {
				out := c.run(d)
				if fips140.Enforced() && epochs.ReplaceAllString(d.Expected, "random nonces") == out {
					return d.Expected
				}
				return out
			})
		})
	})
}

// Strict FIPS mode counts no nonces: where a conversation says so it has suite 0x03.
var epochs = regexp.MustCompile(`counted nonces of epoch \d+`)

// conversation is a world that is talked to.
type conversation struct {
	*world
	d      *datadriven.TestData
	names  map[string]string // of keys, nodes and clusters
	later  map[string][]byte
	disks  map[string]saved
	told   map[uint64]string
	former []*member
	out    strings.Builder
}

// saved is a copy of a disk.
type saved struct {
	fs   *crashfs.FS
	disk disk
}

// commands by name. Each gets the member that is named first.
var commands = map[string]func(c *conversation, m *member) error{
	"start":         (*conversation).start,
	"stop":          func(_ *conversation, m *member) error { m.stop(); return nil },
	"kill":          func(_ *conversation, m *member) error { m.kill(false); return nil },
	"power-off":     func(_ *conversation, m *member) error { m.kill(true); return nil },
	"bootstrap":     (*conversation).bootstrap,
	"rotate":        (*conversation).rotate,
	"enable":        (*conversation).enable,
	"rewrap":        (*conversation).rewrap,
	"stop-key":      (*conversation).stopKey,
	"destroy":       (*conversation).destroy,
	"gone":          (*conversation).gone,
	"backup":        (*conversation).backup,
	"forget-backup": (*conversation).forgetBackup,
	"craft":         (*conversation).craft,
	"put":           (*conversation).put,
	"get":           (*conversation).get,
	"seal":          (*conversation).seal,
	"stored":        (*conversation).stored,
	"state":         (*conversation).state,
	"epochs":        (*conversation).epochs,
	"status":        (*conversation).status,
	"kms":           (*conversation).kms,
	"save":          (*conversation).save,
	"put-back":      (*conversation).putBack,
	"delete-keys":   (*conversation).deleteKeys,
	"wipe":          func(_ *conversation, m *member) error { m.wipe(); return nil },
	"edit":          (*conversation).edit,
	"apart":         func(_ *conversation, m *member) error { m.apart = true; return nil },
	"together":      func(_ *conversation, m *member) error { m.apart = false; return nil },
	"unmark":        (*conversation).unmark,
	"start-from":    (*conversation).startFrom,
	"snapshot":      (*conversation).snapshot,
	"install":       (*conversation).install,
	"import":        (*conversation).importFrom,
	"compact":       (*conversation).compact,
	"rewind":        (*conversation).rewind,
	"check-payload": (*conversation).checkPayload,
	"altered":       (*conversation).altered,
	"second-process": func(c *conversation, m *member) error {
		_, err := m.process()
		return err
	},
	"encryption-off": func(_ *conversation, m *member) error { return guard.EncryptionOff(m.fs.Restart(), dir) },
}

// run carries out one command: for members, or for all.
func (c *conversation) run(d *datadriven.TestData) string {
	c.d = d
	c.out.Reset()
	switch d.Cmd {
	case "members":
		for _, m := range c.join(c.words()...) {
			c.configure(m)
			c.names[nodeid.Derive(m.name).String()] = m.name
		}
	case "registrations":
		c.hold = c.words()[0] == "wait"
		c.settle()
	case "deliver": // what was kept for later reaches the log
		for _, name := range c.words() {
			c.append(c.later[name])
		}
		c.settle()
	case "again": // an entry stands in the log once more
		c.append(c.log[must(strconv.Atoi(c.words()[0]))-1])
		c.settle()
	case "new-log": // those who are there go, and another cluster begins
		c.end()
		c.former = append(c.former, c.members...)
		c.members, c.log, c.told = nil, nil, map[uint64]string{}
	case "advance":
		c.advance(must(time.ParseDuration(c.words()[0])))
	default:
		f, ok := commands[d.Cmd]
		if !ok {
			d.Fatalf(c.t.(*testing.T), "no command %q", d.Cmd)
		}
		m := c.member(c.words()[0])
		if err := f(c, m); err != nil {
			c.tell("%s: %s", kindOf(err), err)
		}
		c.settle()
	}
	c.news()
	if c.out.Len() == 0 {
		return "ok\n"
	}
	return c.clean(c.out.String())
}

// kindOf is what a host makes of an error.
func kindOf(err error) string {
	switch {
	case errors.Is(err, atrest.ErrRetry):
		return "try again"
	case errors.Is(err, atrest.ErrRejected):
		return "rejected by all"
	default:
		return "error"
	}
}

func (c *conversation) tell(format string, args ...any) { fmt.Fprintf(&c.out, format+"\n", args...) }

// member finds one that is there, or was before the new log.
func (c *conversation) member(name string) *member {
	for _, m := range slices.Concat(c.members, c.former) {
		if m.name == name {
			return m
		}
	}
	c.t.Fatalf("%s: no member %q", c.d.Pos, name)
	return nil
}

// options are words that name no member.
var options = []string{"strict", "extended", "several-groups", "memory", "no-hint", "in-clear"}

// words are the arguments without a value, and without options.
func (c *conversation) words() (ws []string) {
	for _, a := range c.d.CmdArgs {
		if len(a.Vals) == 0 && !slices.Contains(options, a.Key) {
			ws = append(ws, a.Key)
		}
	}
	return ws
}

func (c *conversation) has(word string) bool {
	return slices.ContainsFunc(c.d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == word })
}

// arg is the value of an argument.
func (c *conversation) arg(name string) string {
	for _, a := range c.d.CmdArgs {
		if a.Key == name && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return ""
}

func (c *conversation) args(name string) []string {
	for _, a := range c.d.CmdArgs {
		if a.Key == name {
			return a.Vals
		}
	}
	return nil
}

func (c *conversation) number(name string) uint64 {
	if c.arg(name) == "last" {
		return uint64(len(c.log))
	}
	n, err := strconv.ParseUint(c.arg(name), 10, 64)
	require.NoError(c.t, err, "%s: %s", c.d.Pos, name)
	return n
}

// key finds a key by its name here.
func (c *conversation) key(name string) key.ID {
	for id, n := range c.names {
		if n == name {
			return key.ID(must(strconv.ParseUint(id, 10, 32)))
		}
	}
	if name == "unknown" {
		return 77
	}
	c.t.Fatalf("%s: no key %s", c.d.Pos, name)
	return 0
}

// configure applies the options of a members or start command.
func (c *conversation) configure(m *member) {
	if ids := c.args("keks"); ids != nil {
		m.keks = nil
		for _, id := range ids {
			m.keks = append(m.keks, kektest.New("kms:"+id))
		}
	}
	for word, opt := range map[string]atrest.Option{
		"strict":         atrest.WithStrictValues(),
		"extended":       atrest.WithExtendedOnly(),
		"several-groups": atrest.WithSeveralGroups(),
	} {
		if c.has(word) {
			m.opts = append(m.opts, opt)
		}
	}
	m.disk.memory = m.disk.memory || c.has("memory")
	if g := c.arg("group"); g != "" {
		m.group = g
	}
	if l := c.arg("limit"); l != "" {
		m.opts = append(m.opts, atrest.WithLimits(keystore.Limits{Seals: c.number("limit"), Bytes: 1 << 40}))
	}
	if known := c.args("known"); known != nil {
		m.opts = append(m.opts, atrest.WithMembers(members(known)))
	}
}

func members(names []string) (ms []nodeid.Member) {
	for _, n := range names {
		ms = append(ms, nodeid.Member{Name: n, ID: nodeid.Derive(n)})
	}
	return ms
}

// names of all keys that appeared meanwhile.
func (c *conversation) baptize() {
	for _, m := range c.members {
		if m.node == nil {
			continue
		}
		s := m.node.State()
		if cluster := s.Cluster().String(); s.Bootstrapped() && c.names[cluster] == "" {
			c.names[cluster] = fmt.Sprintf("C%d", 1+c.named("C"))
		}
		ks := slices.Collect(s.Keys())
		slices.SortFunc(ks, func(a, b applier.Key) int { return int(a.Created) - int(b.Created) })
		for _, k := range ks {
			if letter := map[key.Purpose]string{key.Storage: "S", key.Raft: "R"}[k.Purpose]; c.names[k.ID.String()] == "" {
				c.names[k.ID.String()] = fmt.Sprintf("%s%d", letter, 1+c.named(letter))
			}
		}
	}
}

func (c *conversation) named(letter string) (n int) {
	for _, name := range c.names {
		if strings.HasPrefix(name, letter) {
			n++
		}
	}
	return n
}

var (
	long   = regexp.MustCompile(`\b([0-9a-f]{32}|[0-9]{2,20})\b`)
	since  = regexp.MustCompile(`since [0-9T:-]+Z`)
	pid    = regexp.MustCompile(`by process [0-9]+`)
	lowest = regexp.MustCompile(`collide: key [0-9]+:`) // of those that the registry has
)

// clean puts names in the place of numbers that are different each time.
func (c *conversation) clean(s string) string {
	c.baptize()
	s = pid.ReplaceAllString(s, "by another process")
	s = lowest.ReplaceAllString(s, "collide: key of the lowest id:")
	return long.ReplaceAllStringFunc(s, func(id string) string {
		switch name := c.names[id]; {
		case name != "":
			return name
		case len(id) > 6:
			return "?"
		}
		return id
	})
}

// news tells what became of entries since the last command.
func (c *conversation) news() {
	var before []string
	for i := uint64(1); i <= uint64(len(c.log)); i++ {
		byText := map[string][]string{}
		var texts []string
		for _, m := range c.members {
			text, ok := c.outcomes[i][m.name]
			if !ok {
				continue
			}
			if byText[text] == nil {
				texts = append(texts, text)
			}
			byText[text] = append(byText[text], m.name)
		}
		for _, text := range texts {
			if strings.HasSuffix(text, "no-op: "+applier.ErrReplayed.Error()) {
				before = append(before, strconv.FormatUint(i, 10))
				continue
			}
			halts := strings.HasPrefix(text, "halts")
			if text == c.told[i] && !halts {
				continue
			}
			who := ""
			if len(texts) > 1 || c.told[i] != "" || halts {
				who = strings.Join(byText[text], " ") + ": "
			}
			c.told[i] = text
			c.tell("%d: %s%s", i, who, text)
		}
		delete(c.outcomes, i)
	}
	if before != nil {
		c.tell("applied before: %s", strings.Join(before, " "))
	}
	for _, m := range c.members {
		if m.feeding {
			c.tell("%s waits at %d", m.name, m.disk.applied+1)
		}
	}
}
