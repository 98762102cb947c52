package applier_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// modelRun compares a state with rules that are written down a second time, in maps and
// without sharing anything.
type modelRun struct {
	state *applier.State

	keys     map[key.ID]modelKey
	rows     map[modelPlace]modelRow
	gone     map[nodeid.ID]bool
	backups  map[applier.BackupID][]key.ID
	cutovers map[key.Purpose]uint64
}

type modelKey struct {
	purpose key.Purpose
	state   key.State
	filler  string
	stopped uint64
}

type modelPlace struct {
	key    key.ID
	node16 uint16
}

type modelRow struct {
	node  nodeid.ID
	epoch uint16
	load  applier.LoadID
}

func newModelRun() *modelRun {
	return &modelRun{
		state: applier.New(applier.Generation2), keys: map[key.ID]modelKey{}, rows: map[modelPlace]modelRow{},
		gone: map[nodeid.ID]bool{}, backups: map[applier.BackupID][]key.ID{}, cutovers: map[key.Purpose]uint64{},
	}
}

// The names are few, so that they meet.
func drawID(t *rapid.T) key.ID { return key.ID(rapid.IntRange(1, 6).Draw(t, "id")) }

func drawNode(t *rapid.T) nodeid.ID {
	return rapid.SampledFrom([]nodeid.ID{11, 12, 13, 11 + 1<<16}).Draw(t, "node")
}

func purposeOf(id key.ID) key.Purpose {
	if id%2 == 0 {
		return key.Raft
	}
	return key.Storage
}

func (m *modelRun) active(p key.Purpose) key.ID {
	for id, k := range m.keys {
		if k.purpose == p && k.state == key.Active {
			return id
		}
	}
	return 0
}

// step draws an entry, says what becomes of it, and compares.
func (m *modelRun) step(t *rapid.T, index uint64) {
	e, want := m.draw(t, index)
	next, o, err := m.state.Apply(index, e)
	if err != nil {
		t.Fatal(err)
	}
	if o.Kind != want {
		t.Fatalf("%#v: %v (%v), want %v", e, o.Kind, o.Why, want)
	}
	if o.Kind != applier.Applied && next != m.state {
		t.Fatalf("%#v: %v, and another state", e, o.Kind)
	}
	m.state = next
}

func (m *modelRun) draw(t *rapid.T, index uint64) (applier.Entry, applier.Kind) {
	if len(m.keys) == 0 && rapid.IntRange(0, 3).Draw(t, "begin") > 0 {
		return m.bootstrap(t)
	}
	switch rapid.SampledFrom([]string{
		"bootstrap", "rotate", "rotate", "register", "register", "register", "rewrap", "stop", "stop", "destroy", "destroy",
		"gone", "backup", "forget", "storage", "raft",
	}).Draw(t, "entry") {
	case "bootstrap":
		return m.bootstrap(t)
	case "rotate":
		return m.rotate(t)
	case "register":
		return m.register(t)
	case "rewrap":
		return m.rewrap(t)
	case "stop":
		return m.stop(t, index)
	case "destroy":
		return m.destroy(t)
	case "gone":
		return m.writerGone(t)
	case "backup":
		return m.backup(t)
	case "forget":
		return m.forget(t)
	case "storage":
		return m.enable(t, key.Storage, index)
	default:
		return m.enable(t, key.Raft, index)
	}
}

func (m *modelRun) bootstrap(t *rapid.T) (applier.Entry, applier.Kind) {
	e := boot()
	for range rapid.IntRange(0, 3).Draw(t, "rows") {
		e.Writers = append(e.Writers, applier.WriterRow{Key: key.ID(rapid.IntRange(1, 2).Draw(t, "key")), Node: drawNode(t), Epoch: uint16(rapid.IntRange(0, 2).Draw(t, "epoch"))})
	}
	if len(m.keys) > 0 {
		one, two := m.keys[1], m.keys[2]
		if one.filler == "" && one.state != key.Destroyed && two.filler == "" && two.state != key.Destroyed {
			return e, applier.NoOp
		}
		return e, applier.Rejected
	}
	rows := map[modelPlace]modelRow{}
	for _, r := range e.Writers {
		place := modelPlace{r.Key, r.Node.Node16()}
		old, taken := rows[place]
		if taken && old.node != r.Node {
			return e, applier.Rejected
		}
		if !taken || r.Epoch > old.epoch {
			rows[place] = modelRow{node: r.Node, epoch: r.Epoch}
		}
	}
	m.rows = rows
	m.keys = map[key.ID]modelKey{1: {purpose: key.Storage, state: key.Active}, 2: {purpose: key.Raft, state: key.Active}}
	return e, applier.Applied
}

// mayWrite says whether a node may have a row, and whether it has one.
func (m *modelRun) mayWrite(id key.ID, n nodeid.ID) (may, has bool) {
	r, has := m.rows[modelPlace{id, n.Node16()}]
	return !m.gone[n] && (!has || r.node == n), has
}

