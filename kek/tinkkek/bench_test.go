package tinkkek_test

import (
	"testing"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
	"github.com/atrestdb/atrest/key"
)

func benchmark(b *testing.B, k kek.KEK, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
	s := newSet(b, k)
	c, err := s.WrapDEK(b.Context(), key.ClusterID{1}, 7, key.Storage, key.NewDEK())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.UnwrapDEK(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnwrapDEK(b *testing.B) {
	k, err := tinkkek.FromHandle(handle(b, ctrHMAC()))
	benchmark(b, k, err)
}

// What a goroutine for each call costs.
func BenchmarkUnwrapDEKWithContext(b *testing.B) {
	k, err := tinkkek.FromKMS(b.Context(), newService(b, keyURI), keyURI)
	benchmark(b, k, err)
}
