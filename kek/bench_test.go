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

// Turning a passphrase into a key, at the default cost, which a start pays once.
func BenchmarkPassphraseDerive(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		k, err := kek.Passphrase(secret)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := k.WrapParams(b.Context(), rawKEK(1), nil); err != nil {
			b.Fatal(err)
		}
	}
}

// A start with 1,000 keys under one passphrase, at the default cost.
func BenchmarkPassphraseUnwrapDEK1000(b *testing.B) {
	k, err := kek.Passphrase(secret)
	if err != nil {
		b.Fatal(err)
	}
	cs := make([][]byte, 1000)
	for i := range cs {
		cs[i] = wrapDEK(b, newSet(b, k), key.ID(i+1), key.Storage, key.NewDEK())
	}
	b.ReportAllocs()
	for b.Loop() {
		fresh, err := kek.Passphrase(secret)
		if err != nil {
			b.Fatal(err)
		}
		s := newSet(b, fresh)
		for _, c := range cs {
			if _, _, err := s.UnwrapDEK(b.Context(), c); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkAddRecipient(b *testing.B) {
	s, next := newSet(b, aesKEK(b, rawKEK(1))), aesKEK(b, rawKEK(2))
	c := wrapDEK(b, s, 7, key.Storage, key.NewDEK())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.AddRecipient(b.Context(), c, next); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenURI(b *testing.B) {
	uri := "file:" + kekFile(b, rawKEK(1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := kek.OpenURI(b.Context(), uri); err != nil {
			b.Fatal(err)
		}
	}
}
