package kek_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

// What the file KEK of the reference system wrapped opens, and what is wrapped here has
// its form: 60 bytes without associated data.
func TestGeneration1Vectors(t *testing.T) {
	text, err := os.ReadFile("testdata/kek_file_generation1.json")
	require.NoError(t, err)
	var file struct {
		Vectors []struct{ DEK, KEK, Nonce, Wrapped string }
	}
	require.NoError(t, json.Unmarshal(text, &file))
	require.Len(t, file.Vectors, 12)
	for _, v := range file.Vectors {
		path := filepath.Join(t.TempDir(), "kek")
		require.NoError(t, os.WriteFile(path, unhex(t, v.KEK), 0o600))
		k, err := kek.File(path)
		require.NoError(t, err)
		set, err := kek.NewSet(k)
		require.NoError(t, err)
		dek, err := set.UnwrapGeneration1(t.Context(), 7, unhex(t, v.Wrapped))
		require.NoError(t, err)
		require.Equal(t, v.DEK, hex.EncodeToString(insecurekey.Bytes(dek)))

		wrapped, err := set.WrapGeneration1(t.Context(), 7, dek)
		require.NoError(t, err)
		require.Len(t, wrapped, 60)
		again, err := set.UnwrapGeneration1(t.Context(), 7, wrapped)
		require.NoError(t, err)
		require.True(t, key.EqualDEK(dek, again))
	}
}

func TestGeneration1Refuses(t *testing.T) {
	a, b := kektest.New("kms:a"), kektest.New("kms:b")
	set, err := kek.NewSet(a, b)
	require.NoError(t, err)
	dek := key.NewDEK()
	wrapped, err := set.WrapGeneration1(t.Context(), 7, dek)
	require.NoError(t, err)
	require.Zero(t, b.Calls().Wraps, "generation 1 has one recipient")

	for bit := range 8 * len(wrapped) {
		wrapped[bit/8] ^= 1 << (bit % 8)
		_, err := set.UnwrapGeneration1(t.Context(), 7, wrapped)
		require.ErrorIs(t, err, kek.ErrWrongKey)
		wrapped[bit/8] ^= 1 << (bit % 8)
	}
	for _, bad := range [][]byte{nil, make([]byte, key.MaxWrap+1)} {
		_, err = set.UnwrapGeneration1(t.Context(), 7, bad)
		require.ErrorIs(t, err, key.ErrContainer)
	}
	_, err = set.WrapGeneration1(t.Context(), 0, dek)
	require.ErrorIs(t, err, key.ErrReservedID)
	_, err = set.WrapGeneration1(t.Context(), 7, key.DEK{})
	require.Error(t, err)

	a.FailNext(1, kek.ErrUnreachable)
	_, err = set.UnwrapGeneration1(t.Context(), 7, wrapped)
	require.ErrorIs(t, err, kek.ErrUnreachable)
	again, err := set.UnwrapGeneration1(t.Context(), 7, wrapped)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, again))
}

// Generation 1 has no place for parameters: a KEK that needs them wraps nothing there,
// and costs nothing where it is asked all the same.
func TestGeneration1RefusesKEKsWithParameters(t *testing.T) {
	plain, withParams := aesKEK(t, rawKEK(1)), &withParams{KEK: kektest.New("p"), unwrap: noParams}
	dek := key.NewDEK()
	wrapped, err := newSet(t, plain, withParams).WrapGeneration1(t.Context(), 7, dek)
	require.NoError(t, err, "the first KEK alone wraps")
	first := newSet(t, withParams, plain)
	w, err := first.WrapGeneration1(t.Context(), 7, dek)
	require.ErrorIs(t, err, kek.ErrConfig)
	require.ErrorContains(t, err, "KEK p: its wraps have parameters, for which generation 1 has no place")
	require.Nil(t, w)
	got, err := first.UnwrapGeneration1(t.Context(), 7, wrapped)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, got))
}

func noParams(_ context.Context, params, _, _ []byte) ([]byte, error) {
	if len(params) == 0 {
		return nil, kek.ErrWrongKey
	}
	panic("generation 1 has no parameters")
}

func TestGeneration1RefusesAPassphrase(t *testing.T) {
	k := newPassphrase(t, secret)
	set := newSet(t, k, aesKEK(t, rawKEK(1)))
	_, err := set.WrapGeneration1(t.Context(), 7, key.NewDEK())
	require.ErrorIs(t, err, kek.ErrConfig)

	dek := key.NewDEK()
	wrapped, err := newSet(t, aesKEK(t, rawKEK(1))).WrapGeneration1(t.Context(), 7, dek)
	require.NoError(t, err)
	got, err := set.UnwrapGeneration1(t.Context(), 7, wrapped)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, got))
	require.Zero(t, kek.Derived(k), "no key is derived for a wrap that has no parameters")
}

func TestGeneration1WrapOf59Or61Bytes(t *testing.T) {
	set := newSet(t, aesKEK(t, rawKEK(1)))
	wrapped, err := set.WrapGeneration1(t.Context(), 7, key.NewDEK())
	require.NoError(t, err)
	for text, w := range map[string][]byte{
		"a wrap of 59 bytes, want 60": wrapped[:59],
		"a wrap of 61 bytes, want 60": append(wrapped[:60:60], 0),
	} {
		got, err := set.UnwrapGeneration1(t.Context(), 7, w)
		requireOnly(t, err, kek.ErrWrongKey)
		require.ErrorContains(t, err, text)
		require.True(t, got.IsZero())
	}
}

// What the first KEK does not open, for whatever reason, the second does.
func TestGeneration1SecondKEKOpens(t *testing.T) {
	dek := key.NewDEK()
	wrapped, err := newSet(t, aesKEK(t, rawKEK(1))).WrapGeneration1(t.Context(), 7, dek)
	require.NoError(t, err)
	down := kektest.New("kms:a")
	down.FailNext(1, kek.ErrUnreachable)
	for _, first := range []kek.KEK{aesKEK(t, rawKEK(2)), kektest.New("kms:b"), down} {
		got, err := newSet(t, first, aesKEK(t, rawKEK(1))).UnwrapGeneration1(t.Context(), 7, wrapped)
		require.NoError(t, err)
		require.True(t, key.EqualDEK(dek, got))
	}
	_, err = newSet(t, aesKEK(t, rawKEK(2)), aesKEK(t, rawKEK(3))).UnwrapGeneration1(t.Context(), 7, wrapped)
	requireOnly(t, err, kek.ErrWrongKey)
	var ue *kek.UnwrapError
	require.ErrorAs(t, err, &ue)
	require.Len(t, ue.Failed, 2)
}

func TestGeneration1Concurrently(t *testing.T) {
	set := newSet(t, aesKEK(t, rawKEK(1)), aesKEK(t, rawKEK(2)))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				id, dek := key.ID(i*50+j+1), key.NewDEK()
				wrapped, err := set.WrapGeneration1(t.Context(), id, dek)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := set.UnwrapGeneration1(t.Context(), id, wrapped)
				if err != nil || !key.EqualDEK(dek, got) {
					t.Errorf("key %s: another key, or %v", id, err)
				}
			}
		})
	}
	wg.Wait()
}
