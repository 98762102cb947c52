package kek_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

func TestVerify(t *testing.T) {
	k := kektest.New("kms:a")
	require.NoError(t, kek.Verify(t.Context(), k))
	require.Equal(t, kektest.Calls{Wraps: 1, Unwraps: 2, Done: 3}, k.Calls())
	require.NoError(t, kek.Verify(t.Context(), aesKEK(t, rawKEK(1))))
}

// Every way in which a KEK can be unfit, and every way of failing at each of the
// three calls.
func TestVerifyRefuses(t *testing.T) {
	unknown := errors.New("it fell over")
	tests := []struct {
		name string
		make func(inner *kektest.KEK, o *odd)
		is   error
		text string
	}{
		{"unreachable", func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrUnreachable) }, kek.ErrUnreachable, "try again"},
		{"denied", func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrDenied) }, kek.ErrDenied, "check its credentials and policy"},
		{"gone", func(k *kektest.KEK, _ *odd) { k.Gone() }, kek.ErrWrongKey, "the key is gone; configure or restore"},
		{"unknown error", func(k *kektest.KEK, _ *odd) { k.FailNext(1, unknown) }, kek.ErrUnreachable, "KEK unreachable: it fell over; try again"},
		{"answer lost", func(k *kektest.KEK, _ *odd) { k.LoseNext(1, kek.ErrUnreachable) }, kek.ErrUnreachable, "try again"},
		{"unwrap unreachable", func(_ *kektest.KEK, o *odd) {
			o.unwrap = answer(nil, fmt.Errorf("%w: no route", kek.ErrUnreachable))
		}, kek.ErrUnreachable, "KEK unreachable: no route; try again"},
		{"unwrap denied", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, kek.ErrDenied) }, kek.ErrDenied, "KEK denied access; check"},
		{"another key at unwrap", func(k *kektest.KEK, o *odd) {
			o.wrap = func(ctx context.Context, p, ad []byte) ([]byte, error) {
				defer k.WrongKey()
				return k.Wrap(ctx, p, ad)
			}
		}, kek.ErrFaulty, "it does not open its own wrap: wrong KEK; do not use this KEK"},
		{"truncates the wrap", func(k *kektest.KEK, o *odd) {
			o.wrap = func(ctx context.Context, p, ad []byte) ([]byte, error) {
				w, err := k.Wrap(ctx, p, ad)
				return w[:len(w)-1], err
			}
		}, kek.ErrFaulty, "it does not open its own wrap"},
		{"truncates the key", func(k *kektest.KEK, o *odd) {
			o.unwrap = func(ctx context.Context, w, ad []byte) ([]byte, error) {
				p, err := k.Unwrap(ctx, w, ad)
				return p[:max(len(p)-1, 0)], err
			}
		}, kek.ErrFaulty, "it answered with 31 bytes, want 32"},
		{"another key's bytes", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(rawKEK(9), nil) }, kek.ErrFaulty, "another check value"},
		{"nothing", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, nil) }, kek.ErrFaulty, "it answered with 0 bytes, want 32"},
		{"empty wrap", func(_ *kektest.KEK, o *odd) { o.wrap = answer(nil, nil) }, kek.ErrFaulty, "it answered with 0 bytes, want 1 to 4096"},
		{"huge wrap", func(_ *kektest.KEK, o *odd) { o.wrap = answer(make([]byte, 4097), nil) }, kek.ErrFaulty, "it answered with 4097 bytes, want 1 to 4096"},
		{"no wrapping at all", func(_ *kektest.KEK, o *odd) {
			o.wrap = func(_ context.Context, p, _ []byte) ([]byte, error) { return append([]byte("x"), p...), nil }
			o.unwrap = func(_ context.Context, w, _ []byte) ([]byte, error) { return w[1:], nil }
		}, kek.ErrFaulty, "the wrap shows the key"},
		{"ignores associated data", func(k *kektest.KEK, o *odd) {
			o.wrap = func(ctx context.Context, p, _ []byte) ([]byte, error) { return k.Wrap(ctx, p, nil) }
			o.unwrap = func(ctx context.Context, w, _ []byte) ([]byte, error) { return k.Unwrap(ctx, w, nil) }
		}, kek.ErrFaulty, "it ignores associated data; do not use this KEK"},
		{"looks at part of associated data", func(k *kektest.KEK, o *odd) {
			o.wrap = func(ctx context.Context, p, ad []byte) ([]byte, error) { return k.Wrap(ctx, p, ad[:20]) }
			o.unwrap = func(ctx context.Context, w, ad []byte) ([]byte, error) { return k.Unwrap(ctx, w, ad[:20]) }
		}, kek.ErrFaulty, "it ignores associated data"},
		{"third call unreachable", thirdCall(kek.ErrUnreachable), kek.ErrUnreachable, "KEK unreachable; try again"},
		{"third call denied", thirdCall(kek.ErrDenied), kek.ErrDenied, "KEK denied access; check"},
		{"third call unclassified", thirdCall(unknown), kek.ErrUnreachable, "with other associated data, where ErrWrongKey is wanted: it fell over"},
		{"empty id", func(_ *kektest.KEK, o *odd) { o.id = func() string { return "" } }, kek.ErrFaulty, "the id of a KEK has 0 bytes"},
		{"id with space", func(_ *kektest.KEK, o *odd) { o.id = func() string { return "a b" } }, kek.ErrFaulty, "printable ASCII"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inner := kektest.New("kms:a")
			o := &odd{KEK: inner}
			tt.make(inner, o)
			err := kek.Verify(t.Context(), o)
			require.ErrorContains(t, err, tt.text)
			require.True(t, strings.HasPrefix(err.Error(), "kek: "), err.Error())
			var e *kek.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, o.ID(), e.KEK)
			requireOnly(t, err, tt.is)
		})
	}
}

