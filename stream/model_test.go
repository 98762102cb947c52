package stream_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/stream"
)

// Whatever the pieces, the options and the way of writing: what comes out is what
// the second implementation makes, and it opens to what went in.
func TestModel(t *testing.T) {
	store := newStore(t)
	rapid.Check(t, func(t *rapid.T) {
		keys := &fixedKeys{Store: store, id: keyID}
		copy(keys.salt[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "salt"))
		at := stream.Place{
			Label: rapid.StringMatching(`[!-~]{1,64}`).Draw(t, "label"),
			Data:  rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "data"),
		}
		meta := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "metadata")
		segment := rapid.IntRange(stream.MinSegment, stream.MinSegment+50).Draw(t, "segment")
		workers := rapid.IntRange(1, 4).Draw(t, "workers")

		var out bytes.Buffer
		w, err := stream.NewWriter(context.Background(), &out, keys, at,
			stream.WithMetadata(meta), stream.WithSegmentSize(segment), stream.WithWorkers(workers))
		require.NoError(t, err)
		var plaintext []byte
		for range rapid.IntRange(0, 6).Draw(t, "writes") {
			n := rapid.OneOf(
				rapid.IntRange(0, 100),
				rapid.IntRange(segment-2, segment+2),
				rapid.Just(segment-len(plaintext)%segment), // up to the end of a segment
				rapid.IntRange(0, 40*segment)).Draw(t, "size")
			piece := text(n)
			if rapid.Bool().Draw(t, "read") {
				m, err := w.ReadFrom(onlyReader{bytes.NewReader(piece)})
				require.NoError(t, err)
				require.EqualValues(t, n, m)
			} else {
				m, err := w.Write(piece)
				require.NoError(t, err)
				require.Equal(t, n, m)
			}
			plaintext = append(plaintext, piece...)
		}
		require.NoError(t, w.Close())
		if !strictFIPS() {
			hand := byHand{counting(0, 32), keyID, keys.salt[:], segment, at, meta}
			require.True(t, bytes.Equal(hand.seal(plaintext), out.Bytes()))
		}
		r, err := stream.NewReader(context.Background(), &out, keys, at, stream.WithWorkers(rapid.IntRange(1, 4).Draw(t, "readers")))
		require.NoError(t, err)
		require.True(t, bytes.Equal(meta, r.Metadata()))
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext, got))
	})
}

// A nonce that is not the segment's number opens as well: strict FIPS mode draws
// them.
func TestAnyNonceOpens(t *testing.T) {
	keys := newFixedKeys(t)
	hand := byHandOf(keys, seg)
	plaintext := text(2*seg + 10)
	sealed := hand.sealWith(plaintext, func(number uint64) []byte { return counting(0xf0+int(number), 12) })
	got, err := open(t, keys, place, sealed)
	require.NoError(t, err)
	require.True(t, bytes.Equal(plaintext, got))
}
