package atrest_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// What a conversation can say about the cluster, its log and its keys.

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
