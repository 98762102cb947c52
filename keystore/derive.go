package keystore

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// ErrMAC says that a MAC is not that of the data. It never says why.
var ErrMAC = errors.New("keystore: MAC does not match")

// The namespaces of labels. They are part of the format: nobody's label can name
// the subkey of a suite, or a MAC key a subkey.
const (
	macLabel    = "atrest/v2/mac/"
	subkeyLabel = "atrest/v2/subkey/"
	maxLabel    = 200
)

// MAC returns HMAC-SHA256 over the parts under a subkey of the key for label,
// which says what the MAC is for: 1 to 200 bytes; those that begin with "atrest/"
// are this module's own. Each part goes in behind its length, 8 bytes, so moving a
// byte from one part to the next changes the MAC. The purpose of the key does not
// matter. A stopped key makes no MACs; it verifies them.
func (s *Store) MAC(id key.ID, label string, parts ...[]byte) ([sha256.Size]byte, error) {
	e, err := s.entry(id)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if err := e.usable(); err != nil {
		return [sha256.Size]byte{}, err
	}
	return e.mac(label, parts)
}

// VerifyMAC returns nil if mac is the MAC of the parts, [ErrMAC] if not, in the
// same time for every wrong one.
func (s *Store) VerifyMAC(id key.ID, label string, mac []byte, parts ...[]byte) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	want, err := e.mac(label, parts)
	if err != nil {
		return err
	}
	if !hmac.Equal(want[:], mac) {
		return ErrMAC
	}
	return nil
}

// Subkey returns a key that is derived from a key for label, as for [Store.MAC].
// It is as opaque as the key itself, and no MAC is ever made under it.
func (s *Store) Subkey(id key.ID, label string) (key.DEK, error) {
	e, err := s.entry(id)
	if err != nil {
		return key.DEK{}, err
	}
	return e.derive(subkeyLabel, label)
}

func (e *entry) mac(label string, parts [][]byte) ([sha256.Size]byte, error) {
	k, err := e.derive(macLabel, label)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	h := hmac.New(sha256.New, secret.Bytes(k))
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (e *entry) derive(space, label string) (key.DEK, error) {
	if label == "" || len(label) > maxLabel {
		return key.DEK{}, fmt.Errorf("%w: got %d", ErrLabel, len(label))
	}
	dek := e.dek.Load()
	if dek == nil {
		return key.DEK{}, e.fail(ErrDestroyed)
	}
	return secret.Derive(*dek, space+label), nil
}
