package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// What parses marshals back to the same bytes; what does not is nothing at all.
func FuzzHeader(f *testing.F) {
	addStreams(f, func(sealed []byte) { f.Add(sealed) })
	f.Fuzz(func(t *testing.T, b []byte) {
		h, whole, again, err := stream.ParseHeader(bytes.NewReader(b))
		shown, err2 := stream.ReadHeader(bytes.NewReader(b))
		if fmt.Sprint(err) != fmt.Sprint(err2) || shown.KeyID != h.ID || shown.SegmentSize != h.Segment || shown.Label != h.Label {
			t.Fatalf("%+v, %v\n%+v, %v", h, err, shown, err2)
		}
		if err != nil {
			if whole != nil || again != nil || h.ID != 0 || !errors.Is(err, stream.ErrFormat) && !errors.Is(err, stream.ErrUnsupported) {
				t.Fatal(h, err)
			}
			return
		}
		if !bytes.HasPrefix(b, whole) || !bytes.HasPrefix(whole, again) || len(whole) != len(again)+64 {
			t.Fatalf("%+v\n% x\n% x", h, whole, again)
		}
		if h.ID == 0 || h.Segment < stream.MinSegment || h.Segment > stream.MaxSegment || len(h.Label) < 1 ||
			len(h.Label) > stream.MaxLabel || len(h.Metadata) > stream.MaxMetadata {
			t.Fatalf("%+v", h)
		}
	})
}

func addStreams(f *testing.F, add func(sealed []byte)) {
	f.Helper()
	keys := newFixedKeys(f)
	for _, n := range []int{0, 1, seg, seg + 10} {
		hand := byHandOf(keys, seg)
		add(hand.seal(text(n)))
		hand.metadata = []byte("meta")
		add(hand.seal(text(n)))
	}
}

// What opens is a stream that somebody sealed: sealing it again under the same salt
// makes the same bytes. What does not gives out only whole segments of it, the same
// by every way of reading.
func FuzzOpen(f *testing.F) {
	keys := newFixedKeys(f)
	addStreams(f, func(sealed []byte) { f.Add(sealed, uint(0), byte(0)); f.Add(sealed, uint(len(sealed)-1), byte(1)) })
	f.Fuzz(func(t *testing.T, sealed []byte, at uint, with byte) {
		sealed = bytes.Clone(sealed)
		if len(sealed) > 0 {
			sealed[at%uint(len(sealed))] ^= with
		}
		ctx := context.Background()
		r, err := stream.NewReader(ctx, bytes.NewReader(sealed), keys, place)
		if err != nil {
			if _, err := stream.NewReaderAt(ctx, bytes.NewReader(sealed), int64(len(sealed)), keys, place); err == nil {
				t.Fatal("opens at offsets only")
			}
			known := false
			for _, want := range []error{stream.ErrIntegrity, stream.ErrFormat, stream.ErrUnsupported, stream.ErrLabel, keystore.ErrUnknownKey} {
				known = known || errors.Is(err, want)
			}
			if r != nil || !known {
				t.Fatal(r, err)
			}
			return
		}
		got, err := io.ReadAll(r)
		p, err2 := stream.NewReader(ctx, bytes.NewReader(sealed), keys, place, stream.WithWorkers(2))
		if err2 != nil {
			t.Fatal(err2)
		}
		var parallel bytes.Buffer
		_, err2 = p.WriteTo(&parallel)
		if (err == nil) != (err2 == nil) || !bytes.Equal(got, parallel.Bytes()) {
			t.Fatal(err, err2)
		}
		h, whole, _, headErr := stream.ParseHeader(bytes.NewReader(sealed))
		if headErr != nil {
			t.Fatal(headErr)
		}
		if err != nil {
			if !errors.Is(err, stream.ErrIntegrity) || len(got)%h.Segment != 0 {
				t.Fatal(len(got), err)
			}
			return
		}
		hand := byHandOf(keys, h.Segment)
		hand.salt, hand.metadata = whole[9:41], h.Metadata
		if again := hand.seal(got); !bytes.Equal(sealed, again) {
			t.Fatal("the same plaintext has another stream")
		}
	})
}

// What is sealed opens, and of it every bit counts.
func FuzzSeal(f *testing.F) {
	keys := newFixedKeys(f)
	f.Add(uint16(9), []byte("data"), "label", []byte("metadata"), uint16(0), byte(1), uint(9))
	f.Add(uint16(3*seg), []byte(nil), "~", []byte(nil), uint16(1), byte(3), uint(5000))
	f.Add(uint16(0), []byte{0}, "", make([]byte, 200), uint16(77), byte(2), uint(100))
	f.Fuzz(func(t *testing.T, length uint16, data []byte, label string, metadata []byte, segment uint16, workers byte, bit uint) {
		ctx, plaintext := context.Background(), text(int(length))
		at := stream.Place{Label: label, Data: data}
		opts := []stream.Option{stream.WithWorkers(int(workers))}
		var out bytes.Buffer
		w, err := stream.NewWriter(ctx, &out, keys, at, append(opts, stream.WithMetadata(metadata), stream.WithSegmentSize(seg+int(segment)))...)
		if err != nil {
			if !errors.Is(err, stream.ErrArgument) {
				t.Fatal(err)
			}
			return
		}
		if n, err := w.Write(plaintext); n != len(plaintext) || err != nil {
			t.Fatal(n, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		sealed := out.Bytes()
		read := func() ([]byte, error) {
			r, err := stream.NewReader(ctx, bytes.NewReader(sealed), keys, at, opts...)
			if err != nil {
				return nil, err
			}
			return io.ReadAll(r)
		}
		if got, err := read(); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatal(len(got), err)
		}
		bit %= uint(8 * len(sealed))
		sealed[bit/8] ^= 1 << (bit % 8)
		if got, err := read(); err == nil || !bytes.HasPrefix(plaintext, got) {
			t.Fatalf("bit %d does not count", bit)
		}
	})
}
