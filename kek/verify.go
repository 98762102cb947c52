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
// it with other associated data, or with other parameters if it is a [ParamKEK]:
// three or four calls. It returns nil, or an [*Error] that says what is wrong with
// the KEK: nothing of it is stored.
func Verify(ctx context.Context, k KEK) error {
	if isNil(k) {
		return faulty("", opVerify, "it is nil")
	}
	m := member{KEK: k, id: k.ID()}
	if err := key.CheckKEKID(m.id); err != nil {
		return faulty(m.id, opVerify, "%w", err)
	}
	dek := key.NewDEK()
	h := key.Header{Cluster: key.NewClusterID(), ID: key.NewID(), Purpose: key.Storage, Check: key.CheckOf(dek)}
	sub := subject{name: "a test key", aad: h.AAD, check: h.Check}
	r, err := m.wrap(ctx, sub, dek)
	if err != nil {
		return err
	}
	if bytes.Contains(r.Wrap, secret.Bytes(dek)) || bytes.Contains(r.Params, secret.Bytes(dek)) {
		return faulty(m.id, opVerify, "the wrap shows the key")
	}
	if err := m.prove(ctx, opVerify, sub, r); err != nil {
		return err
	}
	other := h
	other.ID++
	if err := m.refuses(ctx, r, other.AAD(), "associated data"); err != nil || len(r.Params) == 0 {
		return err
	}
	r.Params = slices.Clone(r.Params)
	r.Params[len(r.Params)-1] ^= 1
	return m.refuses(ctx, r, h.AAD(), "parameters")
}

const opVerify = "verify"

// refuses checks that a KEK looks at what is not as it was: it must give nothing,
// as a final answer.
func (m member) refuses(ctx context.Context, r key.Recipient, aad []byte, what string) error {
	if err := ctx.Err(); err != nil {
		return failed(m.id, opVerify, err)
	}
	_, err := m.ask(ctx, r, aad)
	switch {
	case err == nil:
		return faulty(m.id, opVerify, "it ignores %s", what)
	case kindOf(err) == ErrWrongKey:
		return nil
	case errors.Is(err, ErrDenied), errors.Is(err, ErrUnreachable), ctx.Err() != nil:
		return failed(m.id, opVerify, err)
	}
	return failed(m.id, opVerify, fmt.Errorf("with other %s, where ErrWrongKey is wanted: %w", what, err))
}
