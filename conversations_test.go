package atrest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
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
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
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
		bubble(t, func(t *testing.T) {
			c := &conversation{
				world: newWorld(t), names: map[string]string{},
				later: map[string][]byte{}, disks: map[string]saved{}, told: map[uint64]string{},
			}
			defer c.end()
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				return c.run(d)
			})
		})
	})
}

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

func (c *conversation) start(_ *member) error {
	for _, name := range c.words() {
		m := c.member(name)
		c.configure(m)
		if err := c.startOne(m); err != nil {
			return err
		}
	}
	return nil
}

func (c *conversation) startOne(m *member) error {
	err := m.open(m.hadKeys() && !c.has("no-hint"))
	if err == nil {
		c.settle()
		err = m.readied()
	}
	if err != nil {
		c.tell("%s does not start: %s: %s", m.name, kindOf(err), err)
	}
	return nil
}

// entry commits an entry, or keeps it for later as it would stand in the log.
func (c *conversation) entry(m *member, entry []byte, err error) error {
	if err != nil {
		return err
	}
	return c.payload(m, entry)
}

func (c *conversation) payload(m *member, payload []byte) error {
	data := payload
	if !c.has("in-clear") {
		var err error
		if data, err = m.node.Raft().Seal(nil, payload); err != nil {
			return err
		}
	}
	if name := c.arg("later"); name != "" {
		c.later[name] = data
		return nil
	}
	c.append(data)
	return nil
}

func (c *conversation) bootstrap(m *member) error {
	ids := c.ids()
	if known := c.args("of"); known != nil {
		ids = members(known)
	}
	e, err := m.node.NewBootstrap(c.t.Context(), ids)
	return c.entry(m, e, err)
}

func purpose(c *conversation) key.Purpose {
	if c.has("raft") {
		return key.Raft
	}
	return key.Storage
}

func (c *conversation) rotate(m *member) error {
	e, err := m.node.NewRotation(c.t.Context(), purpose(c))
	if err != nil {
		return err
	}
	for _, name := range c.args("prepared") {
		if err := c.member(name).node.Prepare(c.t.Context(), e); err != nil {
			c.tell("%s is not prepared: %s: %s", name, kindOf(err), err)
		}
	}
	return c.payload(m, e)
}

func (c *conversation) enable(m *member) error {
	build := m.node.NewEnableStorage
	if c.has("raft") {
		build = m.node.NewEnableRaft
	}
	e, err := build()
	return c.entry(m, e, err)
}

func (c *conversation) rewrap(m *member) error {
	es, err := m.node.NewRewrap(c.t.Context())
	for _, e := range es {
		if err := c.payload(m, e); err != nil {
			return err
		}
	}
	return err
}

func (c *conversation) stopKey(m *member) error {
	e, err := m.node.NewStop(c.key(c.words()[1]))
	return c.entry(m, e, err)
}

// destroy collects evidence from all members that run, and from absent ones what is
// said of them.
func (c *conversation) destroy(m *member) error {
	id := c.key(c.words()[1])
	var (
		ids      []nodeid.ID
		evidence []applier.Evidence
	)
	for _, o := range c.members {
		if slices.Contains(c.args("without"), o.name) {
			continue
		}
		ids = append(ids, nodeid.Derive(o.name))
		if o.node == nil {
			continue
		}
		e := applier.Evidence{Node: nodeid.Derive(o.name), Taken: o.disk.applied, FirstLog: o.disk.first}
		if o.disk.snap != nil {
			e.OldestSnapshot = o.disk.snap.applied
		}
		for _, v := range o.disk.store {
			if h, err := envelope.ParseHeader(v.out); v.sealed && err == nil && h.KeyID == id {
				e.Live++
			}
		}
		evidence = append(evidence, e)
	}
	e, err := m.node.NewDestroy(id, ids, evidence)
	return c.entry(m, e, err)
}

func (c *conversation) gone(m *member) error {
	e, err := m.node.NewWriterGone(nodeid.Derive(c.words()[1]))
	return c.entry(m, e, err)
}

func backupID(c *conversation) (id applier.BackupID) {
	copy(id[:], c.words()[1])
	return id
}

func (c *conversation) backup(m *member) error {
	e, err := m.node.NewBackup(backupID(c))
	return c.entry(m, e, err)
}

func (c *conversation) forgetBackup(m *member) error {
	e, err := m.node.NewBackupForgotten(backupID(c))
	return c.entry(m, e, err)
}

// craft commits an entry that no builder makes.
func (c *conversation) craft(m *member) error {
	if c.arg("bytes") != "" {
		var b []byte
		_, err := fmt.Sscanf(c.arg("bytes"), "%x", &b)
		require.NoError(c.t, err)
		return c.payload(m, append([]byte("\xa7EN\x02"), b...))
	}
	e, err := applier.Generation2.Append(nil, c.crafted(m))
	return c.entry(m, e, err)
}

