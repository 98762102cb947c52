package kek

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"fmt"

	"github.com/atrestdb/atrest/internal/secret"
)

// AES is a KEK held in memory: it wraps with AES-256-GCM and a random nonce,
// which works in every FIPS mode. It wraps keys of 32 bytes and nothing else.
type AES struct {
	id  string
	key gcm
}

const (
	idLabel = "atrest/v2/kek-id"
	idSize  = 8
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
	g, err := newGCM(secret.Bytes(k))
	if err != nil {
		return nil, err
	}
	id := kind + ":" + hex.EncodeToString(secret.Expand(k, idLabel, idSize))
	return &AES{id: id, key: g}, nil
}

// ID returns where the key came from, "file" or "env", and 16 hexadecimal digits
// derived from it.
func (a *AES) ID() string {
	if a == nil {
		return ""
	}
	return a.id
}

// held returns nil where there is no key, in a zero AES too.
func (a *AES) held() gcm {
	if a == nil {
		return nil
	}
	return a.key
}

// Wrap returns nonce, ciphertext and tag: 60 bytes.
func (a *AES) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	return a.held().wrap(ctx, plaintext, ad)
}

// Unwrap opens what Wrap made with the same ad.
func (a *AES) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	return a.held().unwrap(ctx, wrapped, ad)
}
