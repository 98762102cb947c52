package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/stream"
)

func TestIotest(t *testing.T) {
	keys := newStore(t)
	for _, n := range lengths {
		plaintext := text(n)
		sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
		for _, workers := range []int{1, 3} {
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"plain":     func(r io.Reader) io.Reader { return r },
				"one byte":  iotest.OneByteReader,
				"half":      iotest.HalfReader,
				"data, EOF": iotest.DataErrReader,
				"nothing":   func(r io.Reader) io.Reader { return &sometimes{r: r} },
			} {
				t.Run(fmt.Sprintf("%d bytes, %d workers, %s", n, workers, name), func(t *testing.T) {
					r, err := stream.NewReader(t.Context(), wrap(bytes.NewReader(sealed)), keys, place, stream.WithWorkers(workers))
					require.NoError(t, err)
					if name == "plain" {
						require.NoError(t, iotest.TestReader(r, plaintext))
						return
					}
					var got bytes.Buffer
					m, err := r.WriteTo(&got)
					require.NoError(t, err)
					require.EqualValues(t, n, m)
					require.True(t, bytes.Equal(plaintext, got.Bytes()))
					m, err = r.WriteTo(&got)
					require.NoError(t, err)
					require.Zero(t, m)
				})
			}
		}
	}
}

// readUpTo gives k bytes of b, and then an error.
func readUpTo(b []byte, k int, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(b[:k]), iotest.ErrReader(err))
}

// With an error of the source at every byte: it is the error that comes out, behind
// all segments that were whole before it. The source's own io.ErrUnexpectedEOF is
// an error as any other.
func TestSourceOfReaderFails(t *testing.T) {
	keys := newStore(t)
	plaintext := text(2*seg + 10)
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	step := 1
	if race || testing.Short() {
		step = 31
	}
	for _, cause := range []error{errBroken, io.ErrUnexpectedEOF, &typedError{errLost}} {
		for _, workers := range []int{1, 2} {
			for k := 0; k < len(sealed); k += step {
				r, err := stream.NewReader(t.Context(), readUpTo(sealed, k, cause), keys, place, stream.WithWorkers(workers))
				if err != nil {
					require.ErrorIs(t, err, cause)
					notEnd(t, err)
					require.Nil(t, r)
					continue
				}
				got, err := io.ReadAll(r)
				require.ErrorIs(t, err, cause)
				notEnd(t, err)
				whole := (k - headSize(place)) / full * seg
				require.True(t, bytes.Equal(plaintext[:whole], got), "byte %d", k)
				_, again := r.Read(make([]byte, 1))
				require.Equal(t, err, again)
				_, again = r.WriteTo(io.Discard)
				require.Equal(t, err, again)
			}
		}
	}
	for name, read := range map[string]readFunc{
		"nothing":  func([]byte) (int, error) { return 0, nil },
		"negative": func([]byte) (int, error) { return -1, nil },
		"too many": func(b []byte) (int, error) { return len(b) + 1, nil },
	} {
		_, err := stream.NewReader(t.Context(), read, keys, place)
		require.Error(t, err, name)
		r, err := stream.NewReader(t.Context(), io.MultiReader(bytes.NewReader(sealed[:headSize(place)]), read), keys, place)
		require.NoError(t, err)
		_, err = io.ReadAll(r)
		require.Error(t, err, name)
	}
}

// A destination of WriteTo that fails loses nothing: the rest is still there.
func TestWriteToFails(t *testing.T) {
	keys := newStore(t)
	plaintext := text(5*seg + 10)
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	for _, workers := range []int{1, 3} {
		for k := range 6 {
			for n, how := range []func(b []byte) (int, error){
				func(b []byte) (int, error) { return len(b) / 2, errBroken },
				func(b []byte) (int, error) { return len(b) / 2, nil },
				func(b []byte) (int, error) { return len(b), errBroken },
				func(b []byte) (int, error) { return len(b) / 2, errLost },
			} {
				out := &faulty{at: k, how: how}
				r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
				require.NoError(t, err)
				m, err := r.WriteTo(out)
				notEnd(t, err)
				require.ErrorIs(t, err, []error{errBroken, io.ErrShortWrite, errBroken, errBroken}[n])
				require.EqualValues(t, out.Len(), m)
				_, err = r.WriteTo(out)
				require.NoError(t, err)
				require.True(t, bytes.Equal(plaintext, out.Bytes()))
			}
			r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
			require.NoError(t, err)
			_, err = r.WriteTo(&faulty{at: k, how: func(b []byte) (int, error) { return len(b) + 1, nil }})
			require.Error(t, err)
		}
	}
}

func TestContextOfReader(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(20*seg), stream.WithSegmentSize(seg))
	for _, workers := range []int{1, 3} {
		ctx, cancel := context.WithCancelCause(t.Context())
		r, err := stream.NewReader(ctx, bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
		require.NoError(t, err)
		_, err = io.ReadFull(r, make([]byte, seg+1))
		require.NoError(t, err)
		cancel(errBroken)
		got, err := io.ReadAll(r)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, got, seg-1, "what was opened")
		_, err = stream.NewReader(ctx, bytes.NewReader(sealed), keys, place)
		require.ErrorIs(t, err, context.Canceled)
	}
}

