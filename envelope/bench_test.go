package envelope_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"fmt"
	"testing"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

var benchSizes = []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20}

// benchLocation makes associated data of 38 bytes.
var benchLocation = make([]byte, 32)

func sizeName(n int) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%dMiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}

// benchSizesOf runs f for each size, on one goroutine and on as many as -cpu says.
func benchSizesOf(b *testing.B, f func(b *testing.B, size int) func()) {
	for _, size := range benchSizes {
		b.Run("size="+sizeName(size)+"/serial", func(b *testing.B) {
			op := f(b, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				op()
			}
		})
		b.Run("size="+sizeName(size)+"/parallel", func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				op := f(b, size)
				for pb.Next() {
					op()
				}
			})
		})
	}
}

// benchSealers runs f for each kind of sealer, named by its suite.
func benchSealers(b *testing.B, f func(b *testing.B, c *envelope.Cipher, s *envelope.Sealer)) {
	c := newCipher(b)
	b.Run("suite=0x01", func(b *testing.B) {
		if fips140.Enforced() {
			b.Skip("strict FIPS mode has no counted nonces")
		}
		f(b, c, counted(b, c, nil))
	})
	b.Run("suite=0x03", func(b *testing.B) { f(b, c, extended(b, c, nil)) })
}

func BenchmarkSeal(b *testing.B) {
	benchSealers(b, func(b *testing.B, _ *envelope.Cipher, s *envelope.Sealer) {
		benchSizesOf(b, func(b *testing.B, size int) func() {
			plaintext, dst := make([]byte, size), make([]byte, 0, size+128)
			return func() {
				if _, err := s.SealStorage(dst, plaintext, benchLocation); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

func BenchmarkOpen(b *testing.B) {
	benchSealers(b, func(b *testing.B, c *envelope.Cipher, s *envelope.Sealer) {
		benchSizesOf(b, func(b *testing.B, size int) func() {
			env, err := s.SealStorage(nil, make([]byte, size), benchLocation)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, size+128)
			return func() {
				if _, err := c.OpenStorage(dst, env, benchLocation); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// Raw is crypto/cipher with the same sizes and associated data: what the others are
// to be compared with.
func BenchmarkRaw(b *testing.B) {
	if fips140.Enforced() {
		b.Skip("strict FIPS mode lets nobody choose the nonces")
	}
	block, err := aes.NewCipher(insecurekey.Bytes(key.NewDEK()))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	nonce, aad := make([]byte, 12), make([]byte, envelope.HeaderSize+len(benchLocation))
	b.Run("op=seal", func(b *testing.B) {
		benchSizesOf(b, func(_ *testing.B, size int) func() {
			plaintext, dst := make([]byte, size), make([]byte, 0, size+128)
			return func() { gcm.Seal(dst, nonce, plaintext, aad) }
		})
	})
	b.Run("op=open", func(b *testing.B) {
		benchSizesOf(b, func(b *testing.B, size int) func() {
			sealed := gcm.Seal(nil, nonce, make([]byte, size), aad)
			dst := make([]byte, 0, size+128)
			return func() {
				if _, err := gcm.Open(dst, nonce, sealed, aad); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// A salt that was not met before costs one key set-up.
func BenchmarkOpenColdSalt(b *testing.B) {
	c := newCipher(b)
	env, err := extended(b, c, nil).SealStorage(nil, make([]byte, 64), benchLocation)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 200)
	b.SetBytes(64)
	b.ReportAllocs()
	for b.Loop() {
		envelope.ForgetSalts(c)
		if _, err := c.OpenStorage(dst, env, benchLocation); err != nil {
			b.Fatal(err)
		}
	}
}

// The nonce alone: what a seal adds for it.
func BenchmarkNonce(b *testing.B) {
	benchSealers(b, func(b *testing.B, _ *envelope.Cipher, s *envelope.Sealer) {
		b.Run("serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				envelope.Claim(s)
			}
		})
		b.Run("parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					envelope.Claim(s)
				}
			})
		})
	})
}

// A key's own cost: what a host pays to have one more of them.
func BenchmarkNewCipher(b *testing.B) {
	dek := key.NewDEK()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := envelope.NewCipher(keyID, dek); err != nil {
			b.Fatal(err)
		}
	}
}
