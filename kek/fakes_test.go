package kek_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
)

// odd is a KEK that does what the scripted fake of package kektest does not: it
// passes calls to its functions, where it has one, and counts them.
type odd struct {
	kek.KEK
	id      func() string
	wrap    func(ctx context.Context, plaintext, ad []byte) ([]byte, error)
	unwrap  func(ctx context.Context, wrapped, ad []byte) ([]byte, error)
	wraps   atomic.Int64
	unwraps atomic.Int64
}

func (o *odd) ID() string {
	if o.id != nil {
		return o.id()
	}
	return o.KEK.ID()
}

func (o *odd) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	o.wraps.Add(1)
	if o.wrap != nil {
		return o.wrap(ctx, plaintext, ad)
	}
	return o.KEK.Wrap(ctx, plaintext, ad)
}

func (o *odd) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	o.unwraps.Add(1)
	if o.unwrap != nil {
		return o.unwrap(ctx, wrapped, ad)
	}
	return o.KEK.Unwrap(ctx, wrapped, ad)
}

// withParams is a KEK with parameters: 8 bytes that it binds, or what its functions
// make of that.
type withParams struct {
	kek.KEK
	wrap   func(params, wrapped []byte) (p, w []byte, err error)
	unwrap func(ctx context.Context, params, wrapped, ad []byte) ([]byte, error)
}

func (o *withParams) WrapParams(ctx context.Context, plaintext, ad []byte) (params, wrapped []byte, err error) {
	params = []byte("abcdefgh")
	wrapped, err = o.KEK.Wrap(ctx, plaintext, append(bytes.Clone(params), ad...))
	if err == nil && o.wrap != nil {
		return o.wrap(params, wrapped)
	}
	return params, wrapped, err
}

func (o *withParams) UnwrapParams(ctx context.Context, params, wrapped, ad []byte) ([]byte, error) {
	if o.unwrap != nil {
		return o.unwrap(ctx, params, wrapped, ad)
	}
	return o.KEK.Unwrap(ctx, wrapped, append(bytes.Clone(params), ad...))
}

func newSet(t require.TestingT, first kek.KEK, more ...kek.KEK) *kek.Set {
	s, err := kek.NewSet(first, more...)
	require.NoError(t, err)
	return s
}

// cancelled returns a context that has ended.
func cancelled(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