func (m *modelRun) rotate(t *rapid.T) (applier.Entry, applier.Kind) {
	id, n := drawID(t), drawNode(t)
	p := purposeOf(id)
	e := applier.Rotation{Key: wrapped(id, p), Purpose: p, Proposer: applier.WriterRow{Key: id, Node: n, Epoch: 1}}
	k, known := m.keys[id]
	may, _ := m.mayWrite(id, n)
	switch {
	case len(m.keys) == 0:
		return e, applier.Rejected
	case known && k.filler == "" && k.state != key.Destroyed:
		return e, applier.NoOp
	case known || !may:
		return e, applier.Rejected
	}
	old := m.active(p)
	former := m.keys[old]
	former.state = key.OpenOnly
	m.keys[old] = former
	m.keys[id] = modelKey{purpose: p, state: key.Active}
	m.rows[modelPlace{id, n.Node16()}] = modelRow{node: n, epoch: 1}
	return e, applier.Applied
}

func (m *modelRun) register(t *rapid.T) (applier.Entry, applier.Kind) {
	e := registration(drawID(t), drawNode(t), uint16(rapid.IntRange(0, 3).Draw(t, "epoch")), byte(rapid.IntRange(1, 2).Draw(t, "load")))
	k, known := m.keys[e.Key]
	place := modelPlace{e.Key, e.Node.Node16()}
	r, has := m.rows[place]
	switch {
	case !known || k.state == key.Stopped || k.state == key.Destroyed || m.gone[e.Node]:
		return e, applier.Rejected
	case has && r.node != e.Node:
		return e, applier.Rejected
	case has && r.epoch == e.Epoch && r.load == e.Load:
		return e, applier.NoOp
	case has && r.epoch >= e.Epoch:
		return e, applier.Rejected
	}
	m.rows[place] = modelRow{e.Node, e.Epoch, e.Load}
	return e, applier.Applied
}

func (m *modelRun) rewrap(t *rapid.T) (applier.Entry, applier.Kind) {
	var e applier.Rewrap
	want, fillers := applier.NoOp, map[key.ID]string{}
	for id := key.ID(1); id <= 6; id++ {
		if rapid.IntRange(0, 2).Draw(t, "take") > 0 {
			continue
		}
		filler := rapid.SampledFrom([]string{"", "x", "yy"}).Draw(t, "filler")
		e.Keys = append(e.Keys, applier.WrappedKey{ID: id, Wrap: container(cluster, id, purposeOf(id), filler)})
		fillers[id] = filler
	}
	for id, filler := range fillers {
		k, known := m.keys[id]
		switch {
		case !known || k.state == key.Destroyed:
			return e, applier.Rejected
		case k.filler != filler:
			want = applier.Applied
		}
	}
	if len(m.keys) == 0 {
		return e, applier.Rejected
	}
	for id, filler := range fillers {
		k := m.keys[id]
		k.filler = filler
		m.keys[id] = k
	}
	return e, want
}

func (m *modelRun) stop(t *rapid.T, index uint64) (applier.Entry, applier.Kind) {
	e := applier.Stop{Key: drawID(t)}
	k, known := m.keys[e.Key]
	switch {
	case !known || k.state == key.Active:
		return e, applier.Rejected
	case k.state != key.OpenOnly:
		return e, applier.NoOp
	}
	k.state, k.stopped = key.Stopped, index
	m.keys[e.Key] = k
	return e, applier.Applied
}

func (m *modelRun) destroy(t *rapid.T) (applier.Entry, applier.Kind) {
	id := drawID(t)
	k, known := m.keys[id]
	e := applier.Destroy{Key: id, Stopped: k.stopped, Members: []nodeid.ID{11}}
	shown := map[nodeid.ID]bool{}
	for _, n := range []nodeid.ID{11, 12, 13, 11 + 1<<16} {
		if rapid.IntRange(0, 4).Draw(t, "shown") > 0 {
			e.Evidence = append(e.Evidence, evidence(k.stopped, n)...)
			shown[n] = true
		}
	}
	switch {
	case !known:
		return e, applier.Rejected
	case k.state == key.Destroyed:
		return e, applier.NoOp
	case k.state != key.Stopped || !shown[11]:
		return e, applier.Rejected
	}
	for place, r := range m.rows {
		if place.key == id && !shown[r.node] && !m.gone[r.node] {
			return e, applier.Rejected
		}
	}
	for _, keys := range m.backups {
		if slices.Contains(keys, id) {
			return e, applier.Rejected
		}
	}
	k.state, k.filler = key.Destroyed, ""
	m.keys[id] = k
	maps.DeleteFunc(m.rows, func(p modelPlace, _ modelRow) bool { return p.key == id })
	return e, applier.Applied
}

func (m *modelRun) writerGone(t *rapid.T) (applier.Entry, applier.Kind) {
	e := applier.WriterGone{Node: drawNode(t)}
	switch {
	case len(m.keys) == 0 || rapid.Bool().Draw(t, "spare"):
		e.Node = 0
		return e, applier.Rejected
	case m.gone[e.Node]:
		return e, applier.NoOp
	}
	m.gone[e.Node] = true
	return e, applier.Applied
}

