package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/atrestdb/atrest/internal/pinned"
)

// Sealer seals under one DEK. It is safe for concurrent use.
//
// Its Seal methods append the envelope to dst and return the extended slice; on
// error they return nil. They use the whole capacity of dst as scratch space:
// cap it with a three-index slice if what follows matters. They allocate nothing
// when the envelope fits into dst; room for the location behind it is faster.
// plaintext and location are only read, unless they lie in the spare capacity of
// dst, which is allowed: SealStorage(buf[:0], buf, location) seals in place if buf
// has capacity for the envelope.
type Sealer struct {
	c        *Cipher
	issue    issuer
	compress bool
}

// SealerOption sets how a Sealer seals.
type SealerOption func(*Sealer)

// WithCompression makes values that get smaller by it Snappy blocks before they are
// sealed: suite 0x02, or suites 0x03 and 0x04 with their flag. Values of less than 32
// bytes are left as they are, and so are Raft payloads. The length of an envelope then
// tells something about the value's content, beyond its length: do not compress where
// an attacker chooses a part of a value and sees how long it gets.
func WithCompression() SealerOption { return func(s *Sealer) { s.compress = true } }

// WithXChaCha takes suite 0x04 in place of 0x03 for extended nonces: faster on
// processors that have no instructions for AES. Strict FIPS mode refuses it.
func WithXChaCha() SealerOption { return func(s *Sealer) { s.issue.chacha = true } }

// Writer is the part of a counted nonce that only one process may use under one
// DEK, and only once: an epoch is above every earlier one.
type Writer struct{ Node16, Epoch uint16 }

// Usage counts seals and the plaintext bytes in them.
type Usage struct{ Seals, Bytes uint64 }

func (u Usage) add(v Usage) Usage { return Usage{u.Seals + v.Seals, u.Bytes + v.Bytes} }

// Meter grants the right to seal, many seals at a time. A sealer calls it from
// the goroutine that seals, about once in a thousand seals, and holds no lock
// meanwhile. It must be safe for concurrent use and must not wait for I/O.
type Meter interface {
	// Reserve grants at least one seal and at most want.Seals, and any number of
	// bytes. If it fails, or the bytes do not suffice for the seal at hand, the
	// sealer returns all that it holds unused and asks for this one seal alone; if
	// that fails too, so does the seal.
	Reserve(want Usage) (Usage, error)
	// Return takes back what of earlier grants was not used.
	Return(unused Usage)
}

