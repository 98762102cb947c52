package stream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// victim is a small stream, cut into its parts.
type victim struct {
	keys      *fixedKeys
	plaintext []byte
	header    []byte
	segments  [][]byte
}

const full = seg + stream.Overhead

func newVictim(tb testing.TB, n int) victim {
	tb.Helper()
	v := victim{keys: newFixedKeys(tb), plaintext: text(n)}
	at := headSize(place) + len("meta")
	sealed := seal(tb, v.keys, place, v.plaintext, stream.WithSegmentSize(seg), stream.WithMetadata([]byte("meta")))
	v.header, sealed = sealed[:at], sealed[at:]
	v.segments = slices.Collect(slices.Chunk(sealed, full))
	return v
}

func (v victim) join(segments ...[]byte) []byte {
	return slices.Concat(append([][]byte{v.header}, segments...)...)
}

// refused checks, for every way to read, that a damaged stream is refused, and that
// nothing is given out but the plaintext of the segments before the damage.
func (v victim) refused(tb testing.TB, damaged []byte, intact int, workers ...int) {
	tb.Helper()
	for _, n := range workers {
		r, err := stream.NewReader(tb.Context(), bytes.NewReader(damaged), v.keys, place, stream.WithWorkers(n))
		if err != nil {
			v.wrong(tb, err)
			continue
		}
		got, err := io.ReadAll(r)
		v.wrong(tb, err)
		if !bytes.Equal(got, v.plaintext[:min(intact*seg, len(v.plaintext))]) {
			tb.Fatalf("%d workers: %d bytes came out, %d segments are intact", n, len(got), intact)
		}
	}
	r, err := stream.NewReaderAt(tb.Context(), bytes.NewReader(damaged), int64(len(damaged)), v.keys, place)
	if err != nil {
		v.wrong(tb, err)
		return
	}
	// Each segment by itself: it is refused, or it is the right one.
	wrong := r.Size() != int64(len(v.plaintext))
	buf := make([]byte, seg)
	for at := int64(0); at < r.Size(); at += seg {
		n, err := r.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			v.wrong(tb, err)
			wrong = true
		}
		if at+int64(n) > int64(len(v.plaintext)) || !bytes.Equal(buf[:n], v.plaintext[at:][:n]) {
			tb.Fatal("what was not sealed came out")
		}
	}
	if !wrong {
		tb.Fatal("read at offsets, the damage does not show")
	}
}

func (v victim) wrong(tb testing.TB, err error) {
	tb.Helper()
	for _, want := range []error{stream.ErrIntegrity, stream.ErrFormat, stream.ErrUnsupported, stream.ErrLabel, keystore.ErrUnknownKey} {
		if errors.Is(err, want) {
			return
		}
	}
	tb.Fatalf("got %v", err)
}

func TestEveryBitCounts(t *testing.T) {
	v := newVictim(t, 2*seg+100)
	sealed := v.join(v.segments...)
	step := 1
	if race || testing.Short() {
		step = 37
	}
	for bit := 0; bit < 8*len(sealed); bit += step {
		workers := []int{1}
		if bit%101 == 0 {
			workers = []int{1, 2, 5}
		}
		sealed[bit/8] ^= 1 << (bit % 8)
		v.refused(t, sealed, max(0, bit/8-len(v.header))/full, workers...)
		sealed[bit/8] ^= 1 << (bit % 8)
	}
	got, err := open(t, v.keys, place, sealed)
	require.NoError(t, err)
	require.True(t, bytes.Equal(v.plaintext, got))
}

func TestEveryTruncation(t *testing.T) {
	for _, n := range []int{0, 5, seg, 2*seg + 100} {
		v := newVictim(t, n)
		sealed := v.join(v.segments...)
		step := 1
		if race || testing.Short() {
			step = 13
		}
		for k := 0; k < len(sealed); k += step {
			v.refused(t, sealed[:k], max(0, k-len(v.header))/full, 1, 3)
		}
		// Whole segments missing at the end, and each few bytes more.
		for i := range v.segments {
			cut := v.join(v.segments[:i]...)
			v.refused(t, cut, i, 1, 3)
			for _, more := range []int{1, 27, 28, 29, full - 1, full} {
				v.refused(t, slices.Concat(cut, make([]byte, more)), i, 1, 3)
			}
		}
		for more := 1; more < 2*full; more += step {
			v.refused(t, slices.Concat(sealed, make([]byte, more)), len(v.segments)-1, 1, 3)
		}
	}
}

