package kek_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
)

func TestAESRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := aesKEK(t, rapid.SliceOfN(rapid.ByteRange(1, 255), 32, 32).Draw(rt, "kek"))
		plaintext := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "plaintext")
		ad := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "ad")
		before, adBefore := bytes.Clone(plaintext), bytes.Clone(ad)

		w, err := k.Wrap(t.Context(), plaintext, ad)
		require.NoError(rt, err)
		require.Len(rt, w, 60)
		wBefore := bytes.Clone(w)
		got, err := k.Unwrap(t.Context(), w, ad)
		require.NoError(rt, err)
		require.Equal(rt, plaintext, got)

		_, err = k.Unwrap(t.Context(), w, append(ad, 0))
		require.ErrorIs(rt, err, kek.ErrWrongKey)
		bit := rapid.IntRange(0, 8*len(w)-1).Draw(rt, "bit")
		changed := bytes.Clone(w)
		changed[bit/8] ^= 1 << (bit % 8)
		got, err = k.Unwrap(t.Context(), changed, ad)
		require.ErrorIs(rt, err, kek.ErrWrongKey)
		require.Nil(rt, got)

		require.Equal(rt, before, plaintext, "arguments are only read")
		require.Equal(rt, adBefore, ad[:len(adBefore)])
		require.Equal(rt, wBefore, w)
	})
}

func TestAESNoncesDiffer(t *testing.T) {
	k := aesKEK(t, rawKEK(1))
	seen := map[string]bool{}
	for range 1000 {
		w, err := k.Wrap(t.Context(), rawKEK(2), nil)
		require.NoError(t, err)
		seen[string(w[:12])] = true
	}
	require.Len(t, seen, 1000)
}

func TestAESOtherKey(t *testing.T) {
	w, err := aesKEK(t, rawKEK(1)).Wrap(t.Context(), rawKEK(2), []byte("ad"))
	require.NoError(t, err)
	got, err := aesKEK(t, rawKEK(3)).Unwrap(t.Context(), w, []byte("ad"))
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.Nil(t, got)
}

func TestAESLengths(t *testing.T) {
	k := aesKEK(t, rawKEK(1))
	for _, n := range []int{0, 16, 31, 33, 64} {
		w, err := k.Wrap(t.Context(), make([]byte, n), nil)
		require.ErrorContains(t, err, fmt.Sprintf("%d bytes, want 32", n))
		require.Nil(t, w)
	}
	for _, n := range []int{0, 12, 27, 28, 59, 61, 1000} {
		_, err := k.Unwrap(t.Context(), make([]byte, n), nil)
		require.ErrorIs(t, err, kek.ErrWrongKey)
		require.ErrorContains(t, err, fmt.Sprintf("%d bytes, want 60", n))
	}
}

func TestAESContext(t *testing.T) {
	k := aesKEK(t, rawKEK(1))
	w, err := k.Wrap(t.Context(), rawKEK(2), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = k.Wrap(ctx, rawKEK(2), nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, kek.ErrUnreachable)
	_, err = k.Unwrap(ctx, w, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, kek.ErrUnreachable)
}

func TestNewAESRefuses(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33} {
		_, err := kek.NewAES("file", bytes.Repeat([]byte{1}, n))
		require.ErrorIs(t, err, kek.ErrBadKey)
	}
	_, err := kek.NewAES("file", make([]byte, 32))
	require.ErrorIs(t, err, kek.ErrBadKey)
	require.ErrorContains(t, err, "all bytes are zero")
	raw := rawKEK(1)
	k := aesKEK(t, raw)
	id := k.ID()
	w, err := k.Wrap(t.Context(), rawKEK(2), nil)
	require.NoError(t, err)
	clear(raw)
	_, err = k.Unwrap(t.Context(), w, nil)
	require.NoError(t, err, "the bytes were copied")
	require.Equal(t, id, k.ID())
}

// Neither a KEK nor what holds one prints its key.
func TestAESDoesNotShow(t *testing.T) {
	k := aesKEK(t, rawKEK(1))
	set, err := kek.NewSet(k)
	require.NoError(t, err)
	type hidden struct {
		k kek.KEK
		v kek.AES
	}
	h := hidden{k, *k}
	for _, v := range []any{k, *k, set, *set, h, &h, []hidden{h}, map[string]*kek.AES{"k": k}, struct{ any }{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%t"} {
			requireHidden(t, fmt.Sprintf(verb, v), rawKEK(1))
		}
		if b, err := json.Marshal(v); err == nil {
			requireHidden(t, string(b), rawKEK(1))
		}
	}
}

// requireHidden looks for 8 bytes in a row in the forms in which fmt shows bytes
// and the words of a key schedule.
func requireHidden(t *testing.T, text string, raw []byte) {
	t.Helper()
	for i := 0; i+8 <= len(raw); i += 4 {
		b := raw[i : i+8]
		le := func(f string) string {
			return fmt.Sprintf(f, uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24)
		}
		be := func(f string) string {
			return fmt.Sprintf(f, uint32(b[3])|uint32(b[2])<<8|uint32(b[1])<<16|uint32(b[0])<<24)
		}
		for _, needle := range []string{
			string(b), hex.EncodeToString(b), fmt.Sprintf("%X", b), fmt.Sprintf("% x", b), fmt.Sprint(b)[1:20],
			le("%d"), be("%d"), le("%#x"), be("%#x"), le("%X"), be("%X"), le("%x"), be("%x"),
		} {
			require.NotContains(t, text, needle)
		}
	}
}
