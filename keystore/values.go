package keystore

import (
	"encoding/binary"
	"errors"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// Storage seals and opens stored values. It is safe for concurrent use.
type Storage struct{ s *Store }

// Storage returns the way to stored values.
func (s *Store) Storage() *Storage { return &Storage{s: s} }

// Seal appends to dst the envelope of plaintext under the active storage key,
// bound to location. Memory is used as [envelope.Sealer.SealStorage] says. The
// error is [ErrNoActiveKey], [ErrBudget], or one of envelope.
func (v *Storage) Seal(dst, plaintext, location []byte) ([]byte, error) {
	a := v.s.active[key.Storage].Load()
	for {
		if a == nil {
			return nil, ErrNoActiveKey
		}
		out, err := a.sealer.SealStorage(dst, plaintext, location)
		if err == nil {
			return out, nil
		}
		if a, err = v.s.successor(key.Storage, a, err); err != nil {
			return nil, err
		}
	}
}

// Open appends to dst the plaintext of env, which was sealed for location under
// any storage key that is here. Memory is used as [envelope.Cipher.OpenStorage]
// says. The error is [ErrUnknownKey], [ErrDestroyed], [ErrPurpose], or one of
// envelope.
func (v *Storage) Open(dst, env, location []byte) ([]byte, error) {
	c, err := v.s.cipherOf(env, key.Storage)
	if err != nil {
		return nil, err
	}
	return c.OpenStorage(dst, env, location)
}

// Raft seals and opens the payloads of one Raft group. It is safe for concurrent
// use.
type Raft struct {
	s *Store
	g envelope.RaftGroup
}

// Raft returns the way to Raft payloads of a group.
func (s *Store) Raft(g envelope.RaftGroup) *Raft { return &Raft{s: s, g: g} }

// Seal is [Storage.Seal] for a payload under the active Raft key.
func (v *Raft) Seal(dst, payload []byte) ([]byte, error) {
	a := v.s.active[key.Raft].Load()
	for {
		if a == nil {
			return nil, ErrNoActiveKey
		}
		out, err := a.sealer.SealRaft(dst, payload, v.g)
		if err == nil {
			return out, nil
		}
		if a, err = v.s.successor(key.Raft, a, err); err != nil {
			return nil, err
		}
	}
}

// Open is [Storage.Open] for a payload under any Raft key.
func (v *Raft) Open(dst, env []byte) ([]byte, error) {
	c, err := v.s.cipherOf(env, key.Raft)
	if err != nil {
		return nil, err
	}
	return c.OpenRaft(dst, env, v.g)
}

// successor returns the key to try next when a seal under a failed with err,
// which it returns if there is none: only a seal that met the end of its key's
// time has another chance.
func (s *Store) successor(p key.Purpose, a *active, err error) (*active, error) {
	if errors.Is(err, envelope.ErrStopped) {
		if b := s.active[p].Load(); b != a {
			return b, nil
		}
	}
	var ours *KeyError // from the key's meter, through the sealer
	if errors.As(err, &ours) {
		return nil, ours
	}
	return nil, err
}

// cipherOf finds the key that env names.
func (s *Store) cipherOf(env []byte, p key.Purpose) (*envelope.Cipher, error) {
	if len(env) >= envelope.HeaderSize {
		if e := s.table.Load().find(key.ID(binary.BigEndian.Uint32(env[2:]))); e != nil && e.purpose == p {
			if c := e.cipher.Load(); c != nil {
				return c, nil
			}
		}
	}
	return s.cipherNamed(env, p)
}

// cipherNamed is cipherOf for what is wrong with env or the key, and says so.
// Bytes that are no envelope at all are reported as such rather than as a key
// that is missing.
func (s *Store) cipherNamed(env []byte, p key.Purpose) (*envelope.Cipher, error) {
	h, err := envelope.ParseHeader(env)
	if err != nil {
		return nil, err
	}
	e, err := s.entry(h.KeyID)
	if err != nil {
		return nil, err
	}
	if e.purpose != p {
		return nil, e.fail(ErrPurpose)
	}
	if c := e.cipher.Load(); c != nil { // installed since
		return c, nil
	}
	return nil, e.fail(ErrDestroyed)
}
