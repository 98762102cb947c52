package kek

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"github.com/atrestdb/atrest/internal/secret"
)

const wrapSize = 12 + secret.Size + 16 // nonce, ciphertext, tag

// gcm wraps keys of 32 bytes, and nothing else, with AES-256-GCM and a random
// nonce. A func prints as an address, whatever the verb; a cipher.AEAD holds the
// key schedule, and fmt follows pointers.
type gcm func() cipher.AEAD

func newGCM(raw []byte) (gcm, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return func() cipher.AEAD { return aead }, nil
}

// wrap returns nonce, ciphertext and tag.
func (g gcm) wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	if err := checkPlaintext(plaintext); err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errZero
	}
	return g().Seal(make([]byte, 0, wrapSize), nil, plaintext, ad), nil
}

func (g gcm) unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := ended(ctx); err != nil {
		return nil, err
	}
	if err := checkWrap(wrapped, wrapSize); err != nil {
		return nil, err
	}
	if g == nil {
		return nil, errZero
	}
	out, err := g().Open(nil, nil, wrapped, ad)
	if err != nil {
		return nil, ErrWrongKey // or changed bytes: authentication does not tell
	}
	return out, nil
}

func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return nil
}

func checkPlaintext(b []byte) error {
	if len(b) != secret.Size {
		return fmt.Errorf("kek: a key to wrap has %d bytes, want %d", len(b), secret.Size)
	}
	return nil
}

func checkWrap(b []byte, size int) error {
	if len(b) != size {
		return fmt.Errorf("%w: a wrap of %d bytes, want %d", ErrWrongKey, len(b), size)
	}
	return nil
}
