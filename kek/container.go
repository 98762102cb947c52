package kek

import (
	"context"
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/key"
)

var errZeroKey = errors.New("the zero DEK holds no key")

func subjectOf(h key.Header) subject {
	return subject{name: fmt.Sprintf("%s DEK %s", h.Purpose, h.ID), aad: h.AAD, check: h.Check}
}

func subjectOfFile(h key.FileHeader) subject {
	return subject{name: fmt.Sprintf("the file key of node %d", h.Node), aad: h.AAD, check: h.Check}
}

// WrapDEK returns a container with the DEK wrapped for every KEK of the set, or
// the first [Error]: a container lacks none of them.
func (s *Set) WrapDEK(ctx context.Context, cluster key.ClusterID, id key.ID, p key.Purpose, dek key.DEK) ([]byte, error) {
	switch {
	case id == 0:
		return nil, fmt.Errorf("kek: wrap a DEK: %w", key.ErrReservedID)
	case !p.Valid():
		return nil, fmt.Errorf("kek: wrap DEK %s: %w: %d", id, key.ErrPurpose, uint8(p))
	case dek.IsZero():
		return nil, fmt.Errorf("kek: wrap DEK %s: %w", id, errZeroKey)
	}
	h := key.Header{Cluster: cluster, ID: id, Purpose: p, Check: key.CheckOf(dek)}
	return s.wrapDEK(ctx, h, dek)
}

func (s *Set) wrapDEK(ctx context.Context, h key.Header, dek key.DEK) ([]byte, error) {
	rs, err := s.wrap(ctx, subjectOf(h), dek)
	if err != nil {
		return nil, err
	}
	return key.Container{Header: h, Recipients: rs}.Append(nil)
}

// UnwrapDEK opens a container with the first KEK that can, and returns its
// authentic header and the DEK. Whether the header is that of the key that was
// expected is for the caller to compare. Bytes that are no container are
// [key.ErrContainer]; if no KEK opens it, the error is an [*UnwrapError].
func (s *Set) UnwrapDEK(ctx context.Context, container []byte) (key.Header, key.DEK, error) {
	c, err := key.ParseContainer(container)
	if err != nil {
		return key.Header{}, key.DEK{}, err
	}
	dek, err := s.unwrap(ctx, subjectOf(c.Header), c.Recipients)
	if err != nil {
		return key.Header{}, key.DEK{}, err
	}
	return c.Header, dek, nil
}

// RewrapDEK opens a container and wraps its DEK for the KEKs that the set has
// now, under the same header. Every new wrap is unwrapped and compared before
// the container is returned.
func (s *Set) RewrapDEK(ctx context.Context, container []byte) ([]byte, error) {
	h, dek, err := s.UnwrapDEK(ctx, container)
	if err != nil {
		return nil, err
	}
	out, err := s.wrapDEK(ctx, h, dek)
	if err != nil {
		return nil, err
	}
	c, err := key.ParseContainer(out)
	if err != nil {
		return nil, err
	}
	sub := subjectOf(c.Header)
	for i, m := range s.members {
		if err := m.prove(ctx, "rewrap "+sub.name, sub, c.Recipients[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// WrapFileKey returns a container with the file key of a node wrapped for every
// KEK of the set.
func (s *Set) WrapFileKey(ctx context.Context, node uint64, k key.DEK) ([]byte, error) {
	if k.IsZero() {
		return nil, fmt.Errorf("kek: wrap the file key of node %d: %w", node, errZeroKey)
	}
	h := key.FileHeader{Node: node, Check: key.CheckOf(k)}
	rs, err := s.wrap(ctx, subjectOfFile(h), k)
	if err != nil {
		return nil, err
	}
	return key.FileContainer{FileHeader: h, Recipients: rs}.Append(nil)
}

// UnwrapFileKey opens the container of a node's file key. The container of
// another node is [ErrOtherNode]; for the rest it is like [Set.UnwrapDEK].
func (s *Set) UnwrapFileKey(ctx context.Context, node uint64, container []byte) (key.DEK, error) {
	c, err := key.ParseFileContainer(container)
	if err != nil {
		return key.DEK{}, err
	}
	if c.Node != node {
		return key.DEK{}, fmt.Errorf("kek: %w: node %d, want %d", ErrOtherNode, c.Node, node)
	}
	return s.unwrap(ctx, subjectOfFile(c.FileHeader), c.Recipients)
}

// FileKeyCurrent reports whether the recipients of a file key's container are
// the KEKs of the set, in any order. If not, wrap the key again.
func (s *Set) FileKeyCurrent(container []byte) bool {
	c, err := key.ParseFileContainer(container)
	if err != nil || len(c.Recipients) != len(s.members) {
		return false
	}
	for _, r := range c.Recipients {
		if !s.has(r.KEK) {
			return false
		}
	}
	return true
}
