package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

const xaesLabel = "atrest/v2/xaes-256-gcm"

// Cipher opens what was sealed under one DEK, and makes sealers for it. It is
// safe for concurrent use.
type Cipher struct {
	id  key.ID
	dek key.DEK
}

// NewCipher returns the cipher of the DEK with this id.
func NewCipher(id key.ID, dek key.DEK) (*Cipher, error) {
	if id == 0 {
		return nil, key.ErrReservedID
	}
	if dek.IsZero() {
		return nil, fmt.Errorf("envelope: key %s: %w", id, errors.New("zero DEK"))
	}
	return &Cipher{id: id, dek: dek}, nil
}

// ID returns the id of the key.
func (c *Cipher) ID() key.ID { return c.id }

// OpenStorage appends to dst the plaintext of env, sealed for location.
func (c *Cipher) OpenStorage(dst, env, location []byte) ([]byte, error) {
	if len(location) > MaxLocation {
		return nil, ErrTooLarge
	}
	return c.open(dst, env, func(h Header) ([]byte, error) { return AppendStorageAAD(nil, h, location), nil })
}

// OpenRaft appends to dst the payload of env, sealed for the group.
func (c *Cipher) OpenRaft(dst, env []byte, g RaftGroup) ([]byte, error) {
	if len(g.Label) > MaxGroup {
		return nil, ErrTooLarge
	}
	return c.open(dst, env, func(h Header) ([]byte, error) { return AppendRaftAAD(nil, h, g), nil })
}

// OpenRaftGeneration1 appends to dst the payload of a generation-1 Raft
// envelope.
func (c *Cipher) OpenRaftGeneration1(dst, env []byte) ([]byte, error) {
	return c.open(dst, env, func(h Header) ([]byte, error) { return AppendRaftAADGeneration1(nil, h) })
}

func (c *Cipher) open(dst, env []byte, aad func(Header) ([]byte, error)) ([]byte, error) {
	h, err := ParseHeader(env)
	if err != nil {
		return nil, err
	}
	if h.Flag != 0 || (h.Suite != AES256GCM && h.Suite != XAES256GCM) {
		return nil, fmt.Errorf("%w: %s, flag %d", ErrUnsupported, h.Suite, h.Flag)
	}
	if h.KeyID != c.id {
		return nil, fmt.Errorf("%w: %s, not %s", ErrKeyMismatch, h.KeyID, c.id)
	}
	if len(env)-h.Suite.Overhead() > MaxPlaintext {
		return nil, ErrTooLarge
	}
	ad, err := aad(h)
	if err != nil {
		return nil, err
	}
	env = append([]byte(nil), env...)
	split := HeaderSize + h.Suite.NonceSize() - 12
	gcm, err := c.aead(h.Suite, env[HeaderSize:split])
	if err != nil {
		return nil, err
	}
	pt, err := gcm.Open(nil, nil, env[split:], ad)
	if err != nil {
		return nil, ErrIntegrity
	}
	if dst == nil {
		dst = []byte{}
	}
	return append(dst, pt...), nil
}

func (c *Cipher) aead(s Suite, salt []byte) (cipher.AEAD, error) {
	k := secret.Bytes(c.dek)
	if s == XAES256GCM {
		b, err := aes.NewCipher(secret.Expand(c.dek, xaesLabel, 32))
		if err != nil {
			return nil, err
		}
		k = deriveXAES(b, salt)
	}
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}
