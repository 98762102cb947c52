package sim

import (
	"bytes"
	"maps"
	"slices"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// model is the rules of the key state, written down a second time and as plainly
// as possible. It knows valid and invalid entries apart and what valid ones do.
type model struct {
	cluster  key.ClusterID
	keys     map[key.ID]*modelKey
	active   map[key.Purpose]key.ID
	cutovers map[key.Purpose]uint64
	writers  map[modelPlace]modelWriter
	gone     map[nodeid.ID]bool
	backups  map[applier.BackupID][]key.ID
}

type modelKey struct {
	purpose   key.Purpose
	state     key.State
	check     key.Check
	stopped   uint64
	container []byte
}

type modelPlace struct {
	key    key.ID
	node16 uint16
}

type modelWriter struct {
	node nodeid.ID
	last uint16
	load applier.LoadID
}

func newModel() *model {
	return &model{
		keys:     map[key.ID]*modelKey{},
		active:   map[key.Purpose]key.ID{},
		cutovers: map[key.Purpose]uint64{},
		writers:  map[modelPlace]modelWriter{},
		gone:     map[nodeid.ID]bool{},
		backups:  map[applier.BackupID][]key.ID{},
	}
}

// apply says what becomes of an entry, and does it.
func (m *model) apply(index uint64, payload []byte) applier.Kind {
	e, err := applier.Generation2.Parse(payload)
	if err != nil {
		return applier.Rejected
	}
	switch e := e.(type) {
	case applier.Registration:
		return m.register(e)
	case applier.Bootstrap:
		return m.bootstrap(e)
	case applier.Rotation:
		return m.rotate(e)
	case applier.Rewrap:
		return m.rewrap(e)
	case applier.Stop:
		return m.stop(index, e)
	case applier.Destroy:
		return m.destroy(e)
	case applier.WriterGone:
		return m.goneWriter(e)
	case applier.BackupAdd:
		return m.addBackup(e)
	case applier.BackupForget:
		if m.backups[e.Backup] == nil {
			return applier.NoOp
		}
		delete(m.backups, e.Backup)
		return applier.Applied
	case applier.EnableStorage:
		return m.enable(index, key.Storage, e.Key, e.Proposer)
	case applier.EnableRaft:
		return m.enable(index, key.Raft, e.Key, e.Proposer)
	}
	panic("sim: an entry that the model does not know")
}

// usable reports whether something may be sealed under a key.
func (m *model) usable(id key.ID) bool {
	k := m.keys[id]
	return k != nil && k.state != key.Stopped && k.state != key.Destroyed
}

func (m *model) register(e applier.Registration) applier.Kind {
	if !m.usable(e.Key) || e.Node == 0 || m.gone[e.Node] {
		return applier.Rejected
	}
	place := modelPlace{e.Key, e.Node.Node16()}
	w, ok := m.writers[place]
	switch {
	case ok && w.node != e.Node:
		return applier.Rejected
	case ok && e.Epoch == w.last && e.Load == w.load:
		return applier.NoOp
	case ok && e.Epoch <= w.last:
		return applier.Rejected
	}
	m.writers[place] = modelWriter{e.Node, e.Epoch, e.Load}
	return applier.Applied
}

func (m *model) bootstrap(e applier.Bootstrap) applier.Kind {
	s, err1 := key.ParseContainer(e.Storage.Wrap)
	r, err2 := key.ParseContainer(e.Raft.Wrap)
	if len(m.keys) > 0 {
		same := func(w applier.WrappedKey) bool {
			return m.keys[w.ID] != nil && bytes.Equal(m.keys[w.ID].container, w.Wrap)
		}
		if same(e.Storage) && same(e.Raft) {
			return applier.NoOp
		}
		return applier.Rejected
	}
	if err1 != nil || err2 != nil || s.Cluster != r.Cluster || s.Cluster == (key.ClusterID{}) || s.Check == r.Check ||
		s.ID != e.Storage.ID || r.ID != e.Raft.ID || s.ID == r.ID || s.Purpose != key.Storage || r.Purpose != key.Raft {
		return applier.Rejected
	}
	m.cluster = s.Cluster
	m.add(s.Header, e.Storage.Wrap)
	m.add(r.Header, e.Raft.Wrap)
	for _, w := range e.Writers {
		m.writers[modelPlace{w.Key, w.Node.Node16()}] = modelWriter{node: w.Node, last: w.Epoch}
	}
	return applier.Applied
}

// add makes a key the active one.
func (m *model) add(h key.Header, container []byte) {
	if old, ok := m.active[h.Purpose]; ok {
		m.keys[old].state = key.OpenOnly
	}
	m.keys[h.ID] = &modelKey{purpose: h.Purpose, state: key.Active, check: h.Check, container: container}
	m.active[h.Purpose] = h.ID
}

func (m *model) rotate(e applier.Rotation) applier.Kind {
	h, err := key.ParseContainer(e.Key.Wrap)
	if len(m.keys) == 0 || e.Proposer.Key != e.Key.ID {
		return applier.Rejected
	}
	if k := m.keys[e.Key.ID]; k != nil {
		if k.purpose == e.Purpose && bytes.Equal(k.container, e.Key.Wrap) {
			return applier.NoOp
		}
		return applier.Rejected
	}
	if err != nil || h.Cluster != m.cluster || h.ID != e.Key.ID || h.Purpose != e.Purpose || e.Proposer.Node == 0 || m.gone[e.Proposer.Node] {
		return applier.Rejected
	}
	for _, k := range m.keys {
		if k.check == h.Check {
			return applier.Rejected
		}
	}
	m.add(h.Header, e.Key.Wrap)
	m.writers[modelPlace{h.ID, e.Proposer.Node.Node16()}] = modelWriter{node: e.Proposer.Node, last: e.Proposer.Epoch}
	return applier.Applied
}

func (m *model) rewrap(e applier.Rewrap) applier.Kind {
	same := true
	for _, w := range e.Keys {
		k := m.keys[w.ID]
		h, err := key.ParseContainer(w.Wrap)
		if k == nil || k.state == key.Destroyed || err != nil ||
			h.Header != (key.Header{Cluster: m.cluster, ID: w.ID, Purpose: k.purpose, Check: k.check}) {
			return applier.Rejected
		}
		same = same && bytes.Equal(k.container, w.Wrap)
	}
	if same {
		return applier.NoOp
	}
	for _, w := range e.Keys {
		m.keys[w.ID].container = w.Wrap
	}
	return applier.Applied
}

func (m *model) stop(index uint64, e applier.Stop) applier.Kind {
	k := m.keys[e.Key]
	switch {
	case k == nil || k.state == key.Active:
		return applier.Rejected
	case k.state != key.OpenOnly:
		return applier.NoOp
	}
	k.state, k.stopped = key.Stopped, index
	return applier.Applied
}

func (m *model) destroy(e applier.Destroy) applier.Kind {
	k := m.keys[e.Key]
	switch {
	case k == nil:
		return applier.Rejected
	case k.state == key.Destroyed:
		return applier.NoOp
	case k.state != key.Stopped || k.stopped != e.Stopped || len(e.Members) == 0:
		return applier.Rejected
	}
	proved := map[nodeid.ID]bool{}
	for _, v := range e.Evidence {
		if v.Live > 0 || v.Taken < k.stopped || v.FirstLog <= k.stopped || v.OldestSnapshot > 0 && v.OldestSnapshot < k.stopped {
			return applier.Rejected
		}
		proved[v.Node] = true
	}
	needed := slices.Clone(e.Members)
	for place, w := range m.writers {
		if place.key == e.Key && !m.gone[w.node] {
			needed = append(needed, w.node)
		}
	}
	for _, n := range needed {
		if !proved[n] {
			return applier.Rejected
		}
	}
	for _, keys := range m.backups {
		if slices.Contains(keys, e.Key) {
			return applier.Rejected
		}
	}
	k.state, k.container = key.Destroyed, nil
	maps.DeleteFunc(m.writers, func(p modelPlace, _ modelWriter) bool { return p.key == e.Key })
	return applier.Applied
}

func (m *model) goneWriter(e applier.WriterGone) applier.Kind {
	switch {
	case e.Node == 0 || len(m.keys) == 0:
		return applier.Rejected
	case m.gone[e.Node]:
		return applier.NoOp
	}
	m.gone[e.Node] = true
	return applier.Applied
}

func (m *model) addBackup(e applier.BackupAdd) applier.Kind {
	if have, ok := m.backups[e.Backup]; ok {
		if slices.Equal(have, e.Keys) {
			return applier.NoOp
		}
		return applier.Rejected
	}
	for _, id := range e.Keys {
		if k := m.keys[id]; k == nil || k.state == key.Destroyed {
			return applier.Rejected
		}
	}
	m.backups[e.Backup] = e.Keys
	return applier.Applied
}

func (m *model) enable(index uint64, p key.Purpose, id key.ID, by applier.WriterRow) applier.Kind {
	place := modelPlace{id, by.Node.Node16()}
	w, ok := m.writers[place]
	switch {
	case len(m.keys) == 0:
		return applier.Rejected
	case m.cutovers[p] > 0:
		return applier.NoOp
	case m.active[p] != id || by.Key != id || by.Node == 0 || m.gone[by.Node] || ok && w.node != by.Node:
		return applier.Rejected
	}
	m.cutovers[p] = index
	if !ok || by.Epoch > w.last {
		m.writers[place] = modelWriter{node: by.Node, last: by.Epoch}
	}
	return applier.Applied
}

// differs says in what a state differs from the model, "" if in nothing.
func (m *model) differs(s *applier.State) string {
	if s.Len() != len(m.keys) {
		return "the number of keys"
	}
	rows := 0
	for k := range s.Keys() {
		want := m.keys[k.ID]
		if want == nil || want.purpose != k.Purpose || want.state != k.State || want.check != k.Check ||
			want.stopped != k.Stopped || !bytes.Equal(want.container, k.Container) {
			return "key " + k.ID.String()
		}
		for w := range s.Writers(k.ID) {
			rows++
			if m.writers[modelPlace{k.ID, w.Node.Node16()}] != (modelWriter{w.Node, w.Last, w.Load}) {
				return "the writers of key " + k.ID.String()
			}
		}
	}
	if rows != len(m.writers) {
		return "the number of writers"
	}
	for _, p := range []key.Purpose{key.Storage, key.Raft} {
		a, ok := s.Active(p)
		if id, want := m.active[p]; ok != want || a.ID != id {
			return "the active key of " + p.String()
		}
	}
	if s.StorageCutover().Index != m.cutovers[key.Storage] || s.RaftCutover().Index != m.cutovers[key.Raft] {
		return "a cutover"
	}
	for n := range m.gone {
		if !s.Gone(n) {
			return "the nodes that are gone"
		}
	}
	backups := 0
	for b := range s.Backups() {
		backups++
		if !slices.Equal(m.backups[b.ID], b.Keys) {
			return "a backup"
		}
	}
	if backups != len(m.backups) {
		return "the number of backups"
	}
	return ""
}