// NewSealer returns a sealer with extended nonces, suite 0x03 unless an option says
// otherwise. They are safe with nobody's help. m may be nil.
func (c *Cipher) NewSealer(m Meter, opts ...SealerOption) (*Sealer, error) {
	s := &Sealer{c: c}
	s.issue.init(c, m)
	for _, o := range opts {
		o(s)
	}
	var err error
	if s.issue.chacha {
		_, err = c.xchacha()
	} else {
		_, err = c.extended()
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// NewCountedSealer returns a sealer with counted nonces, suite 0x01, under w,
// which must be the caller's own. After 2^48 nonces it goes on with extended
// ones, and where strict FIPS mode is in force it has no others. m may be nil.
//
// A count lies in memory. Who may be cloned or set back to a snapshot while
// running, as a virtual machine can, takes NewSealer, whose nonces are safe then.
func (c *Cipher) NewCountedSealer(w Writer, m Meter, opts ...SealerOption) (*Sealer, error) {
	if c.gcm.random {
		return c.NewSealer(m, opts...)
	}
	s := &Sealer{c: c}
	s.issue.init(c, m)
	for _, o := range opts {
		o(s)
	}
	s.issue.counted, s.issue.writer = true, w
	s.issue.start = randomStart()
	return s, nil
}

// randomStart keeps apart what wrongly shares a Writer, such as a disk and its
// copy.
func randomStart() uint64 {
	if n, ok := pinned.Start(); ok {
		return n // in a test that looks for the sharing
	}
	var start [8]byte
	rand.Read(start[:])
	return binary.BigEndian.Uint64(start[:])
}

// SealStorage seals a value for location, at most MaxLocation bytes.
func (s *Sealer) SealStorage(dst, plaintext, location []byte) ([]byte, error) {
	if s.compress && len(plaintext) >= minCompressed {
		return s.sealCompressed(dst, plaintext, &binding{kind: storage, location: location})
	}
	i, b, w := s.issue.current()
	start, end := b.layout(dst, plaintext)
	aadEnd := end + HeaderSize + len(location)
	if aadEnd > cap(dst) || len(location) > MaxLocation || !b.fast(w, plaintext) {
		return s.seal(i, dst, plaintext, &binding{kind: storage, location: location})
	}
	if out := dst[len(dst):aadEnd]; overlap(out, plaintext) || overlap(out, location) {
		return s.seal(i, dst, plaintext, &binding{kind: storage, location: location})
	}
	aad := AppendStorageAAD(dst[end:end], b.header, location)
	b.put(dst[len(dst):start], w)
	if !b.claim(w, len(plaintext)) {
		return s.seal(i, dst, plaintext, &binding{kind: storage, location: location})
	}
	return b.aead.gcm.Seal(dst[:start], dst[start-gcmNonceSize:start], plaintext, aad), nil
}

// SealRaft seals a Raft payload for the group.
func (s *Sealer) SealRaft(dst, payload []byte, g RaftGroup) ([]byte, error) {
	i, b, w := s.issue.current()
	start, end := b.layout(dst, payload)
	aadEnd := end + g.aadSize()
	if aadEnd > cap(dst) || len(g.Label) > MaxGroup || !b.fast(w, payload) || overlap(dst[len(dst):aadEnd], payload) {
		return s.seal(i, dst, payload, &binding{kind: raft, group: &g})
	}
	aad := appendRaftAAD(dst[end:end], b.header, &g)
	b.put(dst[len(dst):start], w)
	if !b.claim(w, len(payload)) {
		return s.seal(i, dst, payload, &binding{kind: raft, group: &g})
	}
	return b.aead.gcm.Seal(dst[:start], dst[start-gcmNonceSize:start], payload, aad), nil
}

// SealRaftGeneration1 seals a Raft payload of generation 1, which has suite 0x01
// only: it returns ErrUnsupported from a sealer without counted nonces, and
// ErrExhausted once they are used up.
func (s *Sealer) SealRaftGeneration1(dst, payload []byte) ([]byte, error) {
	if !s.issue.counted {
		return nil, fmt.Errorf("%w: a generation-1 Raft payload needs counted nonces", ErrUnsupported)
	}
	if s.Suite() != AES256GCM {
		return nil, fmt.Errorf("%w: key %s has no counted nonces left", ErrExhausted, s.c.id)
	}
	return s.seal(here(), dst, payload, &binding{kind: raftGeneration1})
}

// seal seals every plaintext that can be sealed, into any dst. It copies the
// associated data, and moves a plaintext that is in the way, before it writes
// anything.
func (s *Sealer) seal(shard int, dst, plaintext []byte, bind *binding) ([]byte, error) {
	if err := bind.check(); err != nil {
		return nil, err
	}
	if len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("%w: plaintext of %d bytes, at most %d", ErrTooLarge, len(plaintext), MaxPlaintext)
	}
	b, w, err := s.issue.take(shard, len(plaintext))
	if err != nil {
		return nil, err
	}
	if bind.kind == raftGeneration1 && b.header.Suite != AES256GCM {
		return nil, fmt.Errorf("%w: key %s has no counted nonces left", ErrExhausted, s.c.id)
	}
	return b.seal(dst, plaintext, w, b.header, bind), nil
}

// seal seals what was claimed with the word w, under a header that is the block's but
// for what it says of compression.
func (b *block) seal(dst, plaintext []byte, w uint64, h Header, bind *binding) []byte {
	p := scratch.Get().(*[]byte)
	defer scratch.Put(p)
	*p = bind.append((*p)[:0], h)

	start, end := b.layout(dst, plaintext)
	dst = grow(dst, end)
	if room := dst[:cap(dst)]; overlap(room[len(dst):], plaintext) {
		room = room[start-b.aead.nonce+b.aead.skip():]
		plaintext = room[:copy(room, plaintext)]
	}
	b.put(dst[len(dst):start], w)
	h.append(dst[len(dst):])
	return b.aead.seal(dst[:start], plaintext, *p)
}

// Stop ends sealing: after it returns no seal starts, later ones return
// ErrStopped, and what was reserved and not used has gone back to the meter. It
// may be called more than once.
func (s *Sealer) Stop() { s.issue.stop() }

// Unused returns what is reserved from the meter and not used yet.
func (s *Sealer) Unused() Usage { return s.issue.unused() }

// Suite returns the suite of the next seal. Another seal may come first.
func (s *Sealer) Suite() Suite { return s.issue.suite() }
