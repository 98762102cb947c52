package keystore

import (
	"crypto/rand"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// StreamSalt is the length of the salt that makes the key of one stream out of
// that of all streams under a DEK.
const StreamSalt = 32

// streamLabel is part of the format.
const streamLabel = "atrest/v2/stream"

// NewStreamKey returns what one new stream is sealed with: a key that is derived
// from the active storage key, whose id it returns, and from a salt that it draws.
// The key is as opaque as a DEK. It counts as one seal, however long the stream
// gets; what sealers hold for seals to come is not taken back for it. The error is
// [ErrNoActiveKey] or [ErrBudget].
//
// A stream that has its key goes on when the DEK is stopped.
func (s *Store) NewStreamKey() (id key.ID, salt [StreamSalt]byte, k key.DEK, err error) {
	for {
		a := s.active[key.Storage].Load()
		if a == nil {
			return 0, salt, key.DEK{}, ErrNoActiveKey
		}
		streams := a.entry.streamKey()
		if streams == nil || a.entry.usable() != nil {
			continue // another one is active since, or none
		}
		if _, err := a.entry.meter.Reserve(envelope.Usage{Seals: 1}); err != nil {
			return 0, salt, key.DEK{}, err
		}
		rand.Read(salt[:])
		return a.entry.id, salt, secret.Extract(*streams, salt[:]), nil
	}
}

// RandomNonces reports whether streams draw their nonces: with [WithExtendedOnly], for a
// machine that is cloned while it writes one would count on in both copies.
func (s *Store) RandomNonces() bool { return s.extendedOnly }

// StreamKey returns the key of the stream that was sealed under a storage key
// with this salt, to open it with. The error is [ErrUnknownKey], [ErrDestroyed] or
// [ErrPurpose].
func (s *Store) StreamKey(id key.ID, salt [StreamSalt]byte) (key.DEK, error) {
	e, err := s.entry(id)
	if err != nil {
		return key.DEK{}, err
	}
	if e.purpose != key.Storage {
		return key.DEK{}, e.fail(ErrPurpose)
	}
	streams := e.streamKey()
	if streams == nil {
		return key.DEK{}, e.fail(ErrDestroyed)
	}
	return secret.Extract(*streams, salt[:]), nil
}

// streamKey returns the subkey that all streams under e have in common, or nil if
// e is destroyed. It is kept from its first use.
func (e *entry) streamKey() *key.DEK {
	dek := e.dek.Load()
	if dek == nil {
		return nil
	}
	if k := e.streams.Load(); k != nil {
		return k
	}
	return e.keepStreamKey(dek)
}

// keepStreamKey derives the subkey from a DEK that was there a moment ago.
func (e *entry) keepStreamKey(dek *key.DEK) *key.DEK {
	k := secret.Derive(*dek, streamLabel)
	e.streams.Store(&k)
	if e.dek.Load() == nil { // destroyed meanwhile, and not to be kept
		e.streams.Store(nil)
	}
	return &k
}
