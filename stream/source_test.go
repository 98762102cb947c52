package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/stream"
)

// errLost is what some clients return when a connection breaks off.
var errLost = fmt.Errorf("%w: connection lost: %w", errBroken, io.EOF)

// notEnd is what every error of a source or a context has to be.
func notEnd(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, io.EOF)
	for _, verdict := range []error{stream.ErrIntegrity, stream.ErrFormat} {
		require.NotErrorIs(t, err, verdict)
	}
}

// causes are reasons to cancel a context that would say something about a stream.
// The first error of a group of goroutines is the cause for all others.
var causes = map[string]error{
	"io.EOF":               io.EOF,
	"io.ErrUnexpectedEOF":  io.ErrUnexpectedEOF,
	"wraps io.EOF":         errLost,
	"ErrIntegrity":         stream.ErrIntegrity,
	"wraps ErrIntegrity":   fmt.Errorf("backup 3: %w", stream.ErrIntegrity),
	"ErrFormat":            stream.ErrFormat,
	"Canceled and a cause": fmt.Errorf("%w: %w", context.Canceled, stream.ErrIntegrity),
}

// A context whose cause is io.EOF once made a truncated read look complete, and one
// whose cause is another stream's ErrIntegrity made every stream look damaged.
func TestContextCauseIsNoVerdict(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(20*seg), stream.WithSegmentSize(seg))
	canceled := func(t *testing.T, err, cause error) {
		t.Helper()
		notEnd(t, err)
		require.NotErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NotErrorIs(t, err, cause)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "stream: context canceled: "+cause.Error())
	}
	for name, cause := range causes {
		for _, workers := range []int{1, 2} {
			for way, read := range map[string]func(r io.Reader) (int64, error){
				"Read":    func(r io.Reader) (int64, error) { return io.Copy(io.Discard, onlyReader{r}) },
				"WriteTo": func(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) },
			} {
				t.Run(fmt.Sprintf("%s, %d workers, %s", name, workers, way), func(t *testing.T) {
					ctx, cancel := context.WithCancelCause(t.Context())
					r, err := stream.NewReader(ctx, bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
					require.NoError(t, err)
					_, err = io.ReadFull(r, make([]byte, 100))
					require.NoError(t, err)
					cancel(cause)
					n, err := read(r)
					require.EqualValues(t, seg-100, n, "what was opened")
					canceled(t, err, cause)
					_, err = r.Read(make([]byte, 1))
					canceled(t, err, cause)
				})
			}
		}
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			at, err := stream.NewReaderAt(ctx, bytes.NewReader(sealed), int64(len(sealed)), keys, place)
			require.NoError(t, err)
			w, err := stream.NewWriter(ctx, io.Discard, keys, place)
			require.NoError(t, err)
			cancel(cause)
			_, err = at.ReadAt(make([]byte, 1), 0)
			canceled(t, err, cause)
			canceled(t, w.Close(), cause)
			_, err = stream.NewWriter(ctx, io.Discard, keys, place)
			canceled(t, err, cause)
			_, err = stream.NewReader(ctx, bytes.NewReader(sealed), keys, place)
			canceled(t, err, cause)
			_, err = stream.NewReaderAt(ctx, bytes.NewReader(sealed), int64(len(sealed)), keys, place)
			canceled(t, err, cause)
			_, err = stream.Verify(ctx, bytes.NewReader(sealed), keys, place)
			canceled(t, err, cause)
		})
	}
}

// Whatever the cause, the error says that it was the context.
func TestContextErrorMatchesCanceled(t *testing.T) {
	keys := newStore(t)
	for text, cause := range map[string]error{
		"stream: context canceled":                         nil,
		"stream: context canceled: broken":                 errBroken,
		"stream: context canceled: stop: context canceled": fmt.Errorf("stop: %w", context.Canceled),
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		_, err := stream.NewWriter(ctx, io.Discard, keys, place)
		require.EqualError(t, err, text)
		require.ErrorIs(t, err, context.Canceled)
	}
	ctx, cancel := context.WithDeadlineCause(t.Context(), time.Unix(0, 0), stream.ErrIntegrity)
	defer cancel()
	_, err := stream.NewWriter(ctx, io.Discard, keys, place)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, stream.ErrIntegrity)
}

// A source that failed with an error around io.EOF was once sealed as a valid,
// shorter stream.
func TestSourceErrorThatWrapsEOFIsNotSealedAsTheEnd(t *testing.T) {
	keys := newStore(t)
	for _, workers := range []int{1, 2} {
		var out bytes.Buffer
		w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithWorkers(workers))
		require.NoError(t, err)
		n, err := io.Copy(w, io.MultiReader(bytes.NewReader(text(1000)), iotest.ErrReader(errLost)))
		require.EqualValues(t, 1000, n)
		notEnd(t, err)
		require.ErrorIs(t, err, errBroken)
		require.EqualError(t, err, errLost.Error())
		require.Equal(t, err, w.Close())
		_, err = open(t, keys, place, out.Bytes())
		require.ErrorIs(t, err, stream.ErrIntegrity)
	}
}

