package envelope

import (
	"fmt"
	"sync"

	"github.com/golang/snappy"
)

const (
	// minCompressed is the smallest plaintext that is worth compressing, in bytes.
	minCompressed = 32
	// maxExpansion is more than a Snappy block can grow: a copy of 64 bytes takes
	// at least 2 bytes.
	maxExpansion = 64
)

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

// openCompressed opens an envelope whose body is a Snappy block. A length that the
// block cannot have is refused before memory is allocated for it; so is one that no
// plaintext has.
func (c *Cipher) openCompressed(dst, env []byte, h Header, bind *binding) ([]byte, error) {
	p := bodies.Get().(*[]byte)
	body, err := c.openBody((*p)[:0], env, h, bind)
	if err != nil {
		bodies.Put(p)
		return nil, err
	}
	defer keepBody(p, body)
	n, err := snappy.DecodedLen(body)
	if err != nil || n > maxExpansion*len(body) {
		return nil, ErrIntegrity
	}
	if n > MaxPlaintext {
		return nil, fmt.Errorf("%w: a compressed plaintext of %d bytes, at most %d", ErrTooLarge, n, MaxPlaintext)
	}
	start := len(dst)
	dst = grow(dst, start+n)
	out, err := snappy.Decode(dst[start:start+n:start+n], body)
	if err != nil || len(out) != n {
		return nil, ErrIntegrity
	}
	return dst[:start+n], nil
}
