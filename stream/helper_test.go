package stream_test

import (
	"bytes"
	"crypto/fips140"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

const (
	keyID    = key.ID(7)
	fullHead = 48 + 64 // of a header, without label and metadata
)

var place = stream.Place{Label: "test", Data: []byte("index 12, term 3")}

// headSize is the length of the header of a stream without metadata.
func headSize(at stream.Place) int { return fullHead + len(at.Label) }

func counting(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(from + i)
	}
	return b
}

// text is n bytes no 4 KiB of which are like any others.
func text(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func fixedDEK(tb testing.TB, from int) key.DEK {
	tb.Helper()
	dek, err := insecurekey.New(counting(from, 32))
	require.NoError(tb, err)
	return dek
}

// newStore returns a keystore whose active storage key is keyID, 00 01 .. 1f.
func newStore(tb testing.TB, opts ...keystore.Option) *keystore.Store {
	tb.Helper()
	s, err := keystore.New(opts...)
	require.NoError(tb, err)
	require.NoError(tb, s.Install(keyID, key.Storage, fixedDEK(tb, 0)))
	require.NoError(tb, s.Activate(keyID))
	return s
}

// fixedKeys begins every stream with one salt, so that streams come out the same
// where nonces are counted.
type fixedKeys struct {
	*keystore.Store
	id   key.ID
	salt [keystore.StreamSalt]byte
}

func newFixedKeys(tb testing.TB) *fixedKeys {
	tb.Helper()
	return &fixedKeys{newStore(tb), keyID, [keystore.StreamSalt]byte(counting(0x80, keystore.StreamSalt))}
}

func (k *fixedKeys) NewStreamKey() (key.ID, [keystore.StreamSalt]byte, key.DEK, error) {
	dek, err := k.StreamKey(k.id, k.salt)
	return k.id, k.salt, dek, err
}

// byHandOf is the second implementation of what keys and place make.
func byHandOf(k *fixedKeys, segment int) byHand {
	return byHand{dek: counting(0, 32), id: keyID, salt: k.salt[:], segment: segment, at: place}
}

// strictFIPS says that no stream can be foreseen: its nonces are random.
func strictFIPS() bool { return fips140.Enforced() }

func seal(tb testing.TB, keys stream.Keys, at stream.Place, plaintext []byte, opts ...stream.Option) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := stream.NewWriter(tb.Context(), &out, keys, at, opts...)
	require.NoError(tb, err)
	n, err := w.Write(plaintext)
	require.NoError(tb, err)
	require.Equal(tb, len(plaintext), n)
	require.NoError(tb, w.Close())
	return out.Bytes()
}

func open(tb testing.TB, keys stream.Keys, at stream.Place, sealed []byte, opts ...stream.Option) ([]byte, error) {
	tb.Helper()
	r, err := stream.NewReader(tb.Context(), bytes.NewReader(sealed), keys, at, opts...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
