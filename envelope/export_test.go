package envelope

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"io"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

const (
	BlockSeals = blockSeals
	MaxCounted = maxCounted
	MaxSalted  = maxSalted
	Shards     = shards
)

// NewCipherForSuiteKey returns a cipher whose key for every suite is k itself,
// without a derivation for suites 0x03 and 0x04.
func NewCipherForSuiteKey(t testing.TB, id key.ID, k key.DEK) *Cipher {
	t.Helper()
	c, err := NewCipher(id, k)
	if err != nil {
		t.Fatal(err)
	}
	x, err := newXAES(k)
	if err != nil {
		t.Fatal(err)
	}
	c.xaes.Store(x)
	if a, err := chacha20poly1305.NewX(secret.Bytes(k)); err == nil {
		c.cha.Store(&aead{gcm: a, nonce: chacha20poly1305.NonceSizeX})
	}
	return c
}

// SealerWithNonce returns a sealer whose next seal has this nonce: 12 bytes for
// suite 0x01, 24 for 0x03, and for 0x04 with that option. A warm one has a block at hand already. Until the test
// ends the random source is one that begins with the nonce.
func SealerWithNonce(t testing.TB, c *Cipher, nonce []byte, warm bool, opts ...SealerOption) *Sealer {
	t.Helper()
	var (
		s      *Sealer
		err    error
		random = rand.Reader
	)
	t.Cleanup(func() { rand.Reader = random })
	if len(nonce) == gcmNonceSize {
		s, err = c.NewCountedSealer(Writer{
			Node16: binary.BigEndian.Uint16(nonce),
			Epoch:  binary.BigEndian.Uint16(nonce[2:]),
		}, nil)
		s.issue.start = binary.BigEndian.Uint64(nonce[4:])
	} else {
		s, err = c.NewSealer(nil, opts...)
		rand.Reader = io.MultiReader(bytes.NewReader(nonce), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if warm {
		b, err := s.issue.newBlock(Usage{Seals: 1, Bytes: MaxPlaintext})
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.issue.shards { // whichever the seal will look at
			s.issue.shards[i].Store(b)
		}
	}
	return s
}

// PinStart fixes the first counted nonce of a sealer and how many it has issued.
func PinStart(s *Sealer, start, issued uint64) { s.issue.start, s.issue.issued = start, issued }

// PinSalted sets how many seals the salt of a sealer that sealed nothing yet has
// served.
func PinSalted(t testing.TB, s *Sealer, salted uint64) {
	t.Helper()
	if err := s.issue.freshSalt(); err != nil {
		t.Fatal(err)
	}
	s.issue.salted = salted
}

// Nonce is what TakeAt issues: the suite, the count of a counted nonce, the salt of
// an extended one.
type Nonce struct {
	Suite Suite
	Count uint64
	Salt  [saltSize]byte
}

// TakeAt issues a nonce as a seal of size bytes does, from a given shard.
func TakeAt(s *Sealer, shard, size int) (Nonce, error) {
	b, w, err := s.issue.take(shard, size)
	if err != nil {
		return Nonce{}, err
	}
	if b.header.Suite == AES256GCM {
		return Nonce{Suite: AES256GCM, Count: b.base + w&closed}, nil
	}
	return Nonce{Suite: b.header.Suite, Salt: [saltSize]byte(b.prefix[HeaderSize:])}, nil
}

// Claim issues a nonce as nearly every seal does, and does nothing with it.
func Claim(s *Sealer) {
	i, b, w := s.issue.current()
	if !b.fits(w, 64) || !b.claim(w, 64) {
		if _, _, err := s.issue.take(i, 64); err != nil {
			panic(err)
		}
	}
}

// NewAEAD returns the AEAD that the package uses under a suite's key.
func NewAEAD(t testing.TB, k []byte) (a cipher.AEAD, choosesNonce bool) {
	t.Helper()
	x, err := newAEAD(k)
	if err != nil {
		t.Fatal(err)
	}
	return x.gcm, x.random
}

// NewXAES returns the AEAD that suite 0x03 uses under its key for the salt that
// a nonce begins with.
func NewXAES(t testing.TB, k key.DEK, nonce []byte) cipher.AEAD {
	t.Helper()
	x, err := newXAES(k)
	if err != nil {
		t.Fatal(err)
	}
	m, err := x.derive([saltSize]byte(nonce))
	if err != nil {
		t.Fatal(err)
	}
	return m.aead.gcm
}

// KnowsSalt reports whether an open of env would find its salt at hand.
func KnowsSalt(c *Cipher, env []byte) bool { return c.xaes.Load().lookup(env[HeaderSize:]) != nil }

// ForgetSalts makes the next open under every salt a cold one.
func ForgetSalts(c *Cipher) {
	if x := c.xaes.Load(); x != nil {
		for i := range x.slots {
			if x.slots[i].Load() != nil {
				x.slots[i].Store(nil)
			}
		}
	}
}

// SealBody seals a body under a header, whatever they say of each other.
func SealBody(t testing.TB, c *Cipher, h Header, body, location []byte) []byte {
	t.Helper()
	s, err := c.NewSealer(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, w, err := s.issue.take(0, len(body))
	if err != nil {
		t.Fatal(err)
	}
	return b.seal(nil, body, w, h, &binding{kind: storage, location: location})
}

// NewXChaCha returns the AEAD of suite 0x04.
func NewXChaCha(t testing.TB, k []byte) cipher.AEAD {
	t.Helper()
	a, err := chacha20poly1305.NewX(k)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// DecodedLen and MaxDecoded are what bounds the length of a compressed body.
var (
	DecodedLen = decodedLen
	MaxDecoded = maxDecoded
)
