package kek_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

// A KEK with parameters gets back what it gave, in sets with others and alone, and
// is never called without.
func TestParamKEK(t *testing.T) {
	k := &withParams{KEK: kektest.New("p")}
	plain := kektest.New("a")
	dek := key.NewDEK()
	c := wrapDEK(t, newSet(t, plain, k), 7, key.Storage, dek)
	parsed, err := key.ParseContainer(c)
	require.NoError(t, err)
	require.Empty(t, parsed.Recipients[0].Params)
	require.Equal(t, []byte("abcdefgh"), parsed.Recipients[1].Params)

	for _, s := range []*kek.Set{newSet(t, k), newSet(t, plain), newSet(t, k, plain)} {
		_, got, err := s.UnwrapDEK(t.Context(), c)
		require.NoError(t, err)
		require.True(t, key.EqualDEK(dek, got))
		out, err := s.RewrapDEK(t.Context(), c)
		require.NoError(t, err)
		_, _, err = s.UnwrapDEK(t.Context(), out)
		require.NoError(t, err)
	}

	// Other parameters, none, or those of the other recipient: refused.
	for _, params := range [][]byte{nil, []byte("abcdefgi"), []byte("abcdefg"), []byte("abcdefghi")} {
		changed := parsed
		changed.Recipients = []key.Recipient{{KEK: "p", Params: params, Wrap: parsed.Recipients[1].Wrap}}
		b, err := changed.Append(nil)
		require.NoError(t, err)
		refusedDEK(t, newSet(t, k), b, kek.ErrWrongKey)
	}
	// The same KEK, wrapped in something that drops the methods, cannot open it, and
	// says what is the matter.
	hidden := struct{ kek.KEK }{k}
	_, _, err = newSet(t, hidden).UnwrapDEK(t.Context(), c)
	requireOnly(t, err, kek.ErrWrongKey)
	require.ErrorContains(t, err, "its wrap has 8 bytes of parameters, and it takes none")
}

// A KEK with parameters does not keep what it is given, nor change the key.
func TestParamKEKAliases(t *testing.T) {
	inner := kektest.New("p")
	k := &withParams{KEK: inner}
	k.unwrap = func(ctx context.Context, params, wrapped, ad []byte) ([]byte, error) {
		out, err := inner.Unwrap(ctx, wrapped, append(bytes.Clone(params), ad...))
		clear(params)
		clear(wrapped)
		clear(ad)
		return out, err
	}
	s := newSet(t, k)
	c := wrapDEK(t, s, 7, key.Storage, key.NewDEK())
	for range 2 {
		_, _, err := s.UnwrapDEK(t.Context(), c)
		require.NoError(t, err)
	}
}

func TestParamKEKFaulty(t *testing.T) {
	for _, tt := range []struct {
		name            string
		params, wrapped int
		text            string
	}{
		{"most", key.MaxParams, key.MaxWrap, ""},
		{"long", key.MaxParams + 1, 1, "it answered with 1025 bytes of parameters, want at most 1024"},
		{"no wrap", 1, 0, "it answered with 0 bytes, want 1 to 4096"},
		{"long wrap", 0, key.MaxWrap + 1, "it answered with 4097 bytes, want 1 to 4096"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &withParams{KEK: kektest.New("p"), wrap: func(_, _ []byte) ([]byte, []byte, error) {
				return make([]byte, tt.params), make([]byte, tt.wrapped), nil
			}}
			_, err := newSet(t, k).WrapDEK(t.Context(), cluster, 7, key.Storage, key.NewDEK())
			if tt.text == "" {
				require.NoError(t, err)
				return
			}
			requireOnly(t, err, kek.ErrFaulty)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

func TestVerifyParams(t *testing.T) {
	unknown := errors.New("it fell over")
	for _, tt := range []struct {
		name   string
		change func(k *kektest.KEK, o *withParams)
		is     error
		text   string
	}{
		{"good", func(*kektest.KEK, *withParams) {}, nil, ""},
		{"no parameters this time", func(k *kektest.KEK, o *withParams) {
			o.wrap = func(_, w []byte) ([]byte, []byte, error) { return nil, w, nil }
			o.unwrap = func(ctx context.Context, _, w, ad []byte) ([]byte, error) {
				return k.Unwrap(ctx, w, append([]byte("abcdefgh"), ad...))
			}
		}, nil, ""},
		{"ignores parameters", func(k *kektest.KEK, o *withParams) {
			o.unwrap = func(ctx context.Context, _, w, ad []byte) ([]byte, error) {
				return k.Unwrap(ctx, w, append([]byte("abcdefgh"), ad...))
			}
		}, kek.ErrFaulty, "it ignores parameters; do not use this KEK"},
		{"unclassified", func(k *kektest.KEK, o *withParams) {
			o.unwrap = func(ctx context.Context, p, w, ad []byte) ([]byte, error) {
				if string(p) != "abcdefgh" {
					return nil, unknown
				}
				return k.Unwrap(ctx, w, append(bytes.Clone(p), ad...))
			}
		}, kek.ErrUnreachable, "with other parameters, where ErrWrongKey is wanted: it fell over"},
		{"the key among the parameters", func(_ *kektest.KEK, o *withParams) {
			o.KEK = &odd{KEK: kektest.New("p"), wrap: func(_ context.Context, p, _ []byte) ([]byte, error) { return p, nil }}
			o.wrap = func(_, w []byte) ([]byte, []byte, error) { return w, []byte("x"), nil }
		}, kek.ErrFaulty, "the wrap shows the key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inner := kektest.New("p")
			o := &withParams{KEK: inner}
			tt.change(inner, o)
			err := kek.Verify(t.Context(), o)
			if tt.is == nil {
				require.NoError(t, err)
				return
			}
			requireOnly(t, err, tt.is)
			require.ErrorContains(t, err, tt.text)
		})
	}
}
