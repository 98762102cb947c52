package applier_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Each file in testdata/conversations tells what a log does to the key state. An
// entry is answered with its outcome. Where the system whose data this library can
// take over does otherwise, a comment that begins with "Elsewhere" says so.
func TestConversations(t *testing.T) {
	datadriven.Walk(t, "testdata/conversations", func(t *testing.T, path string) {
		c := &conversation{}
		c.begin(applier.Generation2)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c.t, c.d = t, d
			out := c.run()
			requireForms(t, c.machine.State())
			return out
		})
	})
}

// conversation is a machine that is talked to, and the log so far.
type conversation struct {
	t       *testing.T
	d       *datadriven.TestData
	gen     applier.Generation
	machine *applier.Machine
	log     []logged
}

type logged struct {
	index uint64
	entry []byte
}

func (c *conversation) begin(g applier.Generation) {
	c.gen, c.machine, c.log = g, applier.NewMachine(applier.New(g)), nil
}

func (c *conversation) run() string {
	switch c.d.Cmd {
	case "generation":
		n, err := strconv.ParseUint(c.d.CmdArgs[0].Key, 10, 8)
		require.NoError(c.t, err)
		c.begin(applier.Generation(n))
		return ""
	case "state":
		return describe(c.machine.State())
	case "digest":
		s := c.machine.State()
		return fmt.Sprintf("index %d, %x", s.Index(), s.Digest())
	case "json":
		return string(c.machine.State().AppendJSON(nil))
	case "replay":
		return c.replay()
	case "raw":
		b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(c.d.Input), " ", ""))
		require.NoError(c.t, err)
		return c.apply(b)
	}
	b, err := c.gen.Append(nil, c.entry())
	if err != nil {
		return "no such entry: " + err.Error()
	}
	return c.apply(b)
}

func (c *conversation) entry() applier.Entry {
	id := key.ID(c.number("key", 0))
	switch c.d.Cmd {
	case "bootstrap":
		b := applier.Bootstrap{Storage: c.wrapped(key.ID(c.number("storage", 1)), key.Storage), Raft: c.wrapped(key.ID(c.number("raft", 2)), key.Raft)}
		for _, v := range c.values("rows") {
			var r applier.WriterRow
			_, err := fmt.Sscanf(v, "%d/%d/%d", &r.Key, &r.Node, &r.Epoch)
			require.NoError(c.t, err)
			b.Writers = append(b.Writers, r)
		}
		return b
	case "register":
		return applier.Registration{Key: id, Node: c.node(), Epoch: c.epoch(), Load: applier.LoadID{byte(c.number("load", 0))}}
	case "rotate":
		p := c.purpose()
		return applier.Rotation{Key: c.wrapped(id, p), Purpose: p, Proposer: c.row(id)}
	case "rewrap":
		return applier.Rewrap{Keys: []applier.WrappedKey{c.wrapped(id, c.purpose())}}
	case "stop":
		return applier.Stop{Key: id}
	case "destroy":
		return c.destroy(id)
	case "gone":
		return applier.WriterGone{Node: c.node()}
	case "backup-add":
		b := applier.BackupAdd{Backup: applier.BackupID{byte(c.number("backup", 0))}}
		for _, v := range c.values("keys") {
			b.Keys = append(b.Keys, key.ID(c.parse(v)))
		}
		return b
	case "backup-forget":
		return applier.BackupForget{Backup: applier.BackupID{byte(c.number("backup", 0))}}
	case "enable":
		if c.purpose() == key.Raft {
			return applier.EnableRaft{Key: id, Proposer: c.row(id)}
		}
		return applier.EnableStorage{Key: id, Proposer: c.row(id)}
	}
	c.d.Fatalf(c.t, "unknown command")
	return nil
}

// destroy has evidence of each node in "shown"; what it says is good, but for what
// the command says.
func (c *conversation) destroy(id key.ID) applier.Entry {
	stopped := c.number("stopped", 0)
	e := applier.Destroy{Key: id, Stopped: stopped}
	for _, v := range c.values("members") {
		e.Members = append(e.Members, nodeid.ID(c.parse(v)))
	}
	for _, v := range c.values("shown") {
		e.Evidence = append(e.Evidence, applier.Evidence{
			Node: nodeid.ID(c.parse(v)), Taken: c.number("taken", stopped), Live: c.number("live", 0),
			FirstLog: c.number("log", stopped+1), OldestSnapshot: c.number("snapshot", 0),
		})
	}
	return e
}

func (c *conversation) apply(b []byte) string {
	index := c.number("at", 1)
	if n := len(c.log); n > 0 && !c.d.HasArg("at") {
		index = c.log[n-1].index + 1
	}
	before := c.machine.State()
	o, err := c.machine.Apply(index, b)
	if err != nil {
		require.Same(c.t, before, c.machine.State())
		return fmt.Sprintf("%d: halt: %v", index, err)
	}
	if !c.d.HasArg("at") {
		c.log = append(c.log, logged{index, b})
	}
	if o.Kind != applier.Applied {
		require.Same(c.t, before, c.machine.State())
		return fmt.Sprintf("%d: %v: %v", index, o.Kind, o.Why)
	}
	text := fmt.Sprintf("%d: %v", index, o.Kind)
	if len(o.Keys) > 0 {
		text += fmt.Sprintf(", keys %v", o.Keys)
	}
	for _, w := range o.Writers {
		text += ", " + describeWriter(w)
	}
	if o.Registration != applier.NotRegistered {
		text += fmt.Sprintf(", %v", o.Registration)
	}
	return text
}

