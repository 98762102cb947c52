package envelope

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/golang/snappy"
)

// minCompressed is the smallest plaintext that is worth compressing, in bytes.
const minCompressed = 32

// bodies holds buffers for compressed plaintexts.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled bounds the buffers that are kept.
const maxPooled = 1 << 20

func keepBody(p *[]byte, b []byte) {
	if cap(b) <= maxPooled {
		*p = b[:0]
		bodies.Put(p)
	}
}

// compressed is the header of an envelope with a compressed body, where h is that of
// one without.
func (h Header) compressed() Header {
	if h.Suite == AES256GCM {
		h.Suite = AES256GCMSnappy
	}
	h.Flag = 1
	return h
}

// sealCompressed seals a plaintext as a Snappy block if that is smaller, and as it
// is if not.
func (s *Sealer) sealCompressed(dst, plaintext []byte, bind *binding) ([]byte, error) {
	if err := bind.check(); err != nil {
		return nil, err
	}
	if len(plaintext) > MaxPlaintext {
		return nil, fmt.Errorf("%w: plaintext of %d bytes, at most %d", ErrTooLarge, len(plaintext), MaxPlaintext)
	}
	p := bodies.Get().(*[]byte)
	room := (*p)[:cap(*p)]
	if n := snappy.MaxEncodedLen(len(plaintext)); n > len(room) {
		room = make([]byte, n)
	}
	defer keepBody(p, room)
	body := snappy.Encode(room, plaintext)
	if len(body) >= len(plaintext) {
		return s.seal(here(), dst, plaintext, bind)
	}
	b, w, err := s.issue.take(here(), len(plaintext))
	if err != nil {
		return nil, err
	}
	return b.seal(dst, body, w, b.header.compressed(), bind), nil
}

// openCompressed opens an envelope whose body is a Snappy block.
func (c *Cipher) openCompressed(dst, env []byte, h Header, bind *binding) ([]byte, error) {
	p := bodies.Get().(*[]byte)
	body, err := c.openBody((*p)[:0], env, h, bind)
	if err != nil {
		bodies.Put(p)
		return nil, err
	}
	defer keepBody(p, body)
	n, err := decodedLen(body)
	if err != nil {
		return nil, err
	}
	start := len(dst)
	dst = grow(dst, start+n)
	out, err := snappy.Decode(dst[start:start+n:start+n], body)
	if err != nil || len(out) != n {
		return nil, ErrIntegrity
	}
	return dst[:start+n], nil
}

// decodedLen returns the length that a Snappy block says it has. It refuses one that
// the block cannot have, and one that no plaintext has, so that nobody allocates
// memory for it.
func decodedLen(body []byte) (int, error) {
	n, size := binary.Uvarint(body)
	switch {
	case size <= 0 || n > maxDecoded(len(body)-size):
		return 0, ErrIntegrity
	case n > MaxPlaintext:
		return 0, fmt.Errorf("%w: a compressed plaintext of %d bytes, at most %d", ErrTooLarge, n, MaxPlaintext)
	}
	return int(n), nil
}

// maxDecoded returns the most that Snappy elements of so many bytes make. The first
// is a literal, of 2 bytes for one: before it there is nothing to copy. Then a copy of
// 3 bytes makes up to 64. One byte that is left makes the literal longer by one, two
// are a short copy of up to 11. In 64 bits, because 32 hold no product of a length.
func maxDecoded(elements int) uint64 {
	if elements < 2 {
		return 0
	}
	n := uint64(elements - 2)
	return 1 + n/3*64 + [...]uint64{0, 1, 11}[n%3]
}
