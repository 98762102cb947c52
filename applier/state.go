package applier

import (
	"cmp"
	"iter"
	"slices"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// State is the replicated key state after some entry. It never changes and may be
// used by several goroutines; States share what did not change between them.
type State struct {
	gen     Generation
	cluster key.ClusterID
	index   uint64
	keys    []Key // ascending by id
	writers []Writer
	gone    []nodeid.ID // ascending
	backups []Backup    // ascending by id
	storage Cutover
	raft    Cutover

	containers int // bytes in all containers
	needed     int // keys that backups need, counted once for each
}

// Key is one key of a State.
type Key struct {
	ID        key.ID
	Purpose   key.Purpose
	State     key.State
	Container []byte    // not to be changed; nil once destroyed
	Check     key.Check // zero in generation 1
	// Indexes of the entries that did it; 0: none did.
	Created, Rewrapped, Retired, Stopped, Destroyed uint64
}

// Writer is a row of the registry: a node that may seal under a key. No two
// writers of a key share a node16.
type Writer struct {
	Key         key.ID
	Node        nodeid.ID
	First, Last uint16 // epochs
	Load        LoadID // that registered Last; zero if no registration did
}

// Backup is a backup that needs keys.
type Backup struct {
	ID    BackupID
	Keys  []key.ID // ascending; not to be changed
	Index uint64   // of the entry that registered it
}

// Cutover says since when something is sealed: for entries above Index. It is 0
// where that was so before this log began.
type Cutover struct {
	Active bool
	Index  uint64
}

// New returns the state before any entry.
func New(g Generation) *State { return &State{gen: g} }

// Generation returns the generation of the entries that the state is made of.
func (s *State) Generation() Generation { return s.gen }

// Cluster returns the cluster's id: zero before bootstrap, and in generation 1.
func (s *State) Cluster() key.ClusterID { return s.cluster }

// Index returns the index of the last entry that changed the state.
func (s *State) Index() uint64 { return s.index }

// Bootstrapped reports whether there are keys.
func (s *State) Bootstrapped() bool { return len(s.keys) > 0 }

// Len returns the number of keys, destroyed ones included.
func (s *State) Len() int { return len(s.keys) }

// Keys yields the keys by ascending id.
func (s *State) Keys() iter.Seq[Key] { return slices.Values(s.keys) }

// Key returns the key with an id.
func (s *State) Key(id key.ID) (Key, bool) {
	i, ok := s.find(id)
	if !ok {
		return Key{}, false
	}
	return s.keys[i], true
}

func (s *State) find(id key.ID) (int, bool) {
	return slices.BinarySearchFunc(s.keys, id, func(k Key, id key.ID) int { return cmp.Compare(k.ID, id) })
}

// Active returns the active key of a purpose.
func (s *State) Active(p key.Purpose) (Key, bool) {
	for i := range s.keys {
		if k := &s.keys[i]; k.State == key.Active && k.Purpose == p {
			return *k, true
		}
	}
	return Key{}, false
}

// Former returns the key of a purpose that was active immediately before the
// active one. It may be stopped or destroyed.
func (s *State) Former(p key.Purpose) (former Key, ok bool) {
	for i := range s.keys {
		if k := &s.keys[i]; k.Purpose == p && k.Retired > former.Retired {
			former, ok = *k, true
		}
	}
	return former, ok
}

// StorageCutover says since when values are sealed.
func (s *State) StorageCutover() Cutover { return s.storage }

// RaftCutover says since when log payloads are sealed.
func (s *State) RaftCutover() Cutover { return s.raft }

// Writer returns the row of a key and a node16.
func (s *State) Writer(id key.ID, node16 uint16) (Writer, bool) {
	i, ok := s.findWriter(id, node16)
	if !ok {
		return Writer{}, false
	}
	return s.writers[i], true
}

func (s *State) findWriter(id key.ID, node16 uint16) (int, bool) {
	return slices.BinarySearchFunc(s.writers, Writer{Key: id, Node: nodeid.ID(node16)}, compareWriters)
}

// compareWriters orders by key and node16.
func compareWriters(a, b Writer) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Node.Node16(), b.Node.Node16()))
}

// Writers yields the rows of a key by ascending node16.
func (s *State) Writers(id key.ID) iter.Seq[Writer] { return slices.Values(s.rows(id)) }

// rows are the writers of a key; not a copy.
func (s *State) rows(id key.ID) []Writer {
	from, _ := s.findWriter(id, 0)
	to := from
	for to < len(s.writers) && s.writers[to].Key == id {
		to++
	}
	return s.writers[from:to]
}

// Gone reports whether a node was marked as gone for good.
func (s *State) Gone(n nodeid.ID) bool {
	_, ok := slices.BinarySearch(s.gone, n)
	return ok
}

// Backups yields the registered backups by ascending id.
func (s *State) Backups() iter.Seq[Backup] { return slices.Values(s.backups) }

func (s *State) findBackup(id BackupID) (int, bool) {
	return slices.BinarySearchFunc(s.backups, id, func(b Backup, id BackupID) int { return slices.Compare(b.ID[:], id[:]) })
}

// Newer reports whether s is newer than o. A state without keys is older than any
// with keys, also than an imported one, whose index is 0.
func (s *State) Newer(o *State) bool {
	if s.Bootstrapped() != o.Bootstrapped() {
		return s.Bootstrapped()
	}
	return s.index > o.index
}