// replay applies the log again, to the present state and to a new one, from each of
// its entries on.
func (c *conversation) replay() string {
	want := c.machine.State()
	for from := range c.log {
		for _, l := range c.log[from:] {
			_, err := c.machine.Apply(l.index, l.entry)
			require.NoError(c.t, err)
		}
		require.Same(c.t, want, c.machine.State())

		again := applier.NewMachine(applier.New(c.gen))
		for _, l := range slices.Concat(c.log[:from], c.log) {
			_, err := again.Apply(l.index, l.entry)
			require.NoError(c.t, err)
		}
		require.Equal(c.t, want.AppendSnapshot(nil), again.State().AppendSnapshot(nil))
	}
	return "the same state"
}

func describe(s *applier.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "index %d\n", s.Index())
	for k := range s.Keys() {
		fmt.Fprintf(&b, "key %s: %v, %v, created %d", k.ID, k.Purpose, k.State, k.Created)
		for _, at := range []struct {
			name  string
			index uint64
		}{{"rewrapped", k.Rewrapped}, {"retired", k.Retired}, {"stopped", k.Stopped}, {"destroyed", k.Destroyed}} {
			if at.index != 0 {
				fmt.Fprintf(&b, ", %s %d", at.name, at.index)
			}
		}
		if k.Container == nil {
			b.WriteString(", no container")
		}
		b.WriteString("\n")
		for w := range s.Writers(k.ID) {
			fmt.Fprintf(&b, "  %s\n", describeWriter(w))
		}
	}
	if c := s.StorageCutover(); c.Active {
		fmt.Fprintf(&b, "storage cutover %d\n", c.Index)
	}
	if c := s.RaftCutover(); c.Active {
		fmt.Fprintf(&b, "raft cutover %d\n", c.Index)
	}
	for r := range s.Backups() {
		fmt.Fprintf(&b, "backup %d needs %v\n", r.ID[0], r.Keys)
	}
	return b.String()
}

func describeWriter(w applier.Writer) string {
	text := fmt.Sprintf("%s/%s epochs %d-%d", w.Key, w.Node, w.First, w.Last)
	if w.Load != (applier.LoadID{}) {
		text += fmt.Sprintf(" load %d", w.Load[0])
	}
	return text
}

// wrapped has a container, of which the command may change the wrap, the cluster,
// the id ("really") or the key itself ("same-as"), and in generation 1 some bytes.
func (c *conversation) wrapped(id key.ID, p key.Purpose) applier.WrappedKey {
	filler := c.text("wrap")
	if c.gen == applier.Generation1 {
		return applier.WrappedKey{ID: id, Wrap: []byte("the wrap of key " + id.String() + filler)}
	}
	if id == 0 {
		return applier.WrappedKey{}
	}
	of := cluster
	switch name := c.text("cluster"); {
	case name == "none":
		of = key.ClusterID{}
	case name != "":
		of = key.ClusterID([]byte(name + strings.Repeat(".", 16))[:16])
	}
	w := applier.WrappedKey{ID: id, Wrap: container(of, key.ID(c.number("really", uint64(id))), p, filler)}
	if c.d.HasArg("same-as") {
		k, err := key.ParseContainer(container(of, key.ID(c.number("same-as", 0)), p, filler))
		require.NoError(c.t, err)
		k.ID = id
		w.Wrap, err = k.Append(nil)
		require.NoError(c.t, err)
	}
	return w
}

func (c *conversation) purpose() key.Purpose {
	if c.d.HasArg("raft") {
		return key.Raft
	}
	return key.Storage
}

func (c *conversation) node() nodeid.ID { return nodeid.ID(c.number("node", 0)) }

func (c *conversation) epoch() uint16 { return uint16(c.number("epoch", 0)) }

func (c *conversation) row(id key.ID) applier.WriterRow {
	return applier.WriterRow{Key: key.ID(c.number("row", uint64(id))), Node: c.node(), Epoch: c.epoch()}
}

func (c *conversation) values(name string) []string {
	for _, a := range c.d.CmdArgs {
		if a.Key == name {
			return a.Vals
		}
	}
	return nil
}

func (c *conversation) text(name string) string { return strings.Join(c.values(name), " ") }

func (c *conversation) number(name string, otherwise uint64) uint64 {
	if !c.d.HasArg(name) {
		return otherwise
	}
	return c.parse(c.text(name))
}

func (c *conversation) parse(text string) uint64 {
	n, err := strconv.ParseUint(text, 0, 64)
	require.NoError(c.t, err)
	return n
}
