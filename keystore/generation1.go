package keystore

import (
	"github.com/atrestdb/atrest/key"
)

// RaftGeneration1 seals and opens Raft payloads of generation 1. It is safe for
// concurrent use.
type RaftGeneration1 struct{ s *Store }

// RaftGeneration1 returns the way to Raft payloads of generation 1.
func (s *Store) RaftGeneration1() *RaftGeneration1 { return &RaftGeneration1{s: s} }

// Seal is [Raft.Seal] for suite 0x01 alone: it needs an active key that was activated
// with [Store.ActivateCounted].
func (v *RaftGeneration1) Seal(dst, payload []byte) ([]byte, error) {
	a := v.s.active[key.Raft].Load()
	for {
		if a == nil {
			return nil, ErrNoActiveKey
		}
		out, err := a.sealer.SealRaftGeneration1(dst, payload)
		if err == nil {
			return out, nil
		}
		if a, err = v.s.successor(key.Raft, a, err); err != nil {
			return nil, err
		}
	}
}

// Open is [Raft.Open] for suite 0x01 with flag 0 alone.
func (v *RaftGeneration1) Open(dst, env []byte) ([]byte, error) {
	c, err := v.s.cipherOf(env, key.Raft)
	if err != nil {
		return nil, err
	}
	return c.OpenRaftGeneration1(dst, env)
}
