package keystore

import (
	"cmp"
	"slices"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// KeyStatus describes one key at one moment. Of each purpose at most one key is
// active.
type KeyStatus struct {
	ID      key.ID
	Purpose key.Purpose
	State   key.State
	Suite   envelope.Suite // what the next seal uses; 0 unless active
	Usage   envelope.Usage
	Due     int // percent of its limits that is reached: 0, 90 or 100
}

// Status describes every key, by ascending id.
func (s *Store) Status() []KeyStatus {
	s.mu.Lock() // no change between two keys: at most one of a purpose is active
	defer s.mu.Unlock()
	var all []KeyStatus
	for e := range s.table.Load().all {
		k := KeyStatus{ID: e.id, Purpose: e.purpose, State: e.currentState()}
		k.Usage, k.Due = e.meter.used()
		if a := s.active[e.purpose].Load(); a != nil && a.entry == e {
			k.Suite = a.sealer.Suite()
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b KeyStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Active returns the active key of a purpose, if there is one.
func (s *Store) Active(p key.Purpose) (key.ID, bool) {
	if !p.Valid() {
		return 0, false
	}
	if a := s.active[p].Load(); a != nil {
		return a.entry.id, true
	}
	return 0, false
}

// Suite returns what the next seal for a purpose uses, 0 if no key is active.
func (s *Store) Suite(p key.Purpose) envelope.Suite {
	if !p.Valid() {
		return 0
	}
	if a := s.active[p].Load(); a != nil {
		return a.sealer.Suite()
	}
	return 0
}
