package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

var errBroken = errors.New("broken")

// faulty fails at call k, from 0, as it is told.
type faulty struct {
	bytes.Buffer
	calls, at int
	how       func(b []byte) (int, error)
}

func (f *faulty) Write(b []byte) (int, error) {
	f.calls++
	if f.calls-1 == f.at {
		n, err := f.how(b)
		f.Buffer.Write(b[:max(0, min(n, len(b)))])
		return n, err
	}
	return f.Buffer.Write(b)
}

// With an error at every call to the destination, in every form: it is reported,
// it stays, and what was written does not open as a whole stream.
func TestDestinationFails(t *testing.T) {
	keys := newFixedKeys(t)
	plaintext := text(9*seg + 100)
	whole := byHandOf(keys, seg).seal(plaintext)
	forms := map[string]struct {
		how  func(b []byte) (int, error)
		want error
	}{
		"nothing written": {func([]byte) (int, error) { return 0, errBroken }, errBroken},
		"half written":    {func(b []byte) (int, error) { return len(b) / 2, errBroken }, errBroken},
		"all written":     {func(b []byte) (int, error) { return len(b), errBroken }, errBroken},
		"io.EOF":          {func([]byte) (int, error) { return 0, io.EOF }, nil},
		"wraps io.EOF":    {func([]byte) (int, error) { return 0, errLost }, errBroken},
		"short":           {func(b []byte) (int, error) { return len(b) - 1, nil }, io.ErrShortWrite},
		"negative":        {func([]byte) (int, error) { return -1, nil }, nil},
		"too many":        {func(b []byte) (int, error) { return len(b) + 1, nil }, nil},
	}
	for form, f := range forms {
		for _, workers := range []int{1, 3} {
			for _, size := range []int{100, seg, len(plaintext)} {
				t.Run(fmt.Sprintf("%s, %d workers, by %d", form, workers, size), func(t *testing.T) {
					for k := range 11 { // the header and 10 segments
						out := &faulty{at: k, how: f.how}
						err := writeAll(t, out, keys, plaintext, size, workers)
						notEnd(t, err)
						if f.want != nil {
							require.ErrorIs(t, err, f.want)
						}
						require.Equal(t, k+1, out.calls, "no call after the error")
						if strictFIPS() {
							continue
						}
						require.True(t, bytes.HasPrefix(whole, out.Bytes()))
					}
					out := &faulty{at: 11, how: f.how}
					require.NoError(t, writeAll(t, out, keys, plaintext, size, workers))
				})
			}
		}
	}
}

