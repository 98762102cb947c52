package kek

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/hex"
	"fmt"

	"github.com/atrestdb/atrest/internal/secret"
)

// AES is a KEK held in memory: it wraps with AES-256-GCM and a random nonce,
// which works in every FIPS mode. It wraps keys of 32 bytes and nothing else.
type AES struct {
	id string
	// A func prints as an address, whatever the verb; a cipher.AEAD holds the key
	// schedule, and fmt follows pointers.
	aead func() cipher.AEAD
}

const (
	idLabel  = "atrest/v2/kek-id"
	idSize   = 8
	wrapSize = 12 + secret.Size + 16 // nonce, ciphertext, tag
)

// newAES makes a KEK of 32 bytes, which it copies. The id begins with kind.
func newAES(kind string, raw []byte) (*AES, error) {
	k, err := secret.New(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadKey, err)
	}
	if subtle.ConstantTimeCompare(raw, make([]byte, len(raw))) == 1 {
		return nil, fmt.Errorf("%w: all bytes are zero", ErrBadKey)
	}
	block, err := aes.NewCipher(secret.Bytes(k))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	id := kind + ":" + hex.EncodeToString(secret.Expand(k, idLabel, idSize))
	return &AES{id: id, aead: func() cipher.AEAD { return aead }}, nil
}

// ID returns where the key came from, "file" or "env", and 16 hexadecimal digits
// derived from it.
func (a *AES) ID() string { return a.id }

// Wrap returns nonce, ciphertext and tag: 60 bytes.
func (a *AES) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if len(plaintext) != secret.Size {
		return nil, fmt.Errorf("kek: a key to wrap has %d bytes, want %d", len(plaintext), secret.Size)
	}
	return a.aead().Seal(make([]byte, 0, wrapSize), nil, plaintext, ad), nil
}

// Unwrap opens what Wrap made with the same ad.
func (a *AES) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if len(wrapped) != wrapSize {
		return nil, fmt.Errorf("%w: a wrap of %d bytes, want %d", ErrWrongKey, len(wrapped), wrapSize)
	}
	out, err := a.aead().Open(nil, nil, wrapped, ad)
	if err != nil {
		return nil, ErrWrongKey // or changed bytes: authentication does not tell
	}
	return out, nil
}