// typedError is an error that somebody may look for.
type typedError struct{ err error }

func (e *typedError) Error() string { return "typed: " + e.err.Error() }
func (e *typedError) Unwrap() error { return e.err }

// The error of a source once became ErrFormat or ErrIntegrity, and its text was
// gone, when it wrapped io.EOF.
func TestSourceErrorThatWrapsEOFIsNotTakenForDamage(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(2*seg), stream.WithSegmentSize(seg))
	cause := &typedError{errLost}
	check := func(t *testing.T, err error) {
		t.Helper()
		notEnd(t, err)
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, errBroken)
		var typed *typedError
		require.ErrorAs(t, err, &typed)
		require.ErrorContains(t, err, cause.Error())
	}
	for _, k := range []int{0, 10, 60, headSize(place) - 1, headSize(place), headSize(place) + 10, headSize(place) + full, len(sealed) - 1, len(sealed)} {
		_, err := stream.Verify(t.Context(), readUpTo(sealed, k, cause), keys, place)
		check(t, err)
		if k < headSize(place) {
			_, err = stream.ReadHeader(readUpTo(sealed, k, cause))
			check(t, err)
		}
	}
	src := &failingAt{bytes.NewReader(sealed), 0, func([]byte) (int, error) { return 0, cause }}
	_, err := stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
	check(t, err)
	src.from = int64(headSize(place) + 2*full)
	_, err = stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
	check(t, err)
	src.from = 1 << 40
	r, err := stream.NewReaderAt(t.Context(), src, int64(len(sealed)), keys, place)
	require.NoError(t, err)
	src.from = 0
	_, err = r.ReadAt(make([]byte, 1), 0)
	check(t, err)
}

// dribbling reads nothing 99 times before each byte and before the end.
type dribbling struct {
	r     io.Reader
	calls int
}

func (d *dribbling) Read(b []byte) (int, error) {
	if d.calls++; d.calls%100 != 0 {
		return 0, nil
	}
	return d.r.Read(b[:1])
}

// A source without progress is one that reads nothing 100 times in a row, not in all.
func TestSourceThatDribbles(t *testing.T) {
	keys := newStore(t)
	plaintext := text(10)
	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, keys, place)
	require.NoError(t, err)
	_, err = w.ReadFrom(&dribbling{r: bytes.NewReader(plaintext)})
	require.NoError(t, err)
	require.NoError(t, w.Close())
	r, err := stream.NewReader(t.Context(), &dribbling{r: &out}, keys, place)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, plaintext, got)
}

// A body that broke off is the source's error; a stream that ends too early is not
// whole. Neither is the other.
func TestBrokenSourceIsNotACutStream(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(2*seg), stream.WithSegmentSize(seg))
	for k := headSize(place); k < len(sealed); k += 101 {
		_, err := stream.Verify(t.Context(), readUpTo(sealed, k, io.ErrUnexpectedEOF), keys, place)
		notEnd(t, err)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		_, err = stream.Verify(t.Context(), bytes.NewReader(sealed[:k]), keys, place)
		require.ErrorIs(t, err, stream.ErrIntegrity)
		require.NotErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

// A Reader whose context was done went on to read its source.
func TestCanceledReaderLeavesItsSourceAlone(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(20*seg), stream.WithSegmentSize(seg))
	for _, workers := range []int{1, 3} {
		ctx, cancel := context.WithCancelCause(t.Context())
		src, reads := bytes.NewReader(sealed), 0
		r, err := stream.NewReader(ctx, readFunc(func(b []byte) (int, error) { reads++; return src.Read(b) }), keys, place, stream.WithWorkers(workers))
		require.NoError(t, err)
		_, err = io.ReadFull(r, make([]byte, seg))
		require.NoError(t, err)
		before := reads
		cancel(errBroken)
		n, err := r.Read(make([]byte, seg))
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, n)
		require.Equal(t, before, reads)
	}
}

// What was read while the context came to be done is not given out, and nothing
// more is read.
func TestReaderCanceledWhileItReads(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(20*seg), stream.WithSegmentSize(seg))
	for _, workers := range []int{1, 3} {
		ctx, cancel := context.WithCancelCause(t.Context())
		src, body := bytes.NewReader(sealed), 0
		r, err := stream.NewReader(ctx, readFunc(func(b []byte) (int, error) {
			if len(b) == full {
				body++
				cancel(errBroken)
			}
			return src.Read(b)
		}), keys, place, stream.WithWorkers(workers))
		require.NoError(t, err)
		for range 2 {
			n, err := r.Read(make([]byte, seg))
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, n)
			require.Equal(t, 1, body)
		}
	}
}
