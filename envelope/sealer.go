package envelope

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// Sealer seals under one DEK. It is safe for concurrent use.
//
// Its Seal methods append the envelope to dst and return the extended slice; on
// error they return nil. They use the whole capacity of dst as scratch space:
// cap it with a three-index slice if what follows matters. They allocate nothing
// when the envelope fits into dst. plaintext and location are only read, unless
// they lie in the spare capacity of dst, which is allowed: SealStorage(buf[:0],
// buf, location) seals in place if buf has capacity for the envelope.
type Sealer struct {
	c     *Cipher
	issue issuer
}

// Writer is the part of a counted nonce that only one process may use under one
// DEK, and only once: an epoch is above every earlier one.
type Writer struct{ Node16, Epoch uint16 }

// NewSealer returns a sealer with extended nonces, suite 0x03. They need no
// coordination with anybody. m may be nil.
func (c *Cipher) NewSealer(m Meter) (*Sealer, error) {
	s := &Sealer{c: c}
	s.issue.init(c, m)
	return s, nil
}

// NewCountedSealer returns a sealer with counted nonces, suite 0x01, under w,
// which must be the caller's own. After 2^48 nonces, and from the start where
// strict FIPS mode allows none, it goes on as one with extended nonces. m may be
// nil.
func (c *Cipher) NewCountedSealer(w Writer, m Meter) (*Sealer, error) {
	s := &Sealer{c: c}
	s.issue.init(c, m)
	if !c.gcm.random {
		// A random start keeps two processes apart that wrongly share w, such as a
		// disk and its copy.
		var b [8]byte
		rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never returns an error.
		s.issue.counted, s.issue.writer = true, w
		s.issue.start = binary.BigEndian.Uint64(b[:])
	}
	return s, nil
}

// SealStorage seals a value for location, at most MaxLocation bytes.
func (s *Sealer) SealStorage(dst, plaintext, location []byte) ([]byte, error) {
	if len(location) > MaxLocation {
		return nil, locationError(location)
	}
	return s.seal(dst, plaintext, &binding{kind: storage, location: location})
}

// SealRaft seals a Raft payload for the group.
func (s *Sealer) SealRaft(dst, payload []byte, g RaftGroup) ([]byte, error) {
	if len(g.Label) > MaxGroup {
		return nil, labelError(g.Label)
	}
	return s.seal(dst, payload, &binding{kind: raft, group: &g})
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
	return s.sealSlow(dst, payload, &binding{kind: raftGeneration1})
}

// seal is the way of nearly every seal: there is room, nothing is shared, and
// the block at hand has a nonce. Everything is written before the claim, because
// a locked instruction right after the stores is cheaper than one before them.
func (s *Sealer) seal(dst, plaintext []byte, bind *binding) ([]byte, error) {
	b := s.issue.shards[here()].block.Load()
	w := b.word.Load()
	start := len(dst) + b.head // of the ciphertext
	end := start + len(plaintext) + TagSize
	aadEnd := end + bind.size()
	if aadEnd > cap(dst) || len(plaintext) > MaxPlaintext || !b.fits(w, uint64(len(plaintext))) || b.aead.random {
		return s.sealSlow(dst, plaintext, bind)
	}
	if out := dst[len(dst):aadEnd]; overlap(out, plaintext) || overlap(out, bind.location) {
		return s.sealSlow(dst, plaintext, bind)
	}
	aad := dst[end:end]
	if bind.kind == storage {
		aad = AppendStorageAAD(aad, b.header, bind.location)
	} else {
		aad = bind.append(aad, b.header)
	}
	b.put(dst[len(dst):start], w&closed)
	if !b.word.CompareAndSwap(w, w+uint64(len(plaintext))<<16+1) {
		return s.sealSlow(dst, plaintext, bind)
	}
	return b.aead.gcm.Seal(dst[:start], dst[start-gcmNonceSize:start], plaintext, aad), nil
}

// sealSlow is seal for everything else. It copies the associated data and moves
// a plaintext that is in the way before it writes anything.
func (s *Sealer) sealSlow(dst, plaintext []byte, bind *binding) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("%w: plaintext of %d bytes, at most %d", ErrTooLarge, len(plaintext), MaxPlaintext)
	}
	b, i, err := s.issue.take(uint64(len(plaintext)))
	if err != nil {
		return nil, err
	}
	if bind.kind == raftGeneration1 && b.header.Suite != AES256GCM {
		return nil, fmt.Errorf("%w: key %s has no counted nonces left", ErrExhausted, s.c.id)
	}
	p := scratch.Get().(*[]byte)
	defer scratch.Put(p)
	*p = bind.append((*p)[:0], b.header)

	start := len(dst) + b.head
	dst = grow(dst, start+len(plaintext)+TagSize)
	if room := dst[:cap(dst)]; overlap(room[len(dst):], plaintext) {
		room = room[start-gcmNonceSize+b.aead.skip():]
		plaintext = room[:copy(room, plaintext)]
	}
	b.put(dst[len(dst):start], i)
	return b.aead.seal(dst[:start], plaintext, *p), nil
}

// Stop ends sealing: after it returns no seal starts, later ones return
// ErrStopped, and what was reserved and not used has gone back to the meter. It
// may be called more than once.
func (s *Sealer) Stop() { s.issue.stop() }

// Unused returns what is reserved from the meter and not used yet.
func (s *Sealer) Unused() Usage { return s.issue.unused() }

// Suite returns the suite of the next seal. Another seal may come first.
func (s *Sealer) Suite() Suite { return s.issue.suite() }
