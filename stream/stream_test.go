package stream_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/stream"
)

const seg = stream.MinSegment

var lengths = []int{0, 1, 100, seg - 1, seg, seg + 1, 2*seg - 1, 2 * seg, 2*seg + 1, 9*seg + 17, 20 * seg}

// The grid: every way to write makes the same stream, and every way to read gives
// the same bytes.
func TestGrid(t *testing.T) {
	keys := newFixedKeys(t)
	for _, n := range lengths {
		plaintext := text(n)
		whole := byHandOf(keys, seg).seal(plaintext)
		for _, workers := range []int{1, 2, 3, 8} {
			for _, size := range []int{1, 7, seg - 1, seg, seg + 1, 3*seg + 5, 1 << 20} {
				if size == 1 && n > 3*seg {
					continue
				}
				t.Run(fmt.Sprintf("%d bytes, %d workers, by %d", n, workers, size), func(t *testing.T) {
					sealed := sealBy(t, keys, plaintext, size, workers)
					require.Len(t, sealed, headSize(place)+n+(n/seg+1)*stream.Overhead)
					if !strictFIPS() {
						require.True(t, bytes.Equal(whole, sealed))
					}
					readBy(t, keys, sealed, plaintext, size, workers)
				})
			}
		}
	}
}

func sealBy(t *testing.T, keys stream.Keys, plaintext []byte, size, workers int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
	require.NoError(t, err)
	for rest := plaintext; len(rest) > 0; {
		b := bytes.Clone(rest[:min(size, len(rest))])
		n, err := w.Write(b)
		require.NoError(t, err)
		require.Len(t, b, n)
		clear(b) // it is the caller's again
		rest = rest[n:]
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func readBy(t *testing.T, keys stream.Keys, sealed, plaintext []byte, size, workers int) {
	t.Helper()
	r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
	require.NoError(t, err)
	var got []byte
	b := make([]byte, size)
	for {
		n, err := r.Read(b)
		got = append(got, b[:n]...)
		if err != nil {
			require.Equal(t, io.EOF, err)
			break
		}
		require.Positive(t, n)
	}
	require.True(t, bytes.Equal(plaintext, got))
	n, err := r.Read(b)
	require.Zero(t, n)
	require.Equal(t, io.EOF, err)
}
