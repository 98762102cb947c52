package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"sync"
	"unsafe"
)

const (
	gcmNonceSize = 12
	gcmOverhead  = gcmNonceSize + TagSize
)

// aead is AES-256-GCM in one of two forms, or XChaCha20-Poly1305. The form that
// chooses its own nonces is the only one that strict FIPS mode allows; it has the
// nonce in front of the ciphertext, as an envelope does.
//
// It is held by pointer where a value that can be printed leads to it: fmt may
// print what one pointer points to, never two.
type aead struct {
	gcm    cipher.AEAD
	nonce  int  // bytes of it
	random bool // it chooses them
}

// fast reports whether it can be used without asking what form it has.
func (a *aead) fast() bool { return !a.random && a.nonce == gcmNonceSize }

func newAEAD(k []byte) (*aead, error) {
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	a := &aead{nonce: gcmNonceSize, random: fips140.Enforced()}
	if a.random {
		a.gcm, err = cipher.NewGCMWithRandomNonce(block)
	} else {
		a.gcm, err = cipher.NewGCM(block)
	}
	return a, err
}

// skip is how many bytes of nonce, ciphertext and tag the form does not want in
// front.
func (a *aead) skip() int {
	if a.random {
		return 0
	}
	return a.nonce
}

// open appends the plaintext to dst. sealed begins with the nonce or not, as the
// form wants it.
func (a *aead) open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	if a.random {
		nonce = nil
	}
	return a.gcm.Open(dst, nonce, sealed, aad)
}

// seal appends ciphertext and tag to dst, which ends with the nonce or, where the
// form chooses it, with room for it.
func (a *aead) seal(dst, plaintext, aad []byte) []byte {
	at := len(dst) - a.nonce
	if a.random {
		return a.gcm.Seal(dst[:at], nil, plaintext, aad)
	}
	return a.gcm.Seal(dst, dst[at:], plaintext, aad)
}

// scratch holds buffers for associated data that finds no room behind the
// output.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// grow returns dst, or a copy of it with capacity for size bytes. It is never
// nil.
func grow(dst []byte, size int) []byte {
	if dst != nil && size <= cap(dst) {
		return dst
	}
	return append(make([]byte, 0, size), dst...)
}

// overlap reports whether a and b share memory.
func overlap(a, b []byte) bool {
	p, q := uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return p < q+uintptr(len(b)) && q < p+uintptr(len(a)) // false if either is empty
}
