// Package envelope turns one value into one sealed value, and back.
//
// A [Cipher] holds one DEK. It opens, and makes a [Sealer], which seals:
//
//	c, err := envelope.NewCipher(id, dek)
//	s, err := c.NewSealer(nil)
//	env, err := s.SealStorage(nil, plaintext, location)
//	plaintext, err = c.OpenStorage(nil, env, location)
//
// The location is whatever a host binds a value to, such as its database key: an
// envelope opens for the location it was sealed for and no other. Raft payloads
// are bound to a [RaftGroup] instead and never pass for values.
//
// # Format
//
// Numbers are big-endian.
//
//	0  version     1 byte, the Suite
//	1  flag        1 byte, 1 if the body is compressed
//	2  key id      4 bytes, not 0
//	6  nonce       12 bytes (0x01, 0x02) or 24 (0x03, 0x04)
//	.  ciphertext  as long as the body
//	.  tag         16 bytes
//
// The pairs of version and flag are 0x01/0, 0x02/1, 0x03/0, 0x03/1, 0x04/0 and
// 0x04/1; no other pair is an envelope. Suites 0x01 and 0x02 use the DEK itself,
// 0x03 and 0x04 its subkeys by HKDF-Expand under the labels "atrest/v2/xaes-256-gcm"
// and "atrest/v2/xchacha20-poly1305". A compressed body is a Snappy block.
//
// # Nonces
//
// No nonce comes from a caller, and nobody reads one back. A counted nonce (0x01)
// is node16, epoch and a 64-bit count that starts at a random value: it is this
// process's own as long as its [Writer] is, and the process is not cloned while it
// runs. An extended nonce (0x03) is a random 12-byte salt that serves at most 2^24
// seals, and 12 random bytes for each of them; that of 0x04 is 24 random bytes.
// They need no coordination at all. Under GODEBUG=fips140=only there is no sealing
// with 0x01 and 0x02 and no 0x04; all else works.
//
// Nothing here panics on bad data. The bytes are stable; docs/FORMATS.md draws
// them.
package envelope

import (
	"encoding/binary"
	"fmt"

	"github.com/atrestdb/atrest/key"
)

// Suite is the first byte of an envelope: the algorithm and with it the layout.
type Suite uint8

// The suites. Their numbers are part of the format.
const (
	AES256GCM         Suite = 0x01 // AES-256-GCM, counted 12-byte nonce
	AES256GCMSnappy   Suite = 0x02 // the same over a Snappy block
	XAES256GCM        Suite = 0x03 // XAES-256-GCM (C2SP), 24-byte nonce
	XChaCha20Poly1305 Suite = 0x04 // XChaCha20-Poly1305, 24-byte nonce
)

// Sizes and limits. They are part of the format.
const (
	HeaderSize   = 6       // version, flag, key id
	TagSize      = 16      // every suite's authentication tag
	MaxPlaintext = 1 << 30 // bytes in one envelope
	MaxLocation  = 1 << 20 // bytes of a location
	MaxGroup     = 255     // bytes of a Raft group's label
)

// NonceSize is the number of nonce bytes behind the header; 0 for an unknown
// suite.
func (s Suite) NonceSize() int {
	switch s {
	case AES256GCM, AES256GCMSnappy:
		return 12
	case XAES256GCM, XChaCha20Poly1305:
		return 24
	}
	return 0
}

// Overhead is the number of bytes that an envelope has beyond its body; 0 for
// an unknown suite.
func (s Suite) Overhead() int {
	if n := s.NonceSize(); n != 0 {
		return HeaderSize + n + TagSize
	}
	return 0
}

// String returns the algorithm's name.
func (s Suite) String() string {
	switch s {
	case AES256GCM:
		return "AES-256-GCM"
	case AES256GCMSnappy:
		return "AES-256-GCM+Snappy"
	case XAES256GCM:
		return "XAES-256-GCM"
	case XChaCha20Poly1305:
		return "XChaCha20-Poly1305"
	}
	return fmt.Sprintf("suite(0x%02x)", uint8(s))
}

// Header is the clear beginning of an envelope.
type Header struct {
	Suite Suite
	Flag  uint8 // 1: the body is compressed; 0x02 always, 0x01 never
	KeyID key.ID
}

// ParseHeader reads the header of an envelope, all of which must be given: it
// refuses one that is too short for its suite. Nothing is authenticated yet.
func ParseHeader(env []byte) (Header, error) {
	if len(env) < HeaderSize {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrShort, len(env))
	}
	h := headerOf(env)
	switch {
	case !h.legal():
		return Header{}, fmt.Errorf("%w: version 0x%02x, flag 0x%02x", ErrSuite, env[0], env[1])
	case h.KeyID == 0:
		return Header{}, key.ErrReservedID
	case len(env) < h.Suite.Overhead():
		return Header{}, fmt.Errorf("%w: %d bytes, want at least %d", ErrShort, len(env), h.Suite.Overhead())
	}
	return h, nil
}

// headerOf reads a header without looking at it.
func headerOf(env []byte) Header {
	_ = env[HeaderSize-1]
	return Header{Suite: Suite(env[0]), Flag: env[1], KeyID: key.ID(binary.BigEndian.Uint32(env[2:]))}
}

// legal reports whether the format has this pair of version and flag.
func (h Header) legal() bool {
	switch h.Suite {
	case AES256GCM:
		return h.Flag == 0
	case AES256GCMSnappy:
		return h.Flag == 1
	case XAES256GCM, XChaCha20Poly1305:
		return h.Flag <= 1
	}
	return false
}

// append appends the header's bytes.
func (h Header) append(dst []byte) []byte {
	id := h.KeyID
	return append(dst, byte(h.Suite), h.Flag, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}
