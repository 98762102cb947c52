package kek

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// Set is one or several KEKs, in the order in which they are asked. It makes and
// opens containers: a container has one recipient for each KEK of the set that
// made it, and opens while one of them answers. A Set is safe for concurrent use.
type Set struct{ members []member }

// member is a KEK with the id that it had when the set was made.
type member struct {
	KEK
	id string
}

// NewSet returns the set of the KEKs. Put first what answers fastest. It refuses
// two KEKs of one id, an id that fits into no container, nil, a nil pointer too, and
// more than [key.MaxRecipients]. It calls none of them; [Verify] does.
func NewSet(first KEK, more ...KEK) (*Set, error) {
	s := new(Set)
	for i, k := range append([]KEK{first}, more...) {
		if isNil(k) {
			return nil, fmt.Errorf("kek: %w: number %d is nil", ErrConfig, i+1)
		}
		m := member{KEK: k, id: k.ID()}
		if err := key.CheckKEKID(m.id); err != nil {
			return nil, fmt.Errorf("kek: %w: number %d: %w", ErrConfig, i+1, err)
		}
		if s.has(m.id) {
			return nil, fmt.Errorf("kek: %w: KEK %s is there twice", ErrConfig, m.id)
		}
		s.members = append(s.members, m)
	}
	if n := len(s.members); n > key.MaxRecipients {
		return nil, fmt.Errorf("kek: %w: %d KEKs, want at most %d", ErrConfig, n, key.MaxRecipients)
	}
	return s, nil
}

// isNil reports whether there is no KEK, which an interface with a nil pointer hides.
func isNil(k KEK) bool {
	v := reflect.ValueOf(k)
	return k == nil || v.Kind() == reflect.Pointer && v.IsNil()
}

// IDs returns the ids of the KEKs, in the order of the set.
func (s *Set) IDs() []string {
	ids := make([]string, len(s.members))
	for i, m := range s.members {
		ids[i] = m.id
	}
	return ids
}

func (s *Set) has(id string) bool {
	return slices.ContainsFunc(s.members, func(m member) bool { return m.id == id })
}

// subject is what a container is about, whichever its kind.
type subject struct {
	name  string        // in words
	aad   func() []byte // a new slice for every call to a KEK
	check key.Check
	// unchecked says that generation 1 has no check value for it.
	unchecked bool
}

// wrap wraps k for every KEK of the set. All of them must answer.
func (s *Set) wrap(ctx context.Context, sub subject, k secret.Key) ([]key.Recipient, error) {
	rs := make([]key.Recipient, 0, len(s.members))
	for _, m := range s.members {
		r, err := m.wrap(ctx, sub, k)
		if err != nil {
			return nil, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func (m member) wrap(ctx context.Context, sub subject, k secret.Key) (key.Recipient, error) {
	op := "wrap " + sub.name
	if err := ctx.Err(); err != nil {
		return key.Recipient{}, failed(m.id, op, err)
	}
	r := key.Recipient{KEK: m.id}
	var err error
	// A copy: a KEK that changes what it is given must not change the key.
	plaintext := slices.Clone(secret.Bytes(k))
	if p, ok := m.KEK.(ParamKEK); ok {
		r.Params, r.Wrap, err = p.WrapParams(ctx, plaintext, sub.aad())
	} else {
		r.Wrap, err = m.Wrap(ctx, plaintext, sub.aad())
	}
	if err != nil {
		return key.Recipient{}, failed(m.id, op, err)
	}
	if len(r.Wrap) == 0 || len(r.Wrap) > key.MaxWrap {
		return key.Recipient{}, faulty(m.id, op, "it answered with %d bytes, want 1 to %d", len(r.Wrap), key.MaxWrap)
	}
	if len(r.Params) > key.MaxParams {
		return key.Recipient{}, faulty(m.id, op, "it answered with %d bytes of parameters, want at most %d", len(r.Params), key.MaxParams)
	}
	return r, nil
}

// unwrap asks the KEKs that are both in the set and among the recipients, one
// after the other, until one opens its wrap.
func (s *Set) unwrap(ctx context.Context, sub subject, rs []key.Recipient) (secret.Key, error) {
	byID := make(map[string]key.Recipient, len(rs))
	for _, r := range rs {
		byID[r.KEK] = r
	}
	ask := slices.DeleteFunc(slices.Clone(s.members), func(m member) bool {
		_, ok := byID[m.id]
		return !ok
	})
	var tried []*Error
	for i, m := range ask {
		k, err := m.unwrapShare(ctx, sub, byID[m.id], len(ask)-i)
		if err == nil {
			return k, nil
		}
		tried = append(tried, err)
	}
	var absent []string
	for _, r := range rs {
		if !s.has(r.KEK) {
			absent = append(absent, r.KEK)
		}
	}
	return secret.Key{}, newUnwrapError(sub.name, tried, absent)
}

// unwrapShare asks one KEK and leaves time for those behind it: a KEK that never
// answers gets its share of the time until the deadline, not all of it.
func (m member) unwrapShare(ctx context.Context, sub subject, r key.Recipient, left int) (secret.Key, *Error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return m.unwrap(ctx, sub, r)
}

func (m member) unwrap(ctx context.Context, sub subject, r key.Recipient) (secret.Key, *Error) {
	const op = "unwrap"
	if err := ctx.Err(); err != nil {
		return secret.Key{}, failed(m.id, op, err)
	}
	b, err := m.ask(ctx, r, sub.aad())
	if err != nil {
		return secret.Key{}, failed(m.id, op, err)
	}
	k, err := secret.New(b)
	if err != nil {
		return secret.Key{}, failed(m.id, op, fmt.Errorf("%w: it answered with %d bytes, want %d", ErrWrongKey, len(b), secret.Size))
	}
	if !sub.unchecked && key.CheckOf(k) != sub.check {
		return secret.Key{}, failed(m.id, op, fmt.Errorf("%w: it answered with a key that has another check value", ErrWrongKey))
	}
	return k, nil
}

// ask calls the KEK to unwrap, whichever way it does that.
func (m member) ask(ctx context.Context, r key.Recipient, aad []byte) ([]byte, error) {
	if p, ok := m.KEK.(ParamKEK); ok {
		return p.UnwrapParams(ctx, slices.Clone(r.Params), slices.Clone(r.Wrap), aad)
	}
	if len(r.Params) != 0 {
		return nil, fmt.Errorf("%w: its wrap has %d bytes of parameters, and it takes none", ErrWrongKey, len(r.Params))
	}
	return m.Unwrap(ctx, slices.Clone(r.Wrap), aad)
}

// prove opens a wrap that the KEK has just made. That it is the same key shows in
// its check value.
func (m member) prove(ctx context.Context, op string, sub subject, r key.Recipient) error {
	_, err := m.unwrap(ctx, sub, r)
	if err == nil {
		return nil
	}
	if err.Kind == ErrWrongKey {
		return faulty(m.id, op, "it does not open its own wrap: %v", err.Err)
	}
	return err
}