// writeAll returns the first error, which must be that of every later call.
func writeAll(t *testing.T, out io.Writer, keys stream.Keys, plaintext []byte, size, workers int) error {
	t.Helper()
	w, err := stream.NewWriter(t.Context(), out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
	if err != nil {
		require.Nil(t, w)
		return err
	}
	for len(plaintext) > 0 && err == nil {
		var n int
		n, err = w.Write(plaintext[:min(size, len(plaintext))])
		require.True(t, n >= 0 && n <= size)
		plaintext = plaintext[n:]
	}
	if err == nil {
		if err = w.Close(); err == nil {
			return nil
		}
	}
	stays(t, w, err)
	w.Abort()
	stays(t, w, err)
	return err
}

func stays(t *testing.T, w *stream.Writer, want error) {
	t.Helper()
	n, err := w.Write([]byte{1})
	require.Zero(t, n)
	require.Equal(t, want, err)
	m, err := w.ReadFrom(strings.NewReader("x"))
	require.Zero(t, m)
	require.Equal(t, want, err)
	require.Equal(t, want, w.Close())
}

func TestReadFrom(t *testing.T) {
	keys := newFixedKeys(t)
	for _, n := range lengths {
		plaintext := text(n)
		whole := byHandOf(keys, seg).seal(plaintext)
		for _, workers := range []int{1, 2} {
			for name, r := range map[string]io.Reader{
				"plain":     onlyReader{bytes.NewReader(plaintext)},
				"one byte":  iotest.OneByteReader(bytes.NewReader(plaintext)),
				"half":      iotest.HalfReader(bytes.NewReader(plaintext)),
				"data, EOF": iotest.DataErrReader(bytes.NewReader(plaintext)),
				"nothing":   &sometimes{r: bytes.NewReader(plaintext)},
			} {
				var out bytes.Buffer
				w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
				require.NoError(t, err)
				m, err := w.ReadFrom(r)
				require.NoError(t, err, name)
				require.EqualValues(t, n, m, name)
				require.NoError(t, w.Close())
				if strictFIPS() {
					continue
				}
				require.True(t, bytes.Equal(whole, out.Bytes()), name)
			}
		}
	}
}

type onlyReader struct{ io.Reader }

// sometimes reads nothing now and then.
type sometimes struct {
	r     io.Reader
	calls int
}

func (s *sometimes) Read(b []byte) (int, error) {
	if s.calls++; s.calls%3 != 0 {
		return 0, nil
	}
	return s.r.Read(b)
}

type readFunc func(b []byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

// A source that fails leaves no valid stream, whoever closes it.
func TestSourceFails(t *testing.T) {
	keys := newStore(t)
	for name, tt := range map[string]struct {
		r    func() io.Reader
		want error
	}{
		"at once":      {func() io.Reader { return iotest.ErrReader(errBroken) }, errBroken},
		"after a part": {func() io.Reader { return io.MultiReader(bytes.NewReader(text(3*seg)), iotest.ErrReader(errBroken)) }, errBroken},
		"timeout":      {func() io.Reader { return iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc"))) }, iotest.ErrTimeout},
		"cut": {func() io.Reader {
			return io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(io.ErrUnexpectedEOF))
		}, io.ErrUnexpectedEOF},
		"wraps io.EOF":       {func() io.Reader { return iotest.ErrReader(errLost) }, errLost},
		"part, wraps io.EOF": {func() io.Reader { return io.MultiReader(bytes.NewReader(text(seg)), iotest.ErrReader(errLost)) }, errLost},
		"data, wraps io.EOF": {func() io.Reader { return readFunc(func(b []byte) (int, error) { return copy(b, "abc"), errLost }) }, errLost},
		"nothing":            {func() io.Reader { return readFunc(func([]byte) (int, error) { return 0, nil }) }, io.ErrNoProgress},
		"negative":           {func() io.Reader { return readFunc(func([]byte) (int, error) { return -1, nil }) }, nil},
		"too many":           {func() io.Reader { return readFunc(func(b []byte) (int, error) { return len(b) + 1, nil }) }, nil},
	} {
		for _, workers := range []int{1, 2} {
			t.Run(name, func(t *testing.T) {
				var out bytes.Buffer
				w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
				require.NoError(t, err)
				_, err = w.ReadFrom(tt.r())
				notEnd(t, err)
				if tt.want != nil {
					require.ErrorIs(t, err, tt.want)
				}
				stays(t, w, err)
				_, err = open(t, keys, place, out.Bytes())
				require.ErrorIs(t, err, stream.ErrIntegrity)
			})
		}
	}
}

func TestClose(t *testing.T) {
	var out bytes.Buffer
	keys := newStore(t)
	w, err := stream.NewWriter(t.Context(), &out, keys, place)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	n := out.Len()
	require.NoError(t, w.Close())
	w.Abort()
	require.NoError(t, w.Close())
	_, err = w.Write([]byte{1})
	require.Equal(t, stream.ErrClosed, err)
	_, err = w.Write(nil)
	require.Equal(t, stream.ErrClosed, err)
	_, err = w.ReadFrom(strings.NewReader("x"))
	require.Equal(t, stream.ErrClosed, err)
	require.Equal(t, n, out.Len())
	got, err := open(t, keys, place, out.Bytes())
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestAbort(t *testing.T) {
	for _, workers := range []int{1, 4} {
		for _, n := range []int{0, 10, seg, 9*seg + 5} {
			var out bytes.Buffer
			keys := newStore(t)
			w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
			require.NoError(t, err)
			_, err = w.Write(text(n))
			require.NoError(t, err)
			w.Abort()
			w.Abort()
			require.ErrorIs(t, w.Close(), stream.ErrClosed)
			require.EqualError(t, w.Close(), "stream: closed: aborted")
			_, err = open(t, keys, place, out.Bytes())
			require.ErrorIs(t, err, stream.ErrIntegrity)
		}
	}
}

// A context that is done fails the next segment.
func TestContextOfWriter(t *testing.T) {
	keys := newStore(t)
	for _, workers := range []int{1, 3} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var out bytes.Buffer
		w, err := stream.NewWriter(ctx, &out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
		require.NoError(t, err)
		_, err = w.Write(text(seg))
		require.NoError(t, err)
		cancel(errBroken)
		_, err = w.Write(text(seg - 1))
		require.NoError(t, err)
		_, err = w.Write(text(1))
		require.ErrorIs(t, err, context.Canceled)
		stays(t, w, err)
		_, err = stream.NewWriter(ctx, &out, keys, place)
		require.ErrorIs(t, err, context.Canceled)

		ctx, stop := context.WithCancel(t.Context())
		w, err = stream.NewWriter(ctx, &out, keys, place)
		require.NoError(t, err)
		stop()
		require.ErrorIs(t, w.Close(), context.Canceled)
	}
}

func TestArguments(t *testing.T) {
	keys := newStore(t)
	long := strings.Repeat("x", 65)
	for name, tt := range map[string]struct {
		at   stream.Place
		opts []stream.Option
	}{
		"no label":       {at: stream.Place{}},
		"long label":     {at: stream.Place{Label: long}},
		"space":          {at: stream.Place{Label: "a b"}},
		"not ASCII":      {at: stream.Place{Label: "é"}},
		"DEL":            {at: stream.Place{Label: "\x7f"}},
		"data":           {at: stream.Place{Label: "x", Data: make([]byte, stream.MaxData+1)}},
		"metadata":       {place, []stream.Option{stream.WithMetadata(make([]byte, stream.MaxMetadata+1))}},
		"small segment":  {place, []stream.Option{stream.WithSegmentSize(stream.MinSegment - 1)}},
		"large segment":  {place, []stream.Option{stream.WithSegmentSize(stream.MaxSegment + 1)}},
		"no segment":     {place, []stream.Option{stream.WithSegmentSize(0)}},
		"no worker":      {place, []stream.Option{stream.WithWorkers(0)}},
		"many workers":   {place, []stream.Option{stream.WithWorkers(65)}},
		"minus a worker": {place, []stream.Option{stream.WithWorkers(-1)}},
	} {
		w, err := stream.NewWriter(t.Context(), io.Discard, keys, tt.at, tt.opts...)
		require.ErrorIs(t, err, stream.ErrArgument, name)
		require.Nil(t, w)
		r, err := stream.NewReader(t.Context(), strings.NewReader(""), keys, tt.at, tt.opts...)
		require.ErrorIs(t, err, stream.ErrArgument, name)
		require.Nil(t, r)
	}
	u, err := keys.Usage(keyID)
	require.NoError(t, err)
	require.Zero(t, u.Seals, "nothing was charged")

	sealed := seal(t, keys, place, nil)
	for _, o := range []stream.Option{stream.WithSegmentSize(stream.DefaultSegment), stream.WithMetadata(nil)} {
		_, err = open(t, keys, place, sealed, o)
		require.ErrorIs(t, err, stream.ErrArgument)
	}

	// The limits themselves.
	at := stream.Place{Label: long[:64], Data: make([]byte, stream.MaxData)}
	meta := text(stream.MaxMetadata)
	for _, size := range []int{stream.MinSegment, stream.MinSegment + 1, stream.MaxSegment} {
		sealed := seal(t, keys, at, text(100), stream.WithMetadata(meta), stream.WithSegmentSize(size), stream.WithWorkers(64))
		r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, at, stream.WithWorkers(64))
		require.NoError(t, err)
		require.Equal(t, meta, r.Metadata())
	}
}

// What was given to begin a stream is the caller's again.
func TestArgumentsAreNotKept(t *testing.T) {
	keys := newStore(t)
	at := stream.Place{Label: "test", Data: []byte("index 12, term 3")}
	meta := []byte("meta")
	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, keys, at, stream.WithMetadata(meta))
	require.NoError(t, err)
	clear(at.Data)
	clear(meta)
	_, err = w.Write([]byte("plaintext"))
	require.NoError(t, err)
	require.NoError(t, w.Close())

	at.Data = bytes.Clone(place.Data)
	r, err := stream.NewReader(t.Context(), bytes.NewReader(out.Bytes()), keys, at)
	require.NoError(t, err)
	rAt, err := stream.NewReaderAt(t.Context(), bytes.NewReader(out.Bytes()), int64(out.Len()), keys, at)
	require.NoError(t, err)
	clear(at.Data)
	require.Equal(t, "meta", string(r.Metadata()))
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "plaintext", string(got))
	got = make([]byte, rAt.Size())
	_, err = rAt.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, "plaintext", string(got))
}

