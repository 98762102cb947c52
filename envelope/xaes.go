package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"sync/atomic"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// XAES-256-GCM (C2SP): the first 12 bytes of the 24-byte nonce, the salt, select
// a message key; the other 12 are the AES-256-GCM nonce under it. One message
// key serves many messages here, because a salt does.

// xaesLabel names the subkey of a DEK that suite 0x03 uses. It is part of the
// format.
const xaesLabel = "atrest/v2/xaes-256-gcm"

const (
	saltSize  = 12
	saltSlots = 64 // message keys kept per DEK for opening
)

// xaes is XAES-256-GCM under one key, with the message keys of the salts it met
// last.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte
	slots [saltSlots]atomic.Pointer[salted]
}

// salted is the message key of one salt.
type salted struct {
	salt [saltSize]byte
	aead *aead
}

func newXAES(k key.DEK) (*xaes, error) {
	block, err := aes.NewCipher(secret.Bytes(k))
	if err != nil {
		return nil, err
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	// Doubling in GF(2^128), as for the subkeys of CMAC (NIST SP 800-38B).
	var carry byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		x.k1[i], carry = x.k1[i]<<1|carry, x.k1[i]>>7
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87
	return x, nil
}

// derive computes the message key of a salt: two CMAC calls in the counter mode
// of NIST SP 800-108, one block each.
func (x *xaes) derive(salt [saltSize]byte) (*salted, error) {
	var k [2 * aes.BlockSize]byte
	for i := range 2 {
		m := k[i*aes.BlockSize:][:aes.BlockSize]
		copy(m, []byte{0, byte(i + 1), 'X', 0})
		copy(m[4:], salt[:])
		for j := range m {
			m[j] ^= x.k1[j]
		}
		x.block.Encrypt(m, m)
	}
	a, err := newAEAD(k[:])
	if err != nil {
		return nil, err
	}
	return &salted{salt: salt, aead: a}, nil
}

// lookup returns the message key of the salt that nonce begins with, if it is at
// hand. Salts are random, so their first byte spreads them well enough.
func (x *xaes) lookup(nonce []byte) *salted {
	if m := x.slots[nonce[0]%saltSlots].Load(); m != nil && m.salt == [saltSize]byte(nonce) {
		return m
	}
	return nil
}

func (x *xaes) keep(m *salted) { x.slots[m.salt[0]%saltSlots].Store(m) }
