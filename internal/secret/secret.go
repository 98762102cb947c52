// Package secret holds a 32-byte key so that it cannot be printed, encoded or
// read by accident.
//
// A [Key] can be copied and passed around freely. Its bytes come out only
// through [Bytes], a function of this package rather than a method, so code
// outside the module that is handed a Key has no way to read it.
//
// Nothing here claims to wipe memory: the Go runtime may copy a value whenever
// it moves a stack, and a cipher keeps its own key schedule.
package secret

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Size is the length of a key in bytes.
const Size = 32

const redacted = "[redacted key]"

// ErrSize is returned for key material that is not [Size] bytes long.
var ErrSize = errors.New("secret: a key is 32 bytes long")

// Key is 32 bytes of key material, or nothing: the zero Key.
//
// The bytes lie behind two pointers. fmt calls no methods on unexported fields of
// a struct that holds a Key, and where a verb does not fit a pointer, as %s, it
// prints what the pointer points to: here, an address.
type Key struct{ b **[Size]byte }

// New returns a key with a copy of b.
func New(b []byte) (Key, error) {
	if len(b) != Size {
		return Key{}, fmt.Errorf("%w: got %d", ErrSize, len(b))
	}
	return hold((*[Size]byte)(append([]byte(nil), b...))), nil
}

func hold(b *[Size]byte) Key { return Key{b: &b} }

// Random returns a new key from the system's random source.
func Random() Key {
	b := new([Size]byte)
	rand.Read(b[:])
	return hold(b)
}

// Bytes returns the key's own memory; the caller must not change it. It is nil
// for the zero Key.
func Bytes(k Key) []byte {
	if k.b == nil {
		return nil
	}
	return (*k.b)[:]
}

// IsZero reports whether k holds no key.
func (k Key) IsZero() bool { return k.b == nil }

// Equal compares two keys in constant time. Two zero keys are equal.
func Equal(a, b Key) bool {
	if a.b == nil || b.b == nil {
		return a.b == b.b
	}
	return subtle.ConstantTimeCompare(Bytes(a), Bytes(b)) == 1
}

// Expand derives n bytes from k under label with HKDF-Expand over SHA-256 (RFC
// 5869, section 2.3; the extract step is skipped because k is uniformly random,
// section 3.3). It panics when k is zero or n above 8160, both of which are
// mistakes of this module.
func Expand(k Key, label string, n int) []byte {
	out, err := hkdf.Expand(sha256.New, Bytes(k), label, n)
	if err != nil || k.b == nil {
		panic(fmt.Sprintf("secret: expand under %q: zero key or bad length %d", label, n))
	}
	return out
}

// Extract returns the key that HKDF-Extract over SHA-256 makes of k and salt (RFC
// 5869, section 2.2), to expand under labels. It panics when k is zero.
func Extract(k Key, salt []byte) Key {
	out, err := hkdf.Extract(sha256.New, Bytes(k), salt)
	if err != nil || k.b == nil {
		panic("secret: extract from a zero key")
	}
	return hold((*[Size]byte)(out))
}

// Derive returns the subkey of k under label.
func Derive(k Key, label string) Key {
	return hold((*[Size]byte)(Expand(k, label, Size)))
}

// Format writes a fixed word for every verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) } //nolint:errcheck // fmt's State does not fail.

// MarshalText keeps the key out of JSON and every other text encoding.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue keeps the key out of logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }
