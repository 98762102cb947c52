package kek

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// Verify asks a KEK to wrap a random key, to unwrap it, and to refuse to unwrap
// it with other associated data: three calls. It returns nil, or an [*Error] that
// says what is wrong with the KEK: nothing of it is stored.
func Verify(ctx context.Context, k KEK) error {
	const op = "verify"
	m := member{KEK: k, id: k.ID()}
	if err := key.CheckKEKID(m.id); err != nil {
		return faulty(m.id, op, "%w", err)
	}
	dek := key.NewDEK()
	h := key.Header{Cluster: key.NewClusterID(), ID: key.NewID(), Purpose: key.Storage, Check: key.CheckOf(dek)}
	sub := subject{name: "a test key", aad: h.AAD, check: h.Check}
	w, err := m.wrap(ctx, sub, dek)
	if err != nil {
		return err
	}
	if bytes.Contains(w, secret.Bytes(dek)) {
		return faulty(m.id, op, "the wrap shows the key")
	}
	r := key.Recipient{KEK: m.id, Wrap: w}
	// That it is the same key shows in its check value.
	if _, err := m.unwrap(ctx, sub, r); err != nil {
		if err.Kind == ErrWrongKey {
			return faulty(m.id, op, "it does not open its own wrap: %v", err.Err)
		}
		return err
	}
	return m.verifyBinding(ctx, h, r)
}

// verifyBinding checks that a KEK looks at the associated data: with another
// header it must give nothing, as a final answer.
func (m member) verifyBinding(ctx context.Context, h key.Header, r key.Recipient) error {
	const op = "verify"
	if err := ctx.Err(); err != nil {
		return failed(m.id, op, err)
	}
	h.ID++
	_, err := m.Unwrap(ctx, slices.Clone(r.Wrap), h.AAD())
	switch {
	case err == nil:
		return faulty(m.id, op, "it ignores associated data")
	case kindOf(err) == ErrWrongKey:
		return nil
	case errors.Is(err, ErrDenied), errors.Is(err, ErrUnreachable), ctx.Err() != nil:
		return failed(m.id, op, err)
	}
	return failed(m.id, op, fmt.Errorf("with other associated data, where ErrWrongKey is wanted: %w", err))
}
