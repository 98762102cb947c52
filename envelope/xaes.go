package envelope

import (
	"crypto/aes"
	"crypto/cipher"
)

const saltSize = 12

// deriveXAES returns the message key of XAES-256-GCM for a salt, the first half
// of the nonce.
func deriveXAES(block cipher.Block, salt []byte) []byte {
	var k1, m [aes.BlockSize]byte
	block.Encrypt(k1[:], k1[:])
	var carry byte
	for i := len(k1) - 1; i >= 0; i-- {
		k1[i], carry = k1[i]<<1|carry, k1[i]>>7
	}
	k1[len(k1)-1] ^= carry * 0x87
	out := make([]byte, 32)
	for i := range 2 {
		m = [aes.BlockSize]byte{0, byte(i + 1), 'X', 0}
		copy(m[4:], salt)
		for j := range m {
			m[j] ^= k1[j]
		}
		block.Encrypt(out[16*i:], m[:])
	}
	return out
}
