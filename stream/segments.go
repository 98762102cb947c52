package stream

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/rand"
	"encoding/binary"
)

const (
	nonceSize = 12
	tagSize   = 16
)

// segments seals and opens segments under the key of one stream. It is safe for
// concurrent use, and held by pointer where a value that can be printed leads to
// it: fmt may print what one pointer points to, never two.
//
// The form of AES-GCM that chooses its own nonces is the only one that strict FIPS
// mode allows; it has the nonce in front of the ciphertext, as a segment does.
type segments struct {
	gcm    cipher.AEAD
	random bool // gcm chooses nonces
	draw   bool // so does seal
}

func newSegments(k []byte) (*segments, error) {
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	s := &segments{random: fips140.Enforced()}
	if s.random {
		s.gcm, err = cipher.NewGCMWithRandomNonce(block)
	} else {
		s.gcm, err = cipher.NewGCM(block)
	}
	return s, err
}

// plain returns where in the buffer of a segment n bytes of plaintext lie so that
// they can be sealed in place.
func (s *segments) plain(buf []byte, n int) []byte {
	if s.random {
		return buf[:n]
	}
	return buf[nonceSize : nonceSize+n]
}

// aad is the associated data of a segment: its number, and whether it is the last.
type aad [9]byte

func (a *aad) set(number uint64, last bool) []byte {
	binary.BigEndian.PutUint64(a[:], number)
	a[8] = 0
	if last {
		a[8] = 1
	}
	return a[:]
}

// seal seals a segment into buf and returns it. plaintext is either what plain
// returned for buf or shares no memory with it. Nobody seals two segments under one
// number: the number is the nonce.
func (s *segments) seal(buf, plaintext []byte, a *aad, number uint64, last bool) []byte {
	ad := a.set(number, last)
	if s.random {
		return s.gcm.Seal(buf[:0], nil, plaintext, ad)
	}
	if s.draw {
		rand.Read(buf[:nonceSize])
	} else {
		clear(buf[:4])
		binary.BigEndian.PutUint64(buf[4:], number)
	}
	return s.gcm.Seal(buf[:nonceSize], buf[:nonceSize], plaintext, ad)
}

// open opens a segment into dst, which shares no memory with it, or in place where
// dst is nil. A segment that does not open leaves nothing of what is in it.
func (s *segments) open(dst, sealed []byte, a *aad, number uint64, last bool) ([]byte, error) {
	ad := a.set(number, last)
	var nonce []byte
	if !s.random {
		nonce, sealed = sealed[:nonceSize], sealed[nonceSize:]
	}
	if dst == nil {
		dst = sealed
	}
	out, err := s.gcm.Open(dst[:0], nonce, sealed, ad)
	if err != nil {
		return nil, ErrIntegrity
	}
	return out, nil
}
