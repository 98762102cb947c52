package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/stream"
)

func newReaderAt(tb testing.TB, keys stream.Keys, sealed []byte) *stream.ReaderAt {
	tb.Helper()
	r, err := stream.NewReaderAt(tb.Context(), bytes.NewReader(sealed), int64(len(sealed)), keys, place)
	require.NoError(tb, err)
	return r
}

func TestReaderAt(t *testing.T) {
	keys := newStore(t)
	for _, n := range lengths {
		plaintext := text(n)
		sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
		r := newReaderAt(t, keys, sealed)
		require.EqualValues(t, n, r.Size())
		require.NoError(t, iotest.TestReader(io.NewSectionReader(r, 0, r.Size()), plaintext))
		m, err := r.ReadAt(make([]byte, 1), r.Size())
		require.Zero(t, m)
		require.Equal(t, io.EOF, err)
		m, err = r.ReadAt(nil, r.Size()+1)
		require.Zero(t, m)
		require.NoError(t, err)
		_, err = r.ReadAt(make([]byte, 1), -1)
		require.ErrorIs(t, err, stream.ErrArgument)
	}
}

// It reads what a bytes.Reader reads.
func TestReaderAtModel(t *testing.T) {
	keys := newStore(t)
	rapid.Check(t, func(t *rapid.T) {
		plaintext := text(rapid.IntRange(0, 12*seg).Draw(t, "length"))
		sealed := sealed(t, keys, plaintext)
		r, err := stream.NewReaderAt(context.Background(), bytes.NewReader(sealed), int64(len(sealed)), keys, place)
		require.NoError(t, err)
		model := bytes.NewReader(plaintext)
		for range rapid.IntRange(1, 30).Draw(t, "reads") {
			p := make([]byte, rapid.IntRange(0, 3*seg).Draw(t, "size"))
			q := make([]byte, len(p))
			off := rapid.Int64Range(0, int64(len(plaintext))+10).Draw(t, "offset")
			n, err := r.ReadAt(p, off)
			m, want := model.ReadAt(q, off)
			require.Equal(t, m, n)
			if len(p) > 0 {
				require.Equal(t, want, err)
			}
			require.True(t, bytes.Equal(p, q))
		}
	})
}

func sealed(t require.TestingT, keys stream.Keys, plaintext []byte) []byte {
	var out bytes.Buffer
	w, err := stream.NewWriter(context.Background(), &out, keys, place, stream.WithSegmentSize(seg))
	require.NoError(t, err)
	_, err = w.Write(plaintext)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// counter counts reads of what is behind the header.
type counter struct {
	io.ReaderAt
	reads atomic.Int64
}

func (c *counter) ReadAt(p []byte, off int64) (int, error) {
	c.reads.Add(1)
	return c.ReaderAt.ReadAt(p, off)
}

func TestReaderAtCaches(t *testing.T) {
	keys := newStore(t)
	plaintext := text(10 * seg)
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	src := &counter{ReaderAt: bytes.NewReader(sealed)}
	r, err := stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
	require.NoError(t, err)
	begun := src.reads.Load()
	b := make([]byte, 100)
	for range 50 {
		for i := range int64(4) {
			_, err := r.ReadAt(b, i*seg+7)
			require.NoError(t, err)
		}
	}
	require.EqualValues(t, 4, src.reads.Load()-begun, "four segments stay")
	for range 2 {
		for i := range int64(10) {
			_, err := r.ReadAt(b, i*seg)
			require.NoError(t, err)
		}
	}
	require.Greater(t, src.reads.Load()-begun, int64(14))

	// Several goroutines that want one segment read it once.
	r, err = stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
	require.NoError(t, err)
	begun = src.reads.Load()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := r.ReadAt(make([]byte, 10), 3*seg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, src.reads.Load()-begun)
}

func TestReaderAtConcurrently(t *testing.T) {
	keys := newStore(t)
	plaintext := text(30*seg + 100)
	r := newReaderAt(t, keys, seal(t, keys, place, plaintext, stream.WithSegmentSize(seg)))
	var wg sync.WaitGroup
	for i := range uint64(16) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(i, 0))
			b := make([]byte, 3*seg)
			for range 200 {
				p := b[:rnd.IntN(len(b))]
				off := rnd.IntN(len(plaintext))
				n, err := r.ReadAt(p, int64(off))
				if err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(p[:n], plaintext[off:min(off+len(p), len(plaintext))]) {
					t.Errorf("%d bytes at %d: %v", len(p), off, err)
				}
			}
		})
	}
	wg.Wait()
}

