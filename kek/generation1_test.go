package kek_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
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
