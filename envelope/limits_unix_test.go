//go:build unix

package envelope_test

import (
	"crypto/fips140"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/atrestdb/atrest/envelope"
)

// reserve returns memory of which nothing but the first page may be touched.
func reserve(t *testing.T, size int) []byte {
	t.Helper()
	if math.MaxInt == math.MaxInt32 {
		t.Skip("a gigabyte of address space is too much to ask for")
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(b)) })
	require.NoError(t, unix.Mprotect(b[:unix.Getpagesize()], unix.PROT_READ|unix.PROT_WRITE))
	return b
}

// What is too large is refused before it is read, and before a nonce is spent.
func TestTooLarge(t *testing.T) {
	c := newCipher(t)
	plaintext := reserve(t, envelope.MaxPlaintext+1)
	for _, k := range kinds {
		m := newMeter(t, plenty, plenty)
		for _, dst := range [][]byte{nil, make([]byte, 0, 1000)} {
			out, err := k.seal(counted(t, c, m), dst, plaintext)
			require.ErrorIs(t, err, tooLargeOr(k), k.name)
			require.Nil(t, out, k.name)
		}
		require.Zero(t, m.out)

		env := reserve(t, envelope.MaxPlaintext+1+envelope.AES256GCM.Overhead())
		copy(env, envelope.AppendStorageAAD(nil, envelope.Header{Suite: envelope.AES256GCM, KeyID: keyID}, nil))
		for _, dst := range [][]byte{nil, reserve(t, len(env)+1000)[:0]} {
			out, err := k.open(c, dst, env)
			require.ErrorIs(t, err, envelope.ErrTooLarge, k.name)
			require.Nil(t, out, k.name)
		}
	}
	for name, s := range sealers(t, c) {
		_, err := s.SealStorage(nil, nil, nil) // a block is at hand
		require.NoError(t, err, name)
		dst := reserve(t, envelope.MaxPlaintext+1000)[:0]
		out, err := s.SealStorage(dst, plaintext, nil)
		require.ErrorIs(t, err, envelope.ErrTooLarge, name)
		require.Nil(t, out, name)
		out, err = s.SealRaft(dst, plaintext, group)
		require.ErrorIs(t, err, envelope.ErrTooLarge, name)
		require.Nil(t, out, name)
	}
	env := reserve(t, envelope.MaxPlaintext+1+envelope.XAES256GCM.Overhead())
	copy(env, envelope.AppendStorageAAD(nil, envelope.Header{Suite: envelope.XAES256GCM, KeyID: keyID}, nil))
	for _, k := range kinds[:2] {
		out, err := k.open(c, nil, env)
		require.ErrorIs(t, err, envelope.ErrTooLarge, k.name)
		require.Nil(t, out, k.name)
	}
}

// tooLargeOr is what sealing too much answers: generation 1 is refused before that
// where it has no nonces.
func tooLargeOr(k kind) error {
	if k.name == "raft generation 1" && fips140.Enforced() {
		return envelope.ErrUnsupported
	}
	return envelope.ErrTooLarge
}
