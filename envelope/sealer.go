package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/atrestdb/atrest/internal/secret"
)

// Usage counts seals and the plaintext bytes in them.
type Usage struct{ Seals, Bytes uint64 }

// Meter hands out the right to seal, in blocks, off the hot path. It must be
// safe for concurrent use and must not wait for I/O.
type Meter interface {
	// Reserve grants at least one seal and at most want.Seals. If the grant's
	// bytes do not suffice for the seal at hand, the sealer gives it back and
	// asks again for {1, the bytes of that seal}.
	Reserve(want Usage) (Usage, error)
	// Return takes back what a reservation did not use.
	Return(unused Usage)
}

// Writer is the part of a counted nonce that makes it this process's own.
type Writer struct{ Node16, Epoch uint16 }

// Sealer seals under one key. It is safe for concurrent use.
type Sealer struct {
	c       *Cipher
	m       Meter
	w       Writer
	counted bool

	mu      sync.Mutex
	count   uint64
	left    uint64
	unused  Usage
	stopped bool
}

// NewSealer returns a sealer with extended nonces (0x03). m may be nil.
func (c *Cipher) NewSealer(m Meter) (*Sealer, error) { return &Sealer{c: c, m: m}, nil }

// NewCountedSealer returns a sealer with counted nonces (0x01) of w, which must
// be this process's own. m may be nil.
func (c *Cipher) NewCountedSealer(w Writer, m Meter) (*Sealer, error) {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never returns an error.
	return &Sealer{
		c: c, m: m, w: w, counted: !fips140.Enforced(),
		count: binary.BigEndian.Uint64(b[:]), left: 1 << 48,
	}, nil
}

// SealStorage appends to dst the envelope of plaintext, bound to location.
func (s *Sealer) SealStorage(dst, plaintext, location []byte) ([]byte, error) {
	if len(location) > MaxLocation {
		return nil, ErrTooLarge
	}
	return s.seal(dst, plaintext, func(h Header) ([]byte, error) { return AppendStorageAAD(nil, h, location), nil })
}

// SealRaft appends to dst the envelope of payload, bound to the group.
func (s *Sealer) SealRaft(dst, payload []byte, g RaftGroup) ([]byte, error) {
	if len(g.Label) > MaxGroup {
		return nil, ErrTooLarge
	}
	return s.seal(dst, payload, func(h Header) ([]byte, error) { return AppendRaftAAD(nil, h, g), nil })
}

// SealRaftGeneration1 appends to dst the generation-1 envelope of payload. It
// fails unless the sealer has counted nonces.
func (s *Sealer) SealRaftGeneration1(dst, payload []byte) ([]byte, error) {
	if s.Suite() != AES256GCM {
		return nil, ErrUnsupported
	}
	return s.seal(dst, payload, func(h Header) ([]byte, error) { return AppendRaftAADGeneration1(nil, h) })
}

func (s *Sealer) seal(dst, plaintext []byte, aad func(Header) ([]byte, error)) ([]byte, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, ErrTooLarge
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, ErrStopped
	}
	if err := s.reserve(uint64(len(plaintext))); err != nil {
		return nil, err
	}
	h := Header{Suite: s.Suite(), KeyID: s.c.id}
	ad, err := aad(h)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, h.Suite.NonceSize())
	k := secret.Bytes(s.c.dek)
	if h.Suite == AES256GCM {
		binary.BigEndian.PutUint16(nonce, s.w.Node16)
		binary.BigEndian.PutUint16(nonce[2:], s.w.Epoch)
		binary.BigEndian.PutUint64(nonce[4:], s.count)
		s.count++
		s.left--
	} else {
		rand.Read(nonce) //nolint:errcheck // crypto/rand.Read never returns an error.
		b, err := aes.NewCipher(secret.Expand(s.c.dek, xaesLabel, 32))
		if err != nil {
			return nil, err
		}
		k = deriveXAES(b, nonce)
	}
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	env := append(appendHeader(nil, h), nonce...)
	if fips140.Enforced() {
		g, err := cipher.NewGCMWithRandomNonce(b)
		if err != nil {
			return nil, err
		}
		return append(dst, g.Seal(env[:len(env)-12], nil, plaintext, ad)...), nil
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		return nil, err
	}
	return append(dst, g.Seal(env, nonce[len(nonce)-12:], plaintext, ad)...), nil
}

func (s *Sealer) reserve(size uint64) error {
	if s.m == nil {
		return nil
	}
	if s.unused.Seals == 0 || s.unused.Bytes < size {
		s.m.Return(s.unused)
		s.unused = Usage{}
		u, err := s.m.Reserve(Usage{Seals: 1024, Bytes: max(size, 1<<26)})
		if err == nil && u.Bytes < size {
			s.m.Return(u)
			u, err = s.m.Reserve(Usage{Seals: 1, Bytes: size})
		}
		if err != nil {
			return fmt.Errorf("envelope: key %s: %w", s.c.id, err)
		}
		s.unused = u
		if u.Seals == 0 || u.Bytes < size {
			return ErrExhausted
		}
	}
	s.unused.Seals--
	s.unused.Bytes -= size
	return nil
}

// Stop ends sealing: after it returns no seal starts, and what was reserved but
// not used has gone back to the meter. It may be called again.
func (s *Sealer) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.m != nil && s.unused != (Usage{}) {
		s.m.Return(s.unused)
		s.unused = Usage{}
	}
}

// Unused returns what is reserved from the meter and not used yet.
func (s *Sealer) Unused() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unused
}

// Suite returns the suite of the next seal, best effort.
func (s *Sealer) Suite() Suite {
	if s.counted && s.left > 0 {
		return AES256GCM
	}
	return XAES256GCM
}
