package envelope

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// Cipher opens what was sealed under one DEK, and makes the sealers for it. It
// is safe for concurrent use.
//
// Its Open methods append the plaintext to dst and return the extended slice,
// which is never nil and aliases neither env nor location; on error they return
// nil. They use the whole capacity of dst as scratch space: cap it with a
// three-index slice if what follows matters. They allocate nothing when the
// plaintext fits into dst. env and location are only read, unless they lie in
// the spare capacity of dst, which is allowed: OpenStorage(env[:0], env, location)
// opens in place, and env is lost whether it opens or not.
type Cipher struct {
	id   key.ID
	dek  key.DEK
	gcm  aead                 // suite 0x01
	xaes atomic.Pointer[xaes] // suite 0x03, from its first use
}

var errNoKey = errors.New("the zero DEK holds no key")

// NewCipher returns the cipher of the DEK with this id, which must not be 0.
func NewCipher(id key.ID, dek key.DEK) (*Cipher, error) {
	if id == 0 {
		return nil, key.ErrReservedID
	}
	if dek.IsZero() {
		return nil, fmt.Errorf("envelope: key %s: %w", id, errNoKey)
	}
	gcm, err := newAEAD(secret.Bytes(dek))
	if err != nil {
		return nil, fmt.Errorf("envelope: key %s: %w", id, err)
	}
	return &Cipher{id: id, dek: dek, gcm: gcm}, nil
}

// ID returns the id of the key.
func (c *Cipher) ID() key.ID { return c.id }

// OpenStorage opens a stored value that was sealed for location.
func (c *Cipher) OpenStorage(dst, env, location []byte) ([]byte, error) {
	if len(location) > MaxLocation {
		return nil, locationError(location)
	}
	return c.open(dst, env, &binding{kind: storage, location: location})
}

// OpenRaft opens a Raft payload that was sealed for the group.
func (c *Cipher) OpenRaft(dst, env []byte, g RaftGroup) ([]byte, error) {
	if len(g.Label) > MaxGroup {
		return nil, labelError(g.Label)
	}
	return c.open(dst, env, &binding{kind: raft, group: &g})
}

// OpenRaftGeneration1 opens a Raft payload of generation 1: 0x01 with flag 0,
// anything else is ErrSuite.
func (c *Cipher) OpenRaftGeneration1(dst, env []byte) ([]byte, error) {
	return c.open(dst, env, &binding{kind: raftGeneration1})
}

// extended returns the cipher's XAES-256-GCM. Two first users may both make one;
// either will do.
func (c *Cipher) extended() (*xaes, error) {
	if x := c.xaes.Load(); x != nil {
		return x, nil
	}
	x, err := newXAES(secret.Derive(c.dek, xaesLabel))
	if err != nil {
		return nil, fmt.Errorf("envelope: key %s: %w", c.id, err)
	}
	c.xaes.CompareAndSwap(nil, x)
	return c.xaes.Load(), nil
}

func (c *Cipher) open(dst, env []byte, bind *binding) ([]byte, error) {
	const shortest = HeaderSize + gcmOverhead
	if len(env) < shortest || len(env) > MaxPlaintext+shortest || key.ID(binary.BigEndian.Uint32(env[2:])) != c.id {
		return nil, c.refusal(env, bind)
	}
	switch binary.BigEndian.Uint16(env) {
	case uint16(AES256GCM) << 8:
		return openWith(&c.gcm, dst, env, HeaderSize, bind)
	case uint16(XAES256GCM) << 8:
		return c.openXAES(dst, env, bind)
	}
	return nil, c.refusal(env, bind)
}

// openXAES keeps the message key of a new salt only after it opened something,
// so that bytes nobody sealed do not push out the salts in use.
func (c *Cipher) openXAES(dst, env []byte, bind *binding) ([]byte, error) {
	if len(env) < HeaderSize+saltSize+gcmOverhead || bind.kind == raftGeneration1 {
		return nil, c.refusal(env, bind)
	}
	x, err := c.extended()
	if err != nil {
		return nil, err
	}
	if m := x.lookup(env[HeaderSize:]); m != nil {
		return openWith(&m.aead, dst, env, HeaderSize+saltSize, bind)
	}
	m, err := x.derive([saltSize]byte(env[HeaderSize:]))
	if err != nil {
		return nil, err
	}
	out, err := openWith(&m.aead, dst, env, HeaderSize+saltSize, bind)
	if err == nil {
		x.keep(m)
	}
	return out, err
}

// refusal says why env is not opened. It is called only for what has no chance.
func (c *Cipher) refusal(env []byte, bind *binding) error {
	h, err := ParseHeader(env)
	switch {
	case err != nil:
		return err
	case bind.kind == raftGeneration1 && (h.Suite != AES256GCM || h.Flag != 0):
		return fmt.Errorf("%w: version 0x%02x, flag 0x%02x in a generation-1 Raft payload", ErrSuite, uint8(h.Suite), h.Flag)
	case h.Flag != 0 || h.Suite != AES256GCM && h.Suite != XAES256GCM:
		return fmt.Errorf("%w: %s with flag %d", ErrUnsupported, h.Suite, h.Flag)
	case h.KeyID != c.id:
		return fmt.Errorf("%w: %s, not %s", ErrKeyMismatch, h.KeyID, c.id)
	}
	return fmt.Errorf("%w: envelope of %d bytes", ErrTooLarge, len(env))
}

// openWith opens env, whose GCM nonce begins at offset at. The associated data
// goes into the capacity of dst behind the plaintext if there is room.
func openWith(a *aead, dst, env []byte, at int, bind *binding) ([]byte, error) {
	end := len(dst) + len(env) - at - gcmOverhead
	aadEnd := end + bind.size()
	if aadEnd > cap(dst) || a.random {
		return openSlow(a, dst, env, at, bind)
	}
	if out := dst[len(dst):aadEnd]; overlap(out, env) || overlap(out, bind.location) {
		return openSlow(a, dst, env, at, bind)
	}
	h := headerOf(env)
	aad := dst[end:end]
	if bind.kind == storage {
		aad = AppendStorageAAD(aad, h, bind.location)
	} else {
		aad = bind.append(aad, h)
	}
	out, err := a.gcm.Open(dst, env[at:at+gcmNonceSize], env[at+gcmNonceSize:], aad)
	if err != nil {
		return nil, ErrIntegrity
	}
	return out, nil
}

// openSlow is openWith for every other dst: one without room, or one that shares
// memory with the input. What opening could overwrite before it is read is copied
// first; a ciphertext in the way moves to where the plaintext will be.
func openSlow(a *aead, dst, env []byte, at int, bind *binding) ([]byte, error) {
	p := scratch.Get().(*[]byte)
	defer scratch.Put(p)
	*p = bind.append(append((*p)[:0], env[at:at+gcmNonceSize]...), headerOf(env))
	nonce, aad := (*p)[:gcmNonceSize], (*p)[gcmNonceSize:]

	end := len(dst) + len(env) - at - gcmOverhead
	dst = grow(dst, end)
	sealed := env[at+a.skip():]
	if overlap(dst[len(dst):end], env) {
		if room := dst[len(dst):cap(dst)]; len(room) >= len(sealed) {
			sealed = room[:copy(room, sealed)]
		} else {
			sealed = bytes.Clone(sealed)
		}
	}
	out, err := a.open(dst, nonce, sealed, aad)
	if err != nil {
		return nil, ErrIntegrity
	}
	return out, nil
}
