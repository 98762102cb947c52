package keystore

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/atrestdb/atrest/key"
)

const minSlots = 16

// table finds entries by id: open addressing with linear probing, at most half
// full. Entries are never removed or replaced, so a reader needs no more than one
// atomic load for each slot it looks at, and an insertion into a table with room
// is one atomic store. Insertions are serialized by the caller.
type table struct {
	slots []slot // a power of two
	hash  hash
	shift uint8 // keeps as many upper bits of a hash as number the slots
	used  int
}

// slot is empty as long as its id is 0. The id is stored last: who sees it sees
// the entry.
type slot struct {
	id    atomic.Uint32
	entry *entry
}

// hash spreads ids. Ids come from outside, so it is another one in each store:
// nobody can choose ids that meet in one place.
type hash struct{ mask, mult uint64 }

func newHash() hash {
	var b [16]byte
	rand.Read(b[:])
	return hash{mask: binary.NativeEndian.Uint64(b[:]), mult: binary.NativeEndian.Uint64(b[8:]) | 1}
}

// of multiplies twice: a single product maps ids at equal distances to places at
// equal distances, which for an unlucky multiplier are a few places only.
func (h hash) of(id key.ID) uint64 {
	x := (uint64(id) ^ h.mask) * h.mult
	return (x ^ x>>32) * h.mult
}

func newTable(slots int, h hash) *table {
	return &table{
		slots: make([]slot, slots),
		hash:  h,
		shift: uint8(65 - bits.Len(uint(slots))),
	}
}

// find returns the entry of id, or nil.
func (t *table) find(id key.ID) *entry {
	for i := t.hash.of(id) >> (t.shift & 63); ; i++ {
		s := &t.slots[i&uint64(len(t.slots)-1)]
		switch key.ID(s.id.Load()) {
		case id:
			return s.entry // of id 0, which nobody inserts: nil
		case 0:
			return nil
		}
	}
}

// insert adds an entry whose id is not there yet and returns the table to use
// from now on.
func (t *table) insert(e *entry) *table {
	if 2*(t.used+1) > len(t.slots) {
		bigger := newTable(2*len(t.slots), t.hash)
		for i := range t.slots {
			if s := &t.slots[i]; s.entry != nil {
				bigger.put(key.ID(s.id.Load()), s.entry)
			}
		}
		t = bigger
	}
	t.put(e.id, e)
	return t
}

func (t *table) put(id key.ID, e *entry) {
	for i := t.hash.of(id) >> (t.shift & 63); ; i++ {
		if s := &t.slots[i&uint64(len(t.slots)-1)]; s.entry == nil {
			s.entry = e
			s.id.Store(uint32(id))
			t.used++
			return
		}
	}
}

// all yields the entries in no order.
func (t *table) all(yield func(*entry) bool) {
	for i := range t.slots {
		if s := &t.slots[i]; s.id.Load() != 0 && !yield(s.entry) {
			return
		}
	}
}
