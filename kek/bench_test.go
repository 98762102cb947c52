package kek_test

import (
	"testing"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
)

func BenchmarkWrapDEK(b *testing.B) {
	s, dek := newSet(b, aesKEK(b, rawKEK(1))), key.NewDEK()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.WrapDEK(b.Context(), cluster, 7, key.Storage, dek); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnwrapDEK(b *testing.B) {
	s := newSet(b, aesKEK(b, rawKEK(1)))
	c := wrapDEK(b, s, 7, key.Storage, key.NewDEK())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.UnwrapDEK(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

// A start with 1,000 keys.
func BenchmarkUnwrapDEK1000(b *testing.B) {
	s := newSet(b, aesKEK(b, rawKEK(1)), aesKEK(b, rawKEK(2)))
	cs := make([][]byte, 1000)
	for i := range cs {
		cs[i] = wrapDEK(b, s, key.ID(i+1), key.Storage, key.NewDEK())
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, c := range cs {
			if _, _, err := s.UnwrapDEK(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkFile(b *testing.B) {
	path := kekFile(b, rawKEK(1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := kek.File(path); err != nil {
			b.Fatal(err)
		}
	}
}