// failingAt fails reads from an offset on.
type failingAt struct {
	io.ReaderAt
	from int64
	how  func(p []byte) (int, error)
}

func (f *failingAt) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.from {
		return f.how(p)
	}
	return f.ReaderAt.ReadAt(p, off)
}

// An error of the source is passed on, spoils nothing, and is gone when the source
// is well again.
func TestReaderAtSourceFails(t *testing.T) {
	keys := newStore(t)
	plaintext := text(5 * seg)
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	for _, tt := range []struct {
		how  func(p []byte) (int, error)
		want error
	}{
		{func([]byte) (int, error) { return 0, errBroken }, errBroken},
		{func(p []byte) (int, error) { return len(p) - 1, errBroken }, errBroken},
		{func([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }, io.ErrUnexpectedEOF},
		{func([]byte) (int, error) { return 0, errLost }, errBroken},
		{func(p []byte) (int, error) { return len(p) - 1, errLost }, errBroken},
		{func([]byte) (int, error) { return 0, io.EOF }, stream.ErrIntegrity},
		{func(p []byte) (int, error) { return len(p), nil }, stream.ErrIntegrity}, // of something else
	} {
		src := &failingAt{ReaderAt: bytes.NewReader(sealed), how: tt.how}
		for _, from := range []int{headSize(place) + 5*full, headSize(place), 10, 0} {
			src.from = int64(from)
			_, err := stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
			require.Error(t, err)
			require.NotErrorIs(t, err, io.EOF)
		}
		src.from = 1 << 40
		r, err := stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
		require.NoError(t, err)
		src.from = int64(headSize(place) + 2*full)
		b := make([]byte, 3*seg)
		n, err := r.ReadAt(b, 0)
		require.ErrorIs(t, err, tt.want)
		require.NotErrorIs(t, err, io.EOF)
		require.Equal(t, 2*seg, n)
		require.True(t, bytes.Equal(plaintext[:n], b[:n]))
		src.from = 1 << 40
		_, err = r.ReadAt(b, 0)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plaintext[:3*seg], b))
	}
}

func TestReaderAtSize(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(seg+10), stream.WithSegmentSize(seg))
	for _, size := range []int64{-1, 0, 10, int64(len(sealed)) - 1, int64(len(sealed)) - 10, int64(len(sealed)) + 1, 1 << 62} {
		r, err := stream.NewReaderAt(t.Context(), bytes.NewReader(sealed), size, keys, place)
		require.Error(t, err, size)
		require.Nil(t, r)
	}
}

func TestContextOfReaderAt(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(5*seg), stream.WithSegmentSize(seg))
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := stream.NewReaderAt(ctx, bytes.NewReader(sealed), int64(len(sealed)), keys, place)
	require.NoError(t, err)
	cancel(errBroken)
	_, err = r.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, context.Canceled)
}

// A ReaderAt of a short stream once made room for a whole segment.
func TestReaderAtOfAnEmptyStreamNeedsNoSegment(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, nil, stream.WithSegmentSize(stream.MaxSegment))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		newReaderAt(t, keys, sealed)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(stream.MaxSegment), "of ten")
}

func TestReaderAtImpossibleCount(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(seg), stream.WithSegmentSize(seg))
	for _, by := range []int{-1, 1} {
		src := &failingAt{bytes.NewReader(sealed), int64(headSize(place)), func(p []byte) (int, error) {
			if by < 0 {
				return -1, nil
			}
			return len(p) + by, nil
		}}
		_, err := stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
		require.EqualError(t, err, "stream: source returned an impossible count")
	}
}
