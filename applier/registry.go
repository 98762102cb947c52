package applier

import (
	"encoding/binary"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Mirror keeps a copy of the registry in the host's own store, in the form of
// generation 1. It is written and never read.
type Mirror interface {
	// SetRegistryRows stores the rows in one batch that is durable when it returns
	// nil. The slices are not kept.
	SetRegistryRows(rows []RegistryRow) error
}

// RegistryRow is a row of the registry in generation 1:
//
//	key    "!encryption|writers|" 20 | key id 4 | '|' | node16 2
//	value  full node id 8 | first epoch 2 | last epoch 2
type RegistryRow struct{ Key, Value []byte }

const (
	registryPrefix    = "!encryption|writers|"
	registryKeySize   = len(registryPrefix) + 4 + 1 + 2
	registryValueSize = 8 + 2 + 2
)

// ErrRegistryRow says that bytes are no row of the registry.
var ErrRegistryRow = errors.New("not a row of the writer registry")

// RegistryRows returns all rows of a state in the form of generation 1.
func RegistryRows(s *State) []RegistryRow { return RowsOf(s.writers) }

// RowsOf returns writers in the form of generation 1, which has no load id.
func RowsOf(writers []Writer) []RegistryRow {
	rows := make([]RegistryRow, 0, len(writers))
	for _, w := range writers {
		k := append(make([]byte, 0, registryKeySize), registryPrefix...)
		k = append(binary.BigEndian.AppendUint32(k, uint32(w.Key)), '|')
		k = binary.BigEndian.AppendUint16(k, w.Node.Node16())
		v := binary.BigEndian.AppendUint64(make([]byte, 0, registryValueSize), uint64(w.Node))
		v = binary.BigEndian.AppendUint16(v, w.First)
		v = binary.BigEndian.AppendUint16(v, w.Last)
		rows = append(rows, RegistryRow{Key: k, Value: v})
	}
	return rows
}

// IsRegistryKey reports whether a key of the host's store is that of a row.
func IsRegistryKey(k []byte) bool {
	return len(k) == registryKeySize && string(k[:len(registryPrefix)]) == registryPrefix && k[len(registryPrefix)+4] == '|'
}

// Writer reads a row of generation 1.
func (r RegistryRow) Writer() (Writer, error) {
	switch {
	case !IsRegistryKey(r.Key):
		return Writer{}, errors.Wrapf(ErrRegistryRow, "applier: the key %q", r.Key)
	case len(r.Value) != registryValueSize:
		return Writer{}, errors.Wrapf(ErrRegistryRow, "applier: a value of %d bytes, want %d", len(r.Value), registryValueSize)
	}
	w := Writer{
		Key:   key.ID(binary.BigEndian.Uint32(r.Key[len(registryPrefix):])),
		Node:  nodeid.ID(binary.BigEndian.Uint64(r.Value)),
		First: binary.BigEndian.Uint16(r.Value[8:]),
		Last:  binary.BigEndian.Uint16(r.Value[10:]),
	}
	if got := binary.BigEndian.Uint16(r.Key[registryKeySize-2:]); got != w.Node.Node16() {
		return Writer{}, errors.Wrapf(ErrRegistryRow, "applier: the row of node16 %d names node %s", got, w.Node)
	}
	if w.First > w.Last {
		return Writer{}, errors.Wrapf(ErrRegistryRow, "applier: a first epoch of %d above the last, %d", w.First, w.Last)
	}
	return w, nil
}
