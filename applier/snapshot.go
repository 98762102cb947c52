package applier

import (
	"bytes"
	"crypto/sha256"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// ErrForm says that bytes are not the form of a state.
var ErrForm = errors.New("not a key state")

// The binary form of a state. Numbers are big-endian, and a list begins with its
// length in 4 bytes.
//
//	a7 'S' 'T' 02 | generation 1 | cluster id 16 | index 8
//	storage cutover: active 1 | index 8
//	raft cutover:    active 1 | index 8
//	keys:    id 4 | purpose 1 | state 1 | check value 16
//	         created 8 | rewrapped 8 | retired 8 | stopped 8 | destroyed 8
//	         length of the container 4 | container
//	writers: key id 4 | full node id 8 | first epoch 2 | last epoch 2 | load id 16
//	gone:    full node id 8
//	backups: backup id 16 | index 8 | list of: key id 4
const (
	stateMagic = "\xa7ST\x02"

	keySize    = 4 + 1 + 1 + 16 + 5*8 + 4
	writerSize = 4 + 8 + 2 + 2 + 16
	backupSize = 16 + 8 + 4
)

// AppendSnapshot appends the binary form of the state to dst. Equal states have
// equal forms.
func (s *State) AppendSnapshot(dst []byte) []byte {
	w := writer{dst: append(dst, stateMagic...)}
	w.u8(byte(s.gen))
	w.dst = append(w.dst, s.cluster[:]...)
	w.u64(s.index)
	for _, c := range [...]Cutover{s.storage, s.raft} {
		w.bool(c.Active)
		w.u64(c.Index)
	}
	w.u32(uint32(len(s.keys)))
	for i := range s.keys {
		w.key(&s.keys[i])
	}
	w.u32(uint32(len(s.writers)))
	for i := range s.writers {
		w.writer(&s.writers[i])
	}
	w.u32(uint32(len(s.gone)))
	for _, n := range s.gone {
		w.u64(uint64(n))
	}
	w.u32(uint32(len(s.backups)))
	for _, b := range s.backups {
		w.dst = append(w.dst, b.ID[:]...)
		w.u64(b.Index)
		w.u32(uint32(len(b.Keys)))
		for _, id := range b.Keys {
			w.u32(uint32(id))
		}
	}
	return w.dst
}

func (w *writer) bool(v bool) {
	if v {
		w.u8(1)
	} else {
		w.u8(0)
	}
}

func (w *writer) key(k *Key) {
	w.u32(uint32(k.ID))
	w.u8(byte(k.Purpose))
	w.u8(byte(k.State))
	w.dst = append(w.dst, k.Check[:]...)
	for _, index := range [...]uint64{k.Created, k.Rewrapped, k.Retired, k.Stopped, k.Destroyed} {
		w.u64(index)
	}
	w.u32(uint32(len(k.Container)))
	w.dst = append(w.dst, k.Container...)
}

func (w *writer) writer(r *Writer) {
	w.u32(uint32(r.Key))
	w.u64(uint64(r.Node))
	w.u16(r.First)
	w.u16(r.Last)
	w.dst = append(w.dst, r.Load[:]...)
}

// Digest returns the SHA-256 of the binary form.
func (s *State) Digest() [sha256.Size]byte { return sha256.Sum256(s.AppendSnapshot(nil)) }

// Equal reports whether two states are the same.
func (s *State) Equal(o *State) bool {
	return s == o || s.index == o.index && bytes.Equal(s.AppendSnapshot(nil), o.AppendSnapshot(nil))
}

// ParseSnapshot reads the binary form of a state. It accepts only what
// AppendSnapshot makes of a state that entries can lead to. The result holds
// copies; on error it is nil.
func ParseSnapshot(b []byte) (*State, error) {
	if len(b) < len(stateMagic) || string(b[:len(stateMagic)]) != stateMagic {
		return nil, errors.Wrapf(ErrForm, "applier: %d bytes that do not begin as one does", len(b))
	}
	r := reader{b: b[len(stateMagic):]}
	s := r.state()
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes behind its end", len(r.b))
	}
	if r.err != nil {
		return nil, errors.Wrapf(ErrForm, "%v", r.err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

func (r *reader) state() *State {
	s := New(Generation(r.u8()))
	copy(s.cluster[:], r.take(len(s.cluster)))
	s.index = r.u64()
	s.storage, s.raft = r.cutover(), r.cutover()
	if n := r.count("keys", MaxKeys, keySize); n > 0 {
		s.keys = make([]Key, 0, n)
		for range n {
			s.keys = append(s.keys, r.key())
		}
	}
	if n := r.count("rows of the registry", MaxWriters, writerSize); n > 0 {
		s.writers = make([]Writer, 0, n)
		for range n {
			s.writers = append(s.writers, r.writer())
		}
	}
	for range r.count("nodes that are gone", MaxGone, 8) {
		s.gone = append(s.gone, nodeid.ID(r.u64()))
	}
	for range r.count("backups", MaxBackups, backupSize) {
		s.backups = append(s.backups, r.backupRow())
	}
	return s
}

func (r *reader) cutover() Cutover {
	active := r.u8()
	if active > 1 {
		r.fail("a cutover is neither in force nor not: %d", active)
	}
	return Cutover{Active: active == 1, Index: r.u64()}
}

func (r *reader) key() Key {
	k := Key{ID: key.ID(r.u32()), Purpose: key.Purpose(r.u8()), State: key.State(r.u8())}
	copy(k.Check[:], r.take(len(k.Check)))
	for _, index := range [...]*uint64{&k.Created, &k.Rewrapped, &k.Retired, &k.Stopped, &k.Destroyed} {
		*index = r.u64()
	}
	n := r.u32()
	if r.err == nil && n > key.MaxContainer {
		r.fail("a container of %d bytes", n)
	}
	if b := r.take(int(min(n, key.MaxContainer))); len(b) > 0 {
		k.Container = bytes.Clone(b)
	}
	return k
}

func (r *reader) writer() Writer {
	w := Writer{Key: key.ID(r.u32()), Node: nodeid.ID(r.u64()), First: r.u16(), Last: r.u16()}
	copy(w.Load[:], r.take(len(w.Load)))
	return w
}

func (r *reader) backupRow() Backup {
	b := Backup{ID: r.backup(), Index: r.u64()}
	for range r.count("keys of a backup", MaxKeys, 4) {
		b.Keys = append(b.Keys, key.ID(r.u32()))
	}
	return b
}