// A stream ends where its format does, and not silently.
func TestTooLong(t *testing.T) {
	require.Equal(t, uint64(1<<44-1), stream.Capacity(stream.MinSegment))
	require.Equal(t, uint64(1<<46), stream.Capacity(stream.DefaultSegment))
	require.Equal(t, uint64(1<<46), stream.Capacity(stream.MaxSegment))

	keys := newStore(t)
	start := func(t *testing.T, out io.Writer, size int, number uint64) *stream.Writer {
		t.Helper()
		w, err := stream.NewWriter(t.Context(), out, keys, place, stream.WithSegmentSize(size))
		require.NoError(t, err)
		stream.SetNumber(w, number)
		return w
	}
	check := func(t *testing.T, size int, number uint64, fits int) {
		t.Helper()
		var out bytes.Buffer
		w := start(t, &out, size, number)
		n, err := w.Write(text(fits))
		require.NoError(t, err)
		require.Equal(t, fits, n)
		require.NoError(t, w.Close())
		r, err := stream.NewReader(t.Context(), &out, keys, place)
		require.NoError(t, err)
		stream.SetReaderNumber(r, number)
		got, err := io.ReadAll(r)
		require.NoError(t, err)
		require.Len(t, got, fits)

		w = start(t, io.Discard, size, number)
		n, err = w.Write(text(fits + 1))
		require.Equal(t, stream.ErrTooLong, err)
		require.Equal(t, fits, n)
		stays(t, w, err)

		w = start(t, io.Discard, size, number)
		m, err := w.ReadFrom(onlyReader{bytes.NewReader(text(fits))})
		require.NoError(t, err)
		require.EqualValues(t, fits, m)
		require.NoError(t, w.Close())

		w = start(t, io.Discard, size, number)
		m, err = w.ReadFrom(onlyReader{bytes.NewReader(text(fits + 1))})
		require.Equal(t, stream.ErrTooLong, err)
		require.EqualValues(t, fits, m)
		stays(t, w, err)
	}
	// Of small segments there are 2^32, and the last one is not full.
	check(t, stream.MinSegment, stream.MaxSegments-2, 2*stream.MinSegment-1)
	check(t, stream.MinSegment, stream.MaxSegments-1, stream.MinSegment-1)
	// Others add up to 2^46 bytes, and an empty one follows.
	check(t, stream.DefaultSegment, 1<<30-2, 2*stream.DefaultSegment)
	check(t, stream.MaxSegment, 1<<26-1, stream.MaxSegment)

	// A reader goes no further.
	sealed := seal(t, keys, place, text(2*seg), stream.WithSegmentSize(seg))
	r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place)
	require.NoError(t, err)
	stream.SetReaderNumber(r, stream.MaxSegments-1)
	_, err = io.ReadAll(r)
	require.Equal(t, stream.ErrTooLong, err)
	size := int64(1) << 62
	_, err = stream.NewReaderAt(t.Context(), endless{sealed}, size-size%full+int64(headSize(place))+100, keys, place)
	require.Equal(t, stream.ErrTooLong, err)
}

