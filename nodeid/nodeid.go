// Package nodeid turns the names of a cluster's members into numbers and finds
// the members that must not run together.
//
// [Derive] gives a member its 64-bit id. Its low 16 bits, [ID.Node16], stand in
// every counted nonce, so two members that share them could use one nonce twice.
// With n members that happens by chance to about n²/131,072 of all clusters:
// [Collisions] looks, and who forms a cluster asks it first.
package nodeid

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
)

// ID is the 64-bit id of a node. 0 names none.
type ID uint64

// The constants of 64-bit FNV-1a.
const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

// Derive returns the id of the node with this name: 64-bit FNV-1a of its bytes,
// or 1 where that is 0. The empty name has id 0.
func Derive(name string) ID {
	if name == "" {
		return 0
	}
	h := uint64(fnvOffset)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * fnvPrime
	}
	return ID(max(h, 1))
}

// Node16 returns the low 16 bits, which stand in counted nonces.
func (id ID) Node16() uint16 { return uint16(id & 0xffff) }

// String returns the id in decimal.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// Member is one member of a cluster. Name may be empty where only the id is
// known.
type Member struct {
	Name string
	ID   ID
}

// String returns name and id.
func (m Member) String() string {
	if m.Name == "" {
		return "node " + m.ID.String()
	}
	return fmt.Sprintf("node %q (%s)", m.Name, m.ID)
}

// same reports whether two entries of a list speak of one member: they have one
// name, or one id and not two names.
func (m Member) same(o Member) bool {
	if m.Name == "" || o.Name == "" {
		return m.ID == o.ID
	}
	return m.Name == o.Name
}

// Collision is a pair of members that share their node16, and so could repeat
// each other's nonces. One of them needs another name.
type Collision struct{ A, B Member }

// SameID reports whether all 64 bits are the same, not only the low 16.
func (c Collision) SameID() bool { return c.A.ID == c.B.ID }

// String says who collides and in what.
func (c Collision) String() string {
	if c.SameID() {
		return fmt.Sprintf("%s and %s have the same id", c.A, c.B)
	}
	return fmt.Sprintf("%s and %s share the 16-bit id %#04x", c.A, c.B, c.A.ID.Node16())
}

// Collisions returns every pair of different members that share a node16, in an
// order that does not depend on that of the list: by node16, then id, then name.
// Members with id 0 are ignored. Entries of the same name are one member, and so
// are an entry without a name and any other of its id. The list is not changed.
func Collisions(members []Member) []Collision {
	sorted := slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.ID == 0 })
	slices.SortFunc(sorted, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.ID.Node16(), b.ID.Node16()), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name))
	})
	sorted = slices.Compact(sorted)
	var out []Collision
	for i, a := range sorted {
		for _, b := range sorted[i+1:] {
			if a.ID.Node16() != b.ID.Node16() {
				break
			}
			if !a.same(b) {
				out = append(out, Collision{A: a, B: b})
			}
		}
	}
	return out
}
