package kek_test

import (
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
