package kek

import (
	"context"
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/key"
)

// WrapGeneration1 wraps a DEK as generation 1 does: by the first KEK of the set alone,
// without associated data. Nothing binds the result to a key id, a purpose or a
// cluster: use it for data that the reference system shares.
func (s *Set) WrapGeneration1(ctx context.Context, id key.ID, dek key.DEK) ([]byte, error) {
	switch {
	case id == 0:
		return nil, fmt.Errorf("kek: wrap a DEK: %w", key.ErrReservedID)
	case dek.IsZero():
		return nil, fmt.Errorf("kek: wrap DEK %s: %w", id, errZeroKey)
	}
	if len(s.members) == 0 {
		return nil, fmt.Errorf("kek: wrap DEK %s: %w: it is empty", id, ErrConfig)
	}
	m := s.members[0]
	if _, ok := m.KEK.(ParamKEK); ok {
		return nil, fmt.Errorf("kek: wrap DEK %s: %w: KEK %s: %w", id, ErrConfig, m.id, errNoParams)
	}
	r, err := m.wrap(ctx, subjectGeneration1(id), dek)
	return r.Wrap, err
}

// UnwrapGeneration1 opens what generation 1 wrapped, with the first KEK of the set that
// can. There is no check value: a KEK that answers with 32 bytes is believed, and one
// that authenticates what it unwraps answers with no others. If no KEK opens it, the
// error is an [*UnwrapError].
func (s *Set) UnwrapGeneration1(ctx context.Context, id key.ID, wrapped []byte) (key.DEK, error) {
	if len(wrapped) == 0 || len(wrapped) > key.MaxWrap {
		return key.DEK{}, fmt.Errorf("kek: DEK %s: %w: a wrap of %d bytes, want 1 to %d", id, key.ErrContainer, len(wrapped), key.MaxWrap)
	}
	sub := subjectGeneration1(id)
	var tried []*Error
	for i, m := range s.members {
		k, err := m.unwrapShare(ctx, sub, key.Recipient{KEK: m.id, Wrap: wrapped}, len(s.members)-i)
		if err == nil {
			return k, nil
		}
		tried = append(tried, err)
	}
	return key.DEK{}, newUnwrapError(sub.name, tried, nil)
}

// errNoParams says that a KEK cannot take part in generation 1.
var errNoParams = errors.New("its wraps have parameters, for which generation 1 has no place")

func subjectGeneration1(id key.ID) subject {
	return subject{name: fmt.Sprintf("DEK %s of generation 1", id), aad: func() []byte { return nil }, unchecked: true}
}
