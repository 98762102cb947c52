package stream_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
	"testing"

	"github.com/atrestdb/atrest/stream"
)

func rawGCM(b *testing.B) cipher.AEAD {
	b.Helper()
	block, err := aes.NewCipher(counting(0, 32))
	if err != nil {
		b.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return a
}

func BenchmarkSeal(b *testing.B) {
	for _, n := range []int{64 << 10, 1 << 20, 64 << 20} {
		plaintext := text(n)
		b.Run(fmt.Sprintf("size=%d/raw", n), func(b *testing.B) {
			a := rawGCM(b)
			nonce, aad := make([]byte, 12), make([]byte, 9)
			out := make([]byte, 0, 64<<10+stream.Overhead)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				for i := 0; i < n; i += 64 << 10 {
					a.Seal(out, nonce, plaintext[i:][:64<<10], aad)
				}
			}
		})
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("size=%d/workers=%d", n, workers), func(b *testing.B) {
				keys := newStore(b)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					w, err := stream.NewWriter(b.Context(), io.Discard, keys, place, stream.WithWorkers(workers))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := w.Write(plaintext); err != nil {
						b.Fatal(err)
					}
					if err := w.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{64 << 10, 1 << 20, 64 << 20} {
		keys := newStore(b)
		sealed := seal(b, keys, place, text(n))
		for _, workers := range []int{1, 2} {
			b.Run(fmt.Sprintf("size=%d/workers=%d", n, workers), func(b *testing.B) {
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					r, err := stream.NewReader(b.Context(), bytes.NewReader(sealed), keys, place, stream.WithWorkers(workers))
					if err != nil {
						b.Fatal(err)
					}
					if m, err := r.WriteTo(io.Discard); err != nil || m != int64(n) {
						b.Fatal(m, err)
					}
				}
			})
		}
	}
}

// BenchmarkSetUp is what a stream costs before its first byte and after its last.
func BenchmarkSetUp(b *testing.B) {
	keys := newStore(b)
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			w, err := stream.NewWriter(b.Context(), io.Discard, keys, place)
			if err != nil {
				b.Fatal(err)
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	sealed := seal(b, keys, place, nil)
	b.Run("open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, err := stream.NewReader(b.Context(), bytes.NewReader(sealed), keys, place)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReadAt reads 100 bytes at a time: from segments at hand, and from others.
func BenchmarkReadAt(b *testing.B) {
	keys := newStore(b)
	sealed := seal(b, keys, place, text(4<<20))
	for name, step := range map[string]int64{"near": 100, "far": 64<<10 + 100} {
		b.Run(name, func(b *testing.B) {
			r := newReaderAt(b, keys, sealed)
			p, at := make([]byte, 100), int64(0)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.ReadAt(p, at); err != nil {
					b.Fatal(err)
				}
				if at += step; at > r.Size()-100 {
					at = 0
				}
			}
		})
	}
}
