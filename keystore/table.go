package keystore

import (
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
	slots []atomic.Pointer[entry] // a power of two
	mult  uint32                  // odd
	shift uint8                   // keeps the upper bits of the product
	used  int
}

func newTable(slots int, mult uint32) *table {
	return &table{
		slots: make([]atomic.Pointer[entry], slots),
		mult:  mult,
		shift: uint8(33 - bits.Len(uint(slots))),
	}
}

// find returns the entry of id, or nil.
func (t *table) find(id key.ID) *entry {
	mask := uint32(len(t.slots) - 1)
	for i := uint32(id) * t.mult >> (t.shift & 31); ; i++ {
		e := t.slots[i&mask].Load()
		if e == nil || e.id == id {
			return e
		}
	}
}

// insert adds an entry whose id is not there yet and returns the table to use
// from now on.
func (t *table) insert(e *entry) *table {
	if 2*(t.used+1) > len(t.slots) {
		bigger := newTable(2*len(t.slots), t.mult)
		for old := range t.all() {
			bigger.put(old)
		}
		t = bigger
	}
	t.put(e)
	return t
}

func (t *table) put(e *entry) {
	mask := uint32(len(t.slots) - 1)
	i := uint32(e.id) * t.mult >> (t.shift & 31)
	for t.slots[i&mask].Load() != nil {
		i++
	}
	t.slots[i&mask].Store(e)
	t.used++
}

// all yields the entries in no order.
func (t *table) all() func(yield func(*entry) bool) {
	return func(yield func(*entry) bool) {
		for i := range t.slots {
			if e := t.slots[i].Load(); e != nil && !yield(e) {
				return
			}
		}
	}
}
