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
// which is never nil; on error they return nil. They use the whole capacity of dst
// as scratch space: cap it with a three-index slice if what follows matters. They
// allocate nothing when the plaintext fits into dst; a little more room is faster.
// env and location are only read, unless they lie in the spare capacity of dst,
// which is allowed: OpenStorage(env[:0], env, location) opens in place, and env is
// lost whether it opens or not.
type Cipher struct {
	id   key.ID
	dek  key.DEK
	gcm  *aead                // suite 0x01
	xaes atomic.Pointer[xaes] // suite 0x03, from its first use
	cha  atomic.Pointer[aead] // suite 0x04, from its first use
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
	a, at := c.warm(env)
	end := len(dst) + len(env) - at - gcmOverhead
	aadEnd := end + HeaderSize + len(location)
	if a == nil || aadEnd > cap(dst) || len(location) > MaxLocation {
		return c.open(dst, env, &binding{kind: storage, location: location})
	}
	if out := dst[len(dst):aadEnd]; overlap(out, env) || overlap(out, location) {
		return c.open(dst, env, &binding{kind: storage, location: location})
	}
	aad := AppendStorageAAD(dst[end:end], headerOf(env), location)
	out, err := a.gcm.Open(dst, env[at:at+gcmNonceSize], env[at+gcmNonceSize:], aad)
	if err != nil {
		return nil, ErrIntegrity
	}
	return out, nil
}

// OpenRaft opens a Raft payload that was sealed for the group.
func (c *Cipher) OpenRaft(dst, env []byte, g RaftGroup) ([]byte, error) {
	a, at := c.warm(env)
	end := len(dst) + len(env) - at - gcmOverhead
	aadEnd := end + g.aadSize()
	if a == nil || aadEnd > cap(dst) || len(g.Label) > MaxGroup || overlap(dst[len(dst):aadEnd], env) {
		return c.open(dst, env, &binding{kind: raft, group: &g})
	}
	aad := appendRaftAAD(dst[end:end], headerOf(env), &g)
	out, err := a.gcm.Open(dst, env[at:at+gcmNonceSize], env[at+gcmNonceSize:], aad)
	if err != nil {
		return nil, ErrIntegrity
	}
	return out, nil
}

// OpenRaftGeneration1 opens a Raft payload of generation 1: 0x01 with flag 0,
// anything else is ErrSuite.
func (c *Cipher) OpenRaftGeneration1(dst, env []byte) ([]byte, error) {
	return c.open(dst, env, &binding{kind: raftGeneration1})
}

const shortest = HeaderSize + gcmOverhead

// warm returns what opens env and the offset of its GCM nonce, if that is at hand
// and can be given an output to append to.
func (c *Cipher) warm(env []byte) (a *aead, at int) {
	if len(env) < shortest || len(env) > MaxPlaintext+shortest || c.gcm.random {
		return nil, 0
	}
	switch binary.BigEndian.Uint64(env)>>16 ^ uint64(c.id) {
	case uint64(AES256GCM) << 40:
		return c.gcm, HeaderSize
	case uint64(XAES256GCM) << 40:
		if x := c.xaes.Load(); x != nil && len(env) >= shortest+saltSize {
			if m := x.lookup(env[HeaderSize:]); m != nil {
				return m.aead, prefixSize
			}
		}
	}
	return nil, 0
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

// open opens every envelope that can be opened, into any dst.
func (c *Cipher) open(dst, env []byte, bind *binding) ([]byte, error) {
	if err := bind.check(); err != nil {
		return nil, err
	}
	h, err := c.check(env, bind.kind)
	if err != nil {
		return nil, err
	}
	if h.Flag == 1 {
		return c.openCompressed(dst, env, h, bind)
	}
	return c.openBody(dst, env, h, bind)
}

// openBody opens what is sealed, compressed or not.
func (c *Cipher) openBody(dst, env []byte, h Header, bind *binding) ([]byte, error) {
	switch h.Suite {
	case AES256GCM, AES256GCMSnappy:
		return openWith(c.gcm, dst, env, HeaderSize, h, bind)
	case XChaCha20Poly1305:
		a, err := c.xchacha()
		if err != nil {
			return nil, err
		}
		return openWith(a, dst, env, HeaderSize, h, bind)
	default:
		return c.openXAES(dst, env, h, bind)
	}
}

func (c *Cipher) openXAES(dst, env []byte, h Header, bind *binding) ([]byte, error) {
	x, err := c.extended()
	if err != nil {
		return nil, err
	}
	if m := x.lookup(env[HeaderSize:]); m != nil {
		return openWith(m.aead, dst, env, prefixSize, h, bind)
	}
	m, err := x.derive([saltSize]byte(env[HeaderSize:]))
	if err != nil {
		return nil, fmt.Errorf("envelope: key %s: %w", c.id, err)
	}
	out, err := openWith(m.aead, dst, env, prefixSize, h, bind)
	if err == nil {
		x.keep(m) // only now: bytes that nobody sealed push out no salt in use
	}
	return out, err
}

// check returns the header of an envelope that this key can open.
func (c *Cipher) check(env []byte, kind uint8) (Header, error) {
	h, err := ParseHeader(env)
	switch {
	case err != nil:
		return Header{}, err
	case kind == raftGeneration1 && h.Suite != AES256GCM:
		return Header{}, generation1Error(h)
	case h.KeyID != c.id:
		return Header{}, fmt.Errorf("%w: %s, not %s", ErrKeyMismatch, h.KeyID, c.id)
	case len(env)-h.Suite.Overhead() > MaxPlaintext:
		return Header{}, fmt.Errorf("%w: envelope of %d bytes", ErrTooLarge, len(env))
	}
	return h, nil
}

// openWith opens env, whose nonce for a begins at offset at. What opening could
// overwrite before it is read is copied first; a ciphertext in the way moves to
// where the plaintext will be.
func openWith(a *aead, dst, env []byte, at int, h Header, bind *binding) ([]byte, error) {
	p := scratch.Get().(*[]byte)
	defer scratch.Put(p)
	*p = bind.append(append((*p)[:0], env[at:at+a.nonce]...), h)
	nonce, aad := (*p)[:a.nonce], (*p)[a.nonce:]

	end := len(dst) + len(env) - at - a.nonce - TagSize
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
