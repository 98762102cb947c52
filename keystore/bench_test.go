package keystore_test

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"runtime"
	"testing"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// newKeys returns n keys with different random ids.
func newKeys(n int) ([]key.ID, []key.DEK) {
	var (
		ids  []key.ID
		deks []key.DEK
		seen = map[key.ID]bool{}
	)
	for len(ids) < n {
		if id := key.NewID(); !seen[id] {
			seen[id] = true
			ids, deks = append(ids, id), append(deks, key.NewDEK())
		}
	}
	return ids, deks
}

func loaded(b *testing.B, ids []key.ID, deks []key.DEK) *keystore.Store {
	b.Helper()
	s, err := keystore.New()
	if err != nil {
		b.Fatal(err)
	}
	for i, id := range ids {
		if err := s.Install(id, key.Storage, deks[i]); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

var sizes = []int{1_000, 100_000}

func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			ids, deks := newKeys(n)
			s := loaded(b, ids, deks)
			envs := make([][8]byte, 1<<16)
			for i := range envs {
				id := ids[i*7919%n]
				envs[i] = [8]byte{1, 0, byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if !keystore.Lookup(s, envs[i&(1<<16-1)][:]) {
					b.Fatal("not found")
				}
				i++
			}
		})
	}
}

// sealedUnder returns a 64-byte value sealed under each key.
func sealedUnder(b *testing.B, ids []key.ID, deks []key.DEK) [][]byte {
	b.Helper()
	envs := make([][]byte, len(ids))
	for i, id := range ids {
		c, err := envelope.NewCipher(id, deks[i])
		if err != nil {
			b.Fatal(err)
		}
		s, err := c.NewCountedSealer(envelope.Writer{Node16: 1, Epoch: 1}, nil)
		if err != nil {
			b.Fatal(err)
		}
		if envs[i], err = s.SealStorage(nil, make([]byte, 64), nil); err != nil {
			b.Fatal(err)
		}
	}
	return envs
}

func BenchmarkOpenAmong(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			ids, deks := newKeys(n)
			s := loaded(b, ids, deks)
			envs := sealedUnder(b, ids, deks)
			v, dst := s.Storage(), make([]byte, 0, 256)
			b.SetBytes(64)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := v.Open(dst, envs[i], nil); err != nil {
					b.Fatal(err)
				}
				i = (i + 7919) % n
			}
		})
	}
}

func newGCM(b *testing.B, k []byte) cipher.AEAD {
	b.Helper()
	block, err := aes.NewCipher(k)
	if err != nil {
		b.Fatal(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// BenchmarkAES is the part of an installation that no keystore can save. It draws
// an id, as BenchmarkInstallAmong does.
func BenchmarkAES(b *testing.B) {
	k := make([]byte, 32)
	var kept []cipher.AEAD
	b.ReportAllocs()
	for b.Loop() {
		k[0] = byte(key.NewID())
		kept = append(kept, newGCM(b, k))
	}
	runtime.KeepAlive(kept)
}

func BenchmarkInstallAmong(b *testing.B) {
	const n = 100_000
	b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
		ids, deks := newKeys(n)
		s := loaded(b, ids, deks)
		b.ReportAllocs()
		for b.Loop() {
			id := key.NewID()
			for has(s, id) {
				id = key.NewID()
			}
			if err := s.Install(id, key.Storage, deks[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	const n = 1_000
	b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
		ids, deks := newKeys(n)
		b.ReportAllocs()
		for b.Loop() {
			loaded(b, ids, deks)
		}
	})
}

// BenchmarkAESLoad is that part of BenchmarkLoad that no keystore can save.
func BenchmarkAESLoad(b *testing.B) {
	const n = 1_000
	b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
		k := make([]byte, 32)
		b.ReportAllocs()
		for b.Loop() {
			kept := make([]cipher.AEAD, n)
			for i := range kept {
				kept[i] = newGCM(b, k)
			}
		}
	})
}

// BenchmarkStorage seals and opens with a counted and an extended nonce, on one
// goroutine and on all processors.
func BenchmarkStorage(b *testing.B) {
	for _, kind := range []struct {
		name string
		opts []keystore.Option
	}{
		{"counted", nil},
		{"extended", []keystore.Option{keystore.WithExtendedOnly()}},
	} {
		for _, size := range []int{64, 1 << 10} {
			v := sealing(b, kind.opts...).Storage()
			plaintext, where := make([]byte, size), make([]byte, 32)
			env, err := v.Seal(nil, plaintext, where)
			if err != nil {
				b.Fatal(err)
			}
			for _, op := range []struct {
				name string
				do   func(dst []byte) ([]byte, error)
			}{
				{"seal", func(dst []byte) ([]byte, error) { return v.Seal(dst, plaintext, where) }},
				{"open", func(dst []byte) ([]byte, error) { return v.Open(dst, env, where) }},
			} {
				name := fmt.Sprintf("%s/%s/size=%d", op.name, kind.name, size)
				b.Run(name+"/serial", func(b *testing.B) {
					dst := make([]byte, 0, size+256)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					for b.Loop() {
						if _, err := op.do(dst); err != nil {
							b.Fatal(err)
						}
					}
				})
				b.Run(name+"/parallel", func(b *testing.B) {
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						dst := make([]byte, 0, size+256)
						for pb.Next() {
							if _, err := op.do(dst); err != nil {
								b.Error(err)
								return
							}
						}
					})
				})
			}
		}
	}
}
