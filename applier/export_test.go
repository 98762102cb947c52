package applier

import (
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Fill returns a state with so many rows, nodes that are gone and backups more than s
// has, without applying the entries for them. Rows are of key id.
func Fill(s *State, id key.ID, writers, gone, backups int) *State {
	t := *s
	t.writers = nil
	for _, w := range s.writers {
		if w.Key != id {
			t.writers = append(t.writers, w)
		}
	}
	at, _ := t.findWriter(id, 0)
	var rows []Writer
	for i := range writers {
		rows = append(rows, Writer{Key: id, Node: nodeid.ID(i + 1), First: 1, Last: 2, Load: LoadID{byte(i), byte(i >> 8)}})
	}
	t.writers = append(append(append([]Writer{}, t.writers[:at]...), rows...), t.writers[at:]...)
	for i := range gone {
		t.gone = append(t.gone, nodeid.ID(1<<40)+nodeid.ID(i))
	}
	for i := range backups {
		t.backups = append(t.backups, Backup{ID: BackupID{0xff, byte(i >> 8), byte(i)}, Index: t.index, Keys: []key.ID{id}})
		t.needed++
	}
	return &t
}

// FillKeys returns a state with n more open-only keys, whose containers are made by f.
func FillKeys(s *State, n int, f func(i int) Key) *State {
	t := *s
	t.keys = append([]Key{}, s.keys...)
	for i := range n {
		k := f(i)
		t.keys = append(t.keys, k)
		t.containers += len(k.Container)
	}
	return &t
}

// Weigh sets how many bytes of containers a state has.
func Weigh(s *State, containers int) *State {
	t := *s
	t.containers = containers
	return &t
}

// Need sets how many keys backups need.
func Need(s *State, needed int) *State {
	t := *s
	t.needed = needed
	return &t
}