// answer makes a call with a fixed answer.
func answer(b []byte, err error) func(context.Context, []byte, []byte) ([]byte, error) {
	return func(context.Context, []byte, []byte) ([]byte, error) { return bytes.Clone(b), err }
}

func thirdCall(err error) func(*kektest.KEK, *odd) {
	return func(k *kektest.KEK, o *odd) {
		o.unwrap = func(ctx context.Context, w, ad []byte) ([]byte, error) {
			if o.unwraps.Load() == 2 {
				return nil, err
			}
			return k.Unwrap(ctx, w, ad)
		}
	}
}

// requireOnly checks that an error is of one kind and of no other.
func requireOnly(t require.TestingT, err, kind error) {
	for _, k := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrWrongKey, kek.ErrFaulty} {
		if k == kind {
			require.ErrorIs(t, err, k)
		} else {
			require.NotErrorIs(t, err, k)
		}
	}
}

// A context that ends during any of the three calls ends Verify.
func TestVerifyContext(t *testing.T) {
	k := kektest.New("kms:a")
	err := kek.Verify(cancelled(t), k)
	require.ErrorIs(t, err, context.Canceled)
	requireOnly(t, err, kek.ErrUnreachable)
	require.Zero(t, k.Calls(), "not called")

	for call := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		inner := kektest.New("kms:a")
		n := 0
		o := &odd{KEK: inner}
		o.wrap = func(ctx context.Context, p, ad []byte) ([]byte, error) {
			if n++; n > call {
				cancel()
			}
			return inner.Wrap(ctx, p, ad)
		}
		o.unwrap = func(ctx context.Context, w, ad []byte) ([]byte, error) {
			if n++; n > call {
				cancel()
			}
			return inner.Unwrap(ctx, w, ad)
		}
		err := kek.Verify(ctx, o)
		require.ErrorIs(t, err, context.Canceled, "call %d", call)
		requireOnly(t, err, kek.ErrUnreachable)
	}
}

// A KEK that changes what it is given harms neither the check nor a key.
func TestKEKChangesItsArguments(t *testing.T) {
	inner := kektest.New("kms:a")
	o := &odd{KEK: inner}
	o.wrap = func(ctx context.Context, p, ad []byte) ([]byte, error) {
		defer func() { clear(p); clear(ad) }()
		return inner.Wrap(ctx, p, ad)
	}
	o.unwrap = func(ctx context.Context, w, ad []byte) ([]byte, error) {
		defer func() { clear(w); clear(ad) }()
		return inner.Unwrap(ctx, w, ad)
	}
	require.NoError(t, kek.Verify(t.Context(), o))

	s := newSet(t, o, kektest.New("kms:b"))
	dek := key.NewDEK()
	check := key.CheckOf(dek)
	c, err := s.WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Storage, dek)
	require.NoError(t, err)
	require.Equal(t, check, key.CheckOf(dek), "the DEK was changed")
	before := bytes.Clone(c)
	_, got, err := s.UnwrapDEK(t.Context(), c)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, got))
	require.Equal(t, before, c, "the container was changed")
}

// Verify leaves nothing behind and asks for nothing secret of ours: what the KEK
// gets to see is a key that nobody uses.
func TestVerifyUsesFreshKeys(t *testing.T) {
	seen := map[string]bool{}
	inner := kektest.New("kms:a")
	o := &odd{KEK: inner, wrap: func(ctx context.Context, p, ad []byte) ([]byte, error) {
		seen[string(p)] = true
		return inner.Wrap(ctx, p, ad)
	}}
	for range 5 {
		require.NoError(t, kek.Verify(t.Context(), o))
	}
	require.Len(t, seen, 5)
}

func ExampleVerify() {
	k := kektest.New("kms:a")
	fmt.Println(kek.Verify(context.Background(), k))
	k.FailNext(math.MaxInt, kek.ErrDenied)
	fmt.Println(kek.Verify(context.Background(), k))
	// Output:
	// <nil>
	// kek: wrap a test key: KEK kms:a: KEK denied access; check its credentials and policy
}