// endless is a stream's beginning and then zeros.
type endless struct{ b []byte }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(e.b)) {
		copy(p, e.b[off:])
	}
	return len(p), nil
}

// watching counts goroutines whenever it is written to.
type watching struct{ most int }

func (w *watching) Write(b []byte) (int, error) {
	w.most = max(w.most, runtime.NumGoroutine())
	return len(b), nil
}

// A stream of one segment takes one goroutine; a long one takes as many as it may
// and leaves none behind, closed or not.
func TestGoroutines(t *testing.T) {
	keys := newStore(t)
	idle := runtime.NumGoroutine()
	for range 100 {
		for _, n := range []int{0, 1, seg - 1, seg} {
			out := &watching{}
			w, err := stream.NewWriter(t.Context(), out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(8))
			require.NoError(t, err)
			_, err = w.Write(text(n))
			require.NoError(t, err)
			require.NoError(t, w.Close())
			require.LessOrEqual(t, out.most, idle)
		}
	}
	out := &watching{}
	plaintext := text(200 * seg)
	for range 20 {
		w, err := stream.NewWriter(t.Context(), out, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(3))
		require.NoError(t, err)
		_, err = w.Write(plaintext)
		require.NoError(t, err)
	}
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	for range 20 {
		r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place, stream.WithWorkers(3))
		require.NoError(t, err)
		_, err = io.ReadFull(r, make([]byte, 10))
		require.NoError(t, err)
	}
	require.Greater(t, out.most, idle)
	require.LessOrEqual(t, out.most, idle+20*2)
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= idle+1 }, 10*time.Second, time.Millisecond)
}

