package kek

import (
	"context"
	"fmt"
	"slices"

	"github.com/atrestdb/atrest/key"
)

// wrapped is a container of either kind.
type wrapped struct {
	subject
	recipients []key.Recipient
	with       func(rs []key.Recipient) ([]byte, error) // the container with others
}

func parseEither(container []byte) (wrapped, error) {
	if key.IsFileContainer(container) {
		c, err := key.ParseFileContainer(container)
		if err != nil {
			return wrapped{}, err
		}
		return wrapped{subjectOfFile(c.FileHeader), c.Recipients, func(rs []key.Recipient) ([]byte, error) {
			return key.FileContainer{FileHeader: c.FileHeader, Recipients: rs}.Append(nil)
		}}, nil
	}
	c, err := key.ParseContainer(container)
	if err != nil {
		return wrapped{}, err
	}
	return wrapped{subjectOf(c.Header), c.Recipients, func(rs []key.Recipient) ([]byte, error) {
		return key.Container{Header: c.Header, Recipients: rs}.Append(nil)
	}}, nil
}

func (w wrapped) index(id string) int {
	return slices.IndexFunc(w.recipients, func(r key.Recipient) bool { return r.KEK == id })
}

func (w wrapped) stays(format string, args ...any) error {
	return fmt.Errorf("kek: %w: %s: %w", ErrRecipient, w.name, fmt.Errorf(format, args...))
}

// AddRecipient returns the container, of a DEK or of a file key, with one more
// recipient: k, which need not be in the set. The set opens the container; the
// new wrap is unwrapped and compared before the container is returned. One that
// has a recipient of this id, or no place for another, is [ErrRecipient].
func (s *Set) AddRecipient(ctx context.Context, container []byte, k KEK) ([]byte, error) {
	w, err := parseEither(container)
	if err != nil {
		return nil, err
	}
	one, err := NewSet(k)
	if err != nil {
		return nil, err
	}
	m := one.members[0]
	if w.index(m.id) >= 0 {
		return nil, w.stays("KEK %s is one already", m.id)
	}
	if len(w.recipients) == key.MaxRecipients {
		return nil, w.stays("there are %d, which is the most", key.MaxRecipients)
	}
	dek, err := s.unwrap(ctx, w.subject, w.recipients)
	if err != nil {
		return nil, err
	}
	r, err := m.wrap(ctx, w.subject, dek)
	if err != nil {
		return nil, err
	}
	if err := m.prove(ctx, "add a recipient to "+w.name, w.subject, r); err != nil {
		return nil, err
	}
	return w.with(append(w.recipients, r))
}

// RemoveRecipient returns the container, of a DEK or of a file key, without the
// recipient of this id, once a KEK of the set has opened one of those that remain.
// A recipient that is not there, or is the last, is [ErrRecipient].
//
// Whoever keeps the container that was, and the KEK, still has the key: a KEK that
// others got hold of takes new keys.
func (s *Set) RemoveRecipient(ctx context.Context, container []byte, id string) ([]byte, error) {
	w, err := parseEither(container)
	if err != nil {
		return nil, err
	}
	i := w.index(id)
	if i < 0 {
		return nil, w.stays("KEK %s is none", id)
	}
	if len(w.recipients) == 1 {
		return nil, w.stays("KEK %s is the last, and without it nothing opens", id)
	}
	rest := slices.Delete(w.recipients, i, i+1)
	if _, err := s.unwrap(ctx, w.subject, rest); err != nil {
		return nil, err
	}
	return w.with(rest)
}
