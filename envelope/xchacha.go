package envelope

import (
	"crypto/fips140"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/atrestdb/atrest/internal/secret"
)

// xchachaLabel names the subkey of a DEK that suite 0x04 uses. It is part of the
// format.
const xchachaLabel = "atrest/v2/xchacha20-poly1305"

// xchacha returns the cipher's XChaCha20-Poly1305. Two first users may both make
// one; either will do.
func (c *Cipher) xchacha() (*aead, error) {
	if a := c.cha.Load(); a != nil {
		return a, nil
	}
	if fips140.Enforced() {
		return nil, fmt.Errorf("%w: %s under strict FIPS mode", ErrUnsupported, XChaCha20Poly1305)
	}
	x, err := chacha20poly1305.NewX(secret.Bytes(secret.Derive(c.dek, xchachaLabel)))
	if err != nil {
		return nil, fmt.Errorf("envelope: key %s: %w", c.id, err)
	}
	c.cha.CompareAndSwap(nil, &aead{gcm: x, nonce: chacha20poly1305.NonceSizeX})
	return c.cha.Load(), nil
}