// Several workers begin no goroutine for one segment, full or not, neither to seal
// nor to open it.
func TestOneSegmentBeginsNoGoroutine(t *testing.T) {
	created := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	count := func() uint64 {
		metrics.Read(created)
		return created[0].Value.Uint64()
	}
	const streams = 1000
	keys := newStore(t)
	for _, n := range []int{0, 1, seg - 1, seg} {
		plaintext := text(n)
		before := count()
		for range streams {
			sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg), stream.WithWorkers(8))
			_, err := open(t, keys, place, sealed, stream.WithWorkers(8))
			require.NoError(t, err)
		}
		require.Less(t, count()-before, uint64(streams/10), "of the runtime, %d bytes", n)
	}
}

// What a stream holds does not depend on its length.
func TestMemory(t *testing.T) {
	keys := newStore(t)
	plaintext := text(1 << 20)
	for _, workers := range []int{1, 2} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // empties the pool of buffers
		runtime.ReadMemStats(&before)
		var n int64
		pr, pw := io.Pipe()
		go func() {
			w, err := stream.NewWriter(context.Background(), pw, keys, place, stream.WithWorkers(workers))
			for range 64 {
				if err == nil {
					_, err = w.Write(plaintext)
				}
			}
			pw.CloseWithError(errors.Join(err, w.Close()))
		}()
		r, err := stream.NewReader(t.Context(), pr, keys, place, stream.WithWorkers(workers))
		require.NoError(t, err)
		n, err = r.WriteTo(io.Discard)
		require.NoError(t, err)
		require.EqualValues(t, 64<<20, n)
		runtime.ReadMemStats(&after)
		took := after.TotalAlloc - before.TotalAlloc
		t.Logf("%d workers: sealing and opening 64 MiB allocates %d KiB", workers, took>>10)
		if !race {
			require.Less(t, took, uint64(1<<20), "both ways")
		}
	}
}

func TestAllocations(t *testing.T) {
	if race {
		t.Skip("the race detector allocates")
	}
	keys := newStore(t)
	plaintext := text(64 * seg)
	for _, workers := range []int{1, 2} {
		w, err := stream.NewWriter(t.Context(), io.Discard, keys, place, stream.WithSegmentSize(seg), stream.WithWorkers(workers))
		require.NoError(t, err)
		for _, size := range []int{64 * seg, seg, 1000} {
			require.Less(t, testing.AllocsPerRun(100, func() {
				for i := 0; i < len(plaintext); i += size {
					if _, err := w.Write(plaintext[i:min(i+size, len(plaintext))]); err != nil {
						panic(err)
					}
				}
			}), 1.0, "%d workers, by %d", workers, size)
		}

		sealed := seal(t, keys, place, make([]byte, 8000*seg), stream.WithSegmentSize(seg))
		r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
		require.NoError(t, err)
		b := make([]byte, seg)
		for _, size := range []int{seg, 1000} {
			require.Less(t, testing.AllocsPerRun(50, func() {
				for range 64 {
					if _, err := io.ReadFull(r, b[:size]); err != nil {
						panic(err)
					}
				}
			}), 1.0, "%d workers, by %d", workers, size)
		}
	}
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	r, err := stream.NewReaderAt(t.Context(), bytes.NewReader(sealed), int64(len(sealed)), keys, place)
	require.NoError(t, err)
	b := make([]byte, seg)
	at := int64(0)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if _, err := r.ReadAt(b, at%(60*seg)); err != nil {
			panic(err)
		}
		at += 1001
	}))
}

var _ stream.Keys = (*keystore.Store)(nil)
