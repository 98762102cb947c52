package applier

import (
	"encoding/binary"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Parse reads an entry. The result holds copies. What a later version may mean is
// an [*UnknownError]; what no version means is [ErrMalformed]. On error the result
// is nil. What parses is written by Append with the same bytes.
func (g Generation) Parse(b []byte) (Entry, error) {
	if g != Generation1 && g != Generation2 {
		return nil, &UnknownError{What: "generation", Value: byte(g)}
	}
	if !g.IsEntry(b) {
		return nil, malformed("it does not begin as one does")
	}
	r := reader{b: b[len(g.magic()):], g: g, size: len(b)}
	e := r.entry()
	// Not before: an entry of a later version may be larger, and must stop us.
	if r.size > MaxEntry {
		r.fail("%d bytes, at most %d are allowed", r.size, MaxEntry)
	}
	if len(r.b) > 0 {
		r.fail("%d bytes behind its end", len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}

// reader takes the fields of an entry from the front of b. After an error it does
// nothing more.
type reader struct {
	b    []byte
	g    Generation
	size int // of the whole entry
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = malformed(format, args...)
	}
}

func (r *reader) unknown(what string, value byte) Entry {
	if r.err == nil {
		r.err = &UnknownError{What: what, Value: value}
	}
	return nil
}

// take returns the next n bytes, nil if there are not so many. They are not a
// copy.
func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail("it ends too early")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// count reads the number of things that follow, each of at least size bytes, so
// that nothing is allocated for what is not there.
func (r *reader) count(what string, limit, size int) int {
	n := r.u32()
	switch {
	case r.err != nil:
		return 0
	case n > uint32(limit):
		r.fail("%d %s, at most %d are allowed", n, what, limit)
		return 0
	case int(n)*size > len(r.b):
		r.fail("%d %s, and it ends too early", n, what)
		return 0
	}
	return int(n)
}

func (r *reader) entry() Entry {
	opcode := r.u8()
	switch {
	case r.err != nil:
		return nil
	case opcode < opcodeRegistration || opcode > opcodeRotation:
		return r.unknown("opcode", opcode)
	}
	version := r.u8()
	if r.err == nil && version != r.g.wireVersion() {
		return r.unknown("wire version", version)
	}
	switch opcode {
	case opcodeRegistration:
		return r.registration()
	case opcodeBootstrap:
		return r.bootstrap()
	default:
		return r.rotations()
	}
}

func (r *reader) registration() Entry {
	row := r.row()
	e := Registration{Key: row.Key, Node: row.Node, Epoch: row.Epoch}
	if r.g != Generation1 {
		copy(e.Load[:], r.take(len(e.Load)))
	}
	return e
}

const rowSize = 4 + 8 + 2

func (r *reader) row() WriterRow {
	return WriterRow{Key: key.ID(r.u32()), Node: nodeid.ID(r.u64()), Epoch: r.u16()}
}

func (r *reader) bootstrap() Entry {
	e := Bootstrap{Storage: r.wrapped(), Raft: r.wrapped()}
	e.Writers = list(r.count("rows of the registry", MaxBatch, rowSize), r.row)
	return e
}

func (r *reader) wrapped() WrappedKey {
	return WrappedKey{ID: key.ID(r.u32()), Wrap: r.wrap()}
}

// wrap is never nil, so that an empty one is told from none.
func (r *reader) wrap() []byte {
	n := r.u32()
	if r.err == nil && n > uint32(r.g.maxWrap()) {
		r.fail("a wrapped key of %d bytes, at most %d are allowed", n, r.g.maxWrap())
		return nil
	}
	b := r.take(int(n))
	if r.err != nil {
		return nil
	}
	return append(make([]byte, 0, len(b)), b...)
}

func (r *reader) rotations() Entry {
	switch tag := r.u8(); {
	case r.err != nil:
		return nil
	case tag == subRotateDEK || tag == subEnableStorage || tag == subEnableRaft:
		return r.rotation(tag)
	case tag == subRewrapDEKs && r.g != Generation1:
		return r.rewrap()
	case tag == subAct && r.g != Generation1:
		return r.act()
	default:
		return r.unknown("sub-tag", tag)
	}
}

func (r *reader) rotation(tag byte) Entry {
	id, p := key.ID(r.u32()), key.Purpose(r.u8())
	if r.err == nil && !p.Valid() {
		return r.unknown("purpose", byte(p))
	}
	k := WrappedKey{ID: id, Wrap: r.wrap()}
	proposer := r.row()
	if tag == subRotateDEK {
		return Rotation{Key: k, Purpose: p, Proposer: proposer}
	}
	if len(k.Wrap) > 0 {
		r.fail("an enabling entry with a wrapped key")
	}
	switch {
	case tag == subEnableStorage && p == key.Storage:
		return EnableStorage{Key: id, Proposer: proposer}
	case tag == subEnableRaft && p == key.Raft:
		return EnableRaft{Key: id, Proposer: proposer}
	}
	r.fail("an enabling entry with the purpose %v", p)
	return nil
}

func (r *reader) rewrap() Entry {
	if r.size > MaxRewrap {
		r.fail("%d bytes that rewrap keys, at most %d are allowed", r.size, MaxRewrap)
	}
	e := Rewrap{Keys: list(r.count("keys", MaxKeys, 4+4), r.wrapped)}
	if len(e.Keys) == 0 {
		r.fail("no keys to rewrap")
	}
	if !ascending(e.Keys, func(k WrappedKey) uint64 { return uint64(k.ID) }) {
		r.fail("keys that are not in ascending order")
	}
	return e
}

func (r *reader) act() Entry {
	switch act := r.u8(); {
	case r.err != nil:
		return nil
	case act == actStop:
		return Stop{Key: key.ID(r.u32())}
	case act == actDestroy:
		return r.destroy()
	case act == actWriterGone:
		return WriterGone{Node: nodeid.ID(r.u64())}
	case act == actBackupAdd:
		return r.backupAdd()
	case act == actBackupForget:
		return BackupForget{Backup: r.backup()}
	default:
		return r.unknown("act", act)
	}
}

func (r *reader) destroy() Entry {
	e := Destroy{Key: key.ID(r.u32()), Stopped: r.u64()}
	e.Members = list(r.count("members", MaxMembers, 8), func() nodeid.ID { return nodeid.ID(r.u64()) })
	e.Evidence = list(r.count("nodes with evidence", MaxMembers, 5*8), r.evidence)
	if !ascending(e.Members, func(m nodeid.ID) uint64 { return uint64(m) }) {
		r.fail("members that are not in ascending order")
	}
	if !ascending(e.Evidence, func(v Evidence) uint64 { return uint64(v.Node) }) {
		r.fail("evidence that is not in ascending order")
	}
	return e
}

func (r *reader) evidence() Evidence {
	return Evidence{Node: nodeid.ID(r.u64()), Taken: r.u64(), Live: r.u64(), FirstLog: r.u64(), OldestSnapshot: r.u64()}
}

func (r *reader) backupAdd() Entry {
	e := BackupAdd{Backup: r.backup()}
	e.Keys = list(r.count("keys", MaxKeys, 4), func() key.ID { return key.ID(r.u32()) })
	if !ascending(e.Keys, func(id key.ID) uint64 { return uint64(id) }) {
		r.fail("keys that are not in ascending order")
	}
	return e
}

func (r *reader) backup() (id BackupID) {
	copy(id[:], r.take(len(id)))
	return id
}

// list reads n things; nil if there are none.
func list[T any](n int, next func() T) []T {
	if n == 0 {
		return nil
	}
	out := make([]T, n)
	for i := range out {
		out[i] = next()
	}
	return out
}

// ascending reports whether every number is above the one before it.
func ascending[T any](list []T, number func(T) uint64) bool {
	for i := 1; i < len(list); i++ {
		if number(list[i]) <= number(list[i-1]) {
			return false
		}
	}
	return true
}