func (m *modelRun) backup(t *rapid.T) (applier.Entry, applier.Kind) {
	e := applier.BackupAdd{Backup: applier.BackupID{byte(rapid.IntRange(1, 2).Draw(t, "backup"))}}
	for id := key.ID(1); id <= 4; id++ {
		if rapid.Bool().Draw(t, "needs") {
			e.Keys = append(e.Keys, id)
		}
	}
	have, known := m.backups[e.Backup]
	switch {
	case len(m.keys) == 0:
		return e, applier.Rejected
	case known && slices.Equal(have, e.Keys):
		return e, applier.NoOp
	case known:
		return e, applier.Rejected
	}
	for _, id := range e.Keys {
		if k, ok := m.keys[id]; !ok || k.state == key.Destroyed {
			return e, applier.Rejected
		}
	}
	m.backups[e.Backup] = e.Keys
	return e, applier.Applied
}

func (m *modelRun) forget(t *rapid.T) (applier.Entry, applier.Kind) {
	e := applier.BackupForget{Backup: applier.BackupID{byte(rapid.IntRange(1, 2).Draw(t, "backup"))}}
	_, known := m.backups[e.Backup]
	switch {
	case len(m.keys) == 0:
		return e, applier.Rejected
	case !known:
		return e, applier.NoOp
	}
	delete(m.backups, e.Backup)
	return e, applier.Applied
}

func (m *modelRun) enable(t *rapid.T, p key.Purpose, index uint64) (applier.Entry, applier.Kind) {
	row := applier.WriterRow{Key: drawID(t), Node: drawNode(t), Epoch: uint16(rapid.IntRange(0, 3).Draw(t, "epoch"))}
	var e applier.Entry = applier.EnableStorage{Key: row.Key, Proposer: row}
	if p == key.Raft {
		e = applier.EnableRaft{Key: row.Key, Proposer: row}
	}
	may, has := m.mayWrite(row.Key, row.Node)
	switch {
	case len(m.keys) == 0:
		return e, applier.Rejected
	case m.cutovers[p] != 0:
		return e, applier.NoOp
	case m.active(p) != row.Key || !may:
		return e, applier.Rejected
	}
	m.cutovers[p] = index
	place := modelPlace{row.Key, row.Node.Node16()}
	if !has || row.Epoch > m.rows[place].epoch {
		m.rows[place] = modelRow{node: row.Node, epoch: row.Epoch}
	}
	return e, applier.Applied
}

// check compares all of the state with the model.
func (m *modelRun) check(t *rapid.T) {
	if m.state.Len() != len(m.keys) {
		t.Fatalf("%d keys, want %d", m.state.Len(), len(m.keys))
	}
	rows := 0
	for k := range m.state.Keys() {
		want := m.keys[k.ID]
		if k.Purpose != want.purpose || k.State != want.state || k.Stopped != want.stopped {
			t.Fatalf("key %s: %+v, want %+v", k.ID, k, want)
		}
		for w := range m.state.Writers(k.ID) {
			r := m.rows[modelPlace{k.ID, w.Node.Node16()}]
			if w.Node != r.node || w.Last != r.epoch || w.Load != r.load || w.First > w.Last {
				t.Fatalf("key %s: %+v, want %+v", k.ID, w, r)
			}
			rows++
		}
	}
	if rows != len(m.rows) {
		t.Fatalf("%d rows, want %d", rows, len(m.rows))
	}
	for n := range m.gone {
		if !m.state.Gone(n) {
			t.Fatalf("node %s is not gone", n)
		}
	}
	if got := m.state.StorageCutover().Index; got != m.cutovers[key.Storage] {
		t.Fatalf("storage cutover at %d", got)
	}
	if got := m.state.RaftCutover().Index; got != m.cutovers[key.Raft] {
		t.Fatalf("Raft cutover at %d", got)
	}
	backups := maps.Collect(func(yield func(applier.BackupID, []key.ID) bool) {
		for b := range m.state.Backups() {
			if !yield(b.ID, b.Keys) {
				return
			}
		}
	})
	if len(backups) != len(m.backups) {
		t.Fatalf("%d backups, want %d", len(backups), len(m.backups))
	}
}

// Random entries, decided twice.
func TestAgainstModel(t *testing.T) {
	kinds := map[applier.Kind]int{}
	rapid.Check(t, func(rt *rapid.T) {
		m := newModelRun()
		index := uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"entry": func(rt *rapid.T) {
				before := m.state
				index++
				m.step(rt, index)
				if m.state != before {
					kinds[applier.Applied]++
				} else {
					kinds[applier.Rejected]++
				}
			},
		})
	})
	require.Positive(t, kinds[applier.Applied])
	require.Positive(t, kinds[applier.Rejected])
}
