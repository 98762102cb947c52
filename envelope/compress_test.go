package envelope_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
)

// bodySaying is a compressed body that says it has n bytes when decoded, and has so
// many in front of that.
func bodySaying(n uint64, elements int) []byte {
	body := binary.AppendUvarint(make([]byte, 0, elements+binary.MaxVarintLen64), n)
	return body[:len(body)+elements]
}

// A length that a body cannot have is refused before memory is taken for it, although
// the envelope is authentic: only a holder of the key makes such a one.
func TestDecodedLengthIsBoundedBeforeBytesAreAllocated(t *testing.T) {
	c := newCipher(t)
	header := envelope.Header{Suite: envelope.XAES256GCM, Flag: 1, KeyID: keyID}
	for _, tt := range []struct {
		name string
		body []byte
	}{
		{"empty", nil},
		{"no Snappy", []byte("\xff\xff\xff\xff\xff\xff\xff")},
		{"beyond 64 bits", bytes.Repeat([]byte{0xff}, 11)},
		{"says 4 GiB", bodySaying(1<<32-1, 1)},
		{"says 1 KiB", bodySaying(1024, 1)},
		{"says 16 MiB", bodySaying(16<<20, 1000)},
		{"cut", snappy.Encode(nil, make([]byte, 500))[:10]},
	} {
		env := envelope.SealBody(t, c, header, tt.body, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := c.OpenStorage(nil, env, nil)
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, envelope.ErrIntegrity, tt.name)
		require.Nil(t, got, tt.name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), "%s: bytes allocated", tt.name)
	}
}

// The bound is the most that any elements make: tried out, not computed.
func TestMaxDecodedIsExact(t *testing.T) {
	elements := []struct{ size, makes int }{{2, 11}, {3, 64}, {5, 64}} // copies
	for n := 1; n <= 60; n++ {
		elements = append(elements, struct{ size, makes int }{1 + n, n})
	}
	elements = append(elements, struct{ size, makes int }{2 + 61, 61})
	const most = 300
	best := make([]int, most) // of elements that begin with a literal, -1: none
	for size := range best {
		best[size] = -1
		for i, e := range elements {
			switch literal := i > 2; {
			case literal && e.size == size:
				best[size] = max(best[size], e.makes)
			case e.size < size && best[size-e.size] >= 0:
				best[size] = max(best[size], best[size-e.size]+e.makes)
			}
		}
		require.EqualValues(t, max(best[size], 0), envelope.MaxDecoded(size), "%d bytes", size)
	}

	// The decoder agrees that there is such a block, and none of a byte more.
	for copies := range 100 {
		body := append(binary.AppendUvarint(nil, uint64(1+64*copies)), 0, 'x')
		for range copies {
			body = append(body, 63<<2|2, 1, 0)
		}
		out, err := snappy.Decode(nil, body)
		require.NoError(t, err)
		require.EqualValues(t, len(out), envelope.MaxDecoded(2+3*copies))
		n, err := envelope.DecodedLen(body)
		require.NoError(t, err)
		require.Len(t, out, n)
		_, err = envelope.DecodedLen(bodySaying(uint64(n)+1, 2+3*copies))
		require.ErrorIs(t, err, envelope.ErrIntegrity)
	}
}

// Whatever the encoder makes is within the bound.
func TestEncodedIsWithinTheBound(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		part := rapid.SliceOfN(rapid.Byte(), 1, 70).Draw(rt, "part")
		tail := rapid.SliceOfN(rapid.Byte(), 0, 70).Draw(rt, "tail")
		plaintext := append(bytes.Repeat(part, rapid.IntRange(0, 3000).Draw(rt, "times")), tail...)
		n, err := envelope.DecodedLen(snappy.Encode(nil, plaintext))
		require.NoError(rt, err)
		require.Len(rt, plaintext, n)
	})
}

// Where an int has 32 bits, a product with the length of a body does not fit.
func TestBodyFrom32MiBOnIsNoIntegrityErrorIn32Bits(t *testing.T) {
	for _, mib := range []int{31, 32, 33, 34, 48} {
		n, err := envelope.DecodedLen(bodySaying(uint64(mib)<<20, mib<<20))
		require.NoError(t, err, "%d MiB", mib)
		require.Equal(t, mib<<20, n)
	}
	// A whole value. It is noise, or the body would be smaller.
	c := newCipher(t)
	s, err := c.NewSealer(nil, envelope.WithCompression())
	require.NoError(t, err)
	plaintext := make([]byte, 34<<20)
	rand.NewChaCha8([32]byte{}).Read(plaintext[1<<20:]) //nolint:errcheck // It never fails.
	env, err := s.SealStorage(nil, plaintext, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, env[1])
	require.Greater(t, len(env), 33<<20)
	got, err := c.OpenStorage(nil, env, nil)
	require.NoError(t, err)
	require.True(t, bytes.Equal(plaintext, got))
}

// A body that may well have so many bytes, which no plaintext has.
func TestDecodedLengthAboveMaxPlaintext(t *testing.T) {
	const elements = envelope.MaxPlaintext/64*3 + 3
	n, err := envelope.DecodedLen(bodySaying(envelope.MaxPlaintext, elements))
	require.NoError(t, err)
	require.Equal(t, envelope.MaxPlaintext, n)
	_, err = envelope.DecodedLen(bodySaying(envelope.MaxPlaintext+1, elements))
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.Less(t, uint64(envelope.MaxPlaintext), envelope.MaxDecoded(elements))
}