func TestSegmentsKeepTheirPlace(t *testing.T) {
	for _, n := range []int{3 * seg, 4*seg + 100} {
		v := newVictim(t, n)
		all := v.segments
		for i := range all {
			t.Run(fmt.Sprintf("%d of %d", i, len(all)), func(t *testing.T) {
				v.refused(t, v.join(slices.Delete(slices.Clone(all), i, i+1)...), i, 1, 3)
				for j := range all {
					// A copy of one before the other.
					v.refused(t, v.join(slices.Insert(slices.Clone(all), j, all[i])...), firstWrong(all, slices.Insert(slices.Clone(all), j, all[i])), 1, 3)
					if i == j {
						continue
					}
					swapped := slices.Clone(all)
					swapped[i], swapped[j] = swapped[j], swapped[i]
					v.refused(t, v.join(swapped...), min(i, j), 1, 3)
					replaced := slices.Clone(all)
					replaced[i] = all[j]
					v.refused(t, v.join(replaced...), i, 1, 3)
				}
			})
		}
	}
}

// firstWrong counts the segments that are where they were.
func firstWrong(want, got [][]byte) int {
	for i := range want {
		if !bytes.Equal(want[i], got[i]) {
			return i
		}
	}
	return len(want) - 1 // what follows the last one is taken for a part of it
}

// Parts of one stream do not open in another under the same key.
func TestSplice(t *testing.T) {
	v := newVictim(t, 2*seg+100)
	o := v
	o.keys = &fixedKeys{v.keys.Store, keyID, v.keys.salt}
	o.keys.salt[0]++
	sealed := seal(t, o.keys, place, v.plaintext, stream.WithSegmentSize(seg), stream.WithMetadata([]byte("meta")))
	o.header, o.segments = sealed[:len(v.header)], slices.Collect(slices.Chunk(sealed[len(v.header):], full))
	for i := range v.segments {
		spliced := slices.Clone(v.segments)
		spliced[i] = o.segments[i]
		v.refused(t, v.join(spliced...), i, 1, 3)
	}
	v.refused(t, o.join(v.segments...), 0, 1, 3)
	v.refused(t, v.join(o.segments...), 0, 1, 3)
}

// Drawn nonces differ from the numbers and from each other, and open as counted ones
// do.
func TestRandomNonces(t *testing.T) {
	keys := newFixedKeys(t)
	plaintext := text(9*seg + 10)
	for _, workers := range []int{1, 3} {
		seen := map[string]bool{}
		for range 20 {
			sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg), stream.WithRandomNonces(), stream.WithWorkers(workers))
			for s := range slices.Chunk(sealed[headSize(place):], full) {
				require.NotEqual(t, make([]byte, 4), s[:4])
				seen[string(s[:12])] = true
			}
			readBy(t, keys, sealed, plaintext, seg, workers)
		}
		require.Len(t, seen, 200)
	}
	_, err := open(t, keys, place, seal(t, keys, place, nil), stream.WithRandomNonces())
	require.ErrorIs(t, err, stream.ErrArgument)
}

func TestPlaces(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(100))
	for _, data := range [][]byte{nil, {0}, place.Data[1:], place.Data[:len(place.Data)-1], append(bytes.Clone(place.Data), 0)} {
		_, err := open(t, keys, stream.Place{Label: place.Label, Data: data}, sealed)
		require.Equal(t, stream.ErrIntegrity, err)
		_, err = stream.NewReaderAt(t.Context(), bytes.NewReader(sealed), int64(len(sealed)), keys, stream.Place{Label: place.Label, Data: data})
		require.Equal(t, stream.ErrIntegrity, err)
	}
	_, err := open(t, keys, stream.Place{Label: "Test", Data: place.Data}, sealed)
	require.ErrorIs(t, err, stream.ErrLabel)
	require.EqualError(t, err, `stream: has another label: "test", not "Test"`)

	// A byte that moves from the label to the data makes another place.
	a := seal(t, keys, stream.Place{Label: "ab", Data: []byte("c")}, nil)
	forged := slices.Concat(a[:45], []byte{1}, a[46:49], a[50:])
	_, err = open(t, keys, stream.Place{Label: "a", Data: []byte("bc")}, forged)
	require.Equal(t, stream.ErrIntegrity, err)
}

func TestWrongKey(t *testing.T) {
	sealed := seal(t, newStore(t), place, text(100))
	other, err := keystore.New()
	require.NoError(t, err)
	_, err = open(t, other, place, sealed)
	require.ErrorIs(t, err, keystore.ErrUnknownKey)
	var missing *keystore.KeyError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, keyID, missing.ID)

	require.NoError(t, other.Install(keyID, key.Storage, fixedDEK(t, 1)))
	_, err = open(t, other, place, sealed)
	require.Equal(t, stream.ErrIntegrity, err)

	raft, err := keystore.New()
	require.NoError(t, err)
	require.NoError(t, raft.Install(keyID, key.Raft, fixedDEK(t, 0)))
	_, err = open(t, raft, place, sealed)
	require.ErrorIs(t, err, keystore.ErrPurpose)
}