func (c *conversation) crafted(m *member) applier.Entry {
	id, node := key.ID(0), nodeid.ID(0)
	if c.arg("key") != "" {
		id = c.key(c.arg("key"))
	}
	if name := c.arg("node"); name != "" {
		node = nodeid.Derive(name)
	}
	switch what := c.words()[1]; what {
	case "registration":
		return applier.Registration{Key: id, Node: node, Epoch: uint16(c.number("epoch")), Load: applier.LoadID{9}}
	case "rotation": // to a key that is there already, by its own container or another's
		k, _ := m.node.State().Key(id)
		w := applier.WrappedKey{ID: id, Wrap: k.Container}
		if from := c.arg("container"); from != "" {
			other, _ := m.node.State().Key(c.key(from))
			w.Wrap = other.Container
		}
		if to := c.arg("under"); to != "" {
			w.ID = c.key(to)
		}
		return applier.Rotation{Key: w, Purpose: purpose(c), Proposer: applier.WriterRow{Key: w.ID, Node: m.node.ID()}}
	case "strange-rotation": // wrapped for a KEK that no member has
		set := must(kek.NewSet(kektest.New("kms:strange")))
		s := m.node.State()
		w := applier.WrappedKey{ID: 12345678}
		w.Wrap = must(set.WrapDEK(c.t.Context(), s.Cluster(), w.ID, purpose(c), key.NewDEK()))
		return applier.Rotation{Key: w, Purpose: purpose(c), Proposer: applier.WriterRow{Key: w.ID, Node: m.node.ID()}}
	case "enable-storage":
		return applier.EnableStorage{Key: id, Proposer: applier.WriterRow{Key: id, Node: node, Epoch: uint16(c.number("epoch"))}}
	case "writer-gone":
		return applier.WriterGone{Node: node}
	case "stop":
		return applier.Stop{Key: id}
	default:
		c.t.Fatalf("%s: cannot craft %s", c.d.Pos, what)
		return nil
	}
}

func (c *conversation) put(m *member) error {
	return c.payload(m, []byte("put "+c.words()[1]+" "+c.words()[2]))
}

func (c *conversation) get(_ *member) error {
	ws := c.words()
	k := ws[len(ws)-1]
	for _, name := range ws[:len(ws)-1] {
		v, err := c.member(name).get(k)
		if err != nil {
			c.tell("%s: %s: %s", name, kindOf(err), err)
			continue
		}
		c.tell("%s: %s", name, v)
	}
	return nil
}

// seal seals a value outside the log, with a context that ends at once if it has to
// wait.
func (c *conversation) seal(m *member) error {
	ctx, cancel := contextOver(c.t)
	defer cancel()
	out, sealed, err := m.node.Storage().SealContext(ctx, nil, []byte("v"), []byte("k"))
	if err != nil {
		return err
	}
	c.used(m.name, out, sealed)
	c.tell("%s", how(m, value{out, sealed}))
	return nil
}

// stored tells how members have stored a value.
func (c *conversation) stored(_ *member) error {
	ws := c.words()
	for _, name := range ws[:len(ws)-1] {
		m := c.member(name)
		c.tell("%s: %s", name, how(m, m.disk.store[ws[len(ws)-1]]))
	}
	return nil
}

// how says how a value is stored, as far as anybody can see. A counted nonce begins
// with the writer's place and epoch.
func how(_ *member, v value) string {
	if !v.sealed {
		return "in clear"
	}
	h := must(envelope.ParseHeader(v.out))
	if h.Suite != envelope.AES256GCM {
		return fmt.Sprintf("under %s with random nonces", h.KeyID)
	}
	return fmt.Sprintf("under %s with counted nonces of epoch %d", h.KeyID, int(v.out[8])<<8|int(v.out[9]))
}

func (c *conversation) state(_ *member) error {
	for _, name := range c.words() {
		m := c.member(name)
		s := m.node.State()
		c.tell("%s: cluster %s at %d", name, s.Cluster(), s.Index())
		ks := slices.Collect(s.Keys())
		c.baptize()
		slices.SortFunc(ks, func(a, b applier.Key) int { return strings.Compare(c.names[a.ID.String()], c.names[b.ID.String()]) })
		for _, k := range ks {
			var rows []string
			for row := range s.Writers(k.ID) {
				rows = append(rows, fmt.Sprintf("%s %d-%d", row.Node, row.First, row.Last))
			}
			slices.SortFunc(rows, func(a, b string) int { return strings.Compare(c.clean(a), c.clean(b)) })
			c.tell("  %s %v; writers %s", k.ID, k.State, strings.Join(rows, ", "))
		}
		if cut := s.StorageCutover(); cut.Active {
			c.tell("  values sealed above %d", cut.Index)
		}
		if cut := s.RaftCutover(); cut.Active {
			c.tell("  payloads sealed above %d", cut.Index)
		}
	}
	return nil
}

// epochs tells what this load of a node has of its active keys.
func (c *conversation) epochs(_ *member) error {
	for _, name := range c.words() {
		m := c.member(name)
		for _, p := range []key.Purpose{key.Storage, key.Raft} {
			k := m.status(m.active(p))
			registered := "not registered"
			if k.Registered {
				registered = "registered"
			}
			c.tell("%s: %s epoch %d, %s", name, k.ID, k.Epoch, registered)
		}
	}
	return nil
}

func (c *conversation) status(m *member) error {
	st := m.node.Status()
	if st.Serving {
		c.tell("serving")
	}
	for _, w := range st.Waiting {
		c.tell("waiting: %s", since.ReplaceAllString(w, "since a while"))
	}
	for _, k := range st.Keys {
		if k.Due > 0 {
			c.tell("%s: %d percent of its limits", k.ID, k.Due)
		}
	}
	return nil
}

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
