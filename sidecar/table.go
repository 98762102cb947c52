package sidecar

import (
	"cmp"
	"slices"

	"github.com/atrestdb/atrest/key"
)

// table maps key ids to values, sorted by id. Zero values are not kept, so that
// equal tables are equal slices.
type table[V comparable] []row[V]

type row[V comparable] struct {
	id key.ID
	v  V
}

func (t table[V]) find(id key.ID) (int, bool) {
	return slices.BinarySearchFunc(t, id, func(r row[V], id key.ID) int { return cmp.Compare(r.id, id) })
}

// get returns the zero value for an id that is not there.
func (t table[V]) get(id key.ID) (v V) {
	if i, ok := t.find(id); ok {
		return t[i].v
	}
	return v
}

// put sets the value of id, which must not be zero, in place.
func (t *table[V]) put(id key.ID, v V) {
	i, ok := t.find(id)
	if !ok {
		*t = slices.Insert(*t, i, row[V]{id: id})
	}
	(*t)[i].v = v
}
