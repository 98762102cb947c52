package keystore

import (
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

const (
	MaxCount = maxCount
)

// Lookup does what Open does to find the key of an envelope.
func Lookup(s *Store, env []byte) bool {
	c, err := s.cipherOf(env, key.Storage)
	return err == nil && c != nil
}

// LookupAgain does what Open does when it found no key at first.
func LookupAgain(s *Store, env []byte) error {
	_, err := s.cipherNamed(env, key.Storage)
	return err
}

// Place is where the table of a store begins to look for an id.
func Place(s *Store, id key.ID) uint64 {
	t := s.table.Load()
	return t.hash.of(id) >> t.shift
}

// Probes returns how many slots a lookup of id looks at.
func Probes(s *Store, id key.ID) int {
	t := s.table.Load()
	for n := 1; ; n++ {
		switch found := t.slots[(t.hash.of(id)>>t.shift+uint64(n-1))%uint64(len(t.slots))].id.Load(); found {
		case uint32(id), 0:
			return n
		}
	}
}

// Slots returns the size of the table.
func Slots(s *Store) int { return len(s.table.Load().slots) }

// ShareHash gives a store that holds nothing yet the hash of another one.
func ShareHash(s, with *Store) { s.table.Store(newTable(minSlots, with.table.Load().hash)) }

// MeterOf returns what the sealers of a key account to.
func MeterOf(s *Store, id key.ID) envelope.Meter { return &s.table.Load().find(id).meter }

// HasStreamKey reports whether the subkey of a key's streams is in memory.
func HasStreamKey(s *Store, id key.ID) bool { return s.table.Load().find(id).streams.Load() != nil }

// BeginStreamKey does the first half of what derives the subkey of a key's streams, and
// returns the other half, before which the key may be destroyed.
func BeginStreamKey(s *Store, id key.ID) (finish func()) {
	e := s.table.Load().find(id)
	dek := e.dek.Load()
	return func() { e.keepStreamKey(dek) }
}