// With one worker a segment comes out as soon as it is there, so a pipe does not
// stall.
func TestNoReadAhead(t *testing.T) {
	keys := newStore(t)
	plaintext := text(3*seg + 5)
	sealed := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg))
	head := headSize(place)
	given := 0
	src := readFunc(func(b []byte) (int, error) {
		n := copy(b, sealed[given:])
		given += n
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	})
	r, err := stream.NewReader(t.Context(), src, keys, place)
	require.NoError(t, err)
	require.Equal(t, head, given)
	for i := range 3 {
		_, err := io.ReadFull(r, make([]byte, seg))
		require.NoError(t, err)
		require.Equal(t, head+(i+1)*full, given)
	}
	rest, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, plaintext[3*seg:], rest)

	// And a writer passes a segment on when it is full.
	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithSegmentSize(seg))
	require.NoError(t, err)
	require.Equal(t, head, out.Len())
	for range 2 {
		_, err = w.Write(plaintext[:seg-1])
		require.NoError(t, err)
		before := out.Len()
		_, err = w.Write(plaintext[seg-1 : seg])
		require.NoError(t, err)
		require.Equal(t, before+full, out.Len())
	}
}

// Metadata is shown when it is authentic, and only then.
func TestMetadata(t *testing.T) {
	keys := newStore(t)
	meta := []byte(`{"index":12}`)
	sealed := seal(t, keys, place, text(10), stream.WithMetadata(meta))
	require.True(t, bytes.Contains(sealed, meta), "in the clear")
	for _, m := range [][]byte{meta, {}} {
		sealed := seal(t, keys, place, text(10), stream.WithMetadata(m))
		r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place)
		require.NoError(t, err)
		require.Equal(t, m, r.Metadata())
		at, err := stream.NewReaderAt(t.Context(), bytes.NewReader(sealed), int64(len(sealed)), keys, place)
		require.NoError(t, err)
		require.Equal(t, m, at.Metadata())
		require.Equal(t, keyID, at.KeyID())
	}
	for i := range meta {
		damaged := bytes.Clone(sealed)
		damaged[48+len(place.Label)+i] ^= 1
		r, err := stream.NewReader(t.Context(), bytes.NewReader(damaged), keys, place)
		require.Equal(t, stream.ErrIntegrity, err)
		require.Nil(t, r)
	}
}

// What is no stream is said to be none before a key is asked for.
func TestNotAStream(t *testing.T) {
	sealed := seal(t, newStore(t), place, text(10), stream.WithMetadata([]byte("meta")))
	with := func(at int, b ...byte) []byte {
		out := bytes.Clone(sealed)
		copy(out[at:], b)
		return out
	}
	for name, tt := range map[string]struct {
		b    []byte
		want error
		text string
	}{
		"empty":         {nil, stream.ErrFormat, "stream: not a sealed stream: 0 bytes"},
		"magic alone":   {sealed[:4], stream.ErrFormat, "4 bytes"},
		"half":          {sealed[:60], stream.ErrFormat, "60 bytes, want a header of 120"},
		"other magic":   {with(1, 'D', 'K'), stream.ErrFormat, "begins with a7444b02"},
		"version":       {with(3, 3), stream.ErrUnsupported, "version 3"},
		"suite":         {with(4, 2), stream.ErrUnsupported, "suite 0x02"},
		"key id 0":      {with(5, 0, 0, 0, 0), stream.ErrFormat, "id 0 is reserved"},
		"small segment": {with(41, 0, 0, 0x0f, 0xff), stream.ErrFormat, "segments of 4095 bytes"},
		"large segment": {with(41, 0, 0x10, 0, 1), stream.ErrFormat, "segments of 1048577 bytes"},
		"huge segment":  {with(41, 0xff), stream.ErrFormat, "segments of 4278255616 bytes"},
		"no label":      {with(45, 0), stream.ErrFormat, "label of 0 bytes"},
		"long label":    {with(45, 65), stream.ErrFormat, "label of 65 bytes"},
		"label":         {with(48, ' '), stream.ErrFormat, "byte 0x20 in a label"},
		"metadata":      {with(46, 0x40, 1), stream.ErrFormat, "16385 bytes of metadata"},
	} {
		_, err := stream.NewReader(t.Context(), bytes.NewReader(tt.b), nil, place)
		require.ErrorIs(t, err, tt.want, name)
		require.ErrorContains(t, err, tt.text, name)
		_, err = stream.NewReaderAt(t.Context(), bytes.NewReader(tt.b), int64(len(tt.b)), nil, place)
		require.ErrorIs(t, err, tt.want, name)
	}
	_, err := stream.NewReader(t.Context(), strings.NewReader("plain text, as long as a header has to be, if not longer"), nil, place)
	require.ErrorIs(t, err, stream.ErrFormat)
}
