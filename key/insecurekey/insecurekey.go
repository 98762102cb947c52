// Package insecurekey reads and makes DEKs byte by byte. It exists for tests
// with fixed keys and for programs that search a disk for leaked keys; nothing
// else should import it, and a reviewer can find every use by its name.
package insecurekey

import (
	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// Bytes returns a copy of the 32 bytes of a DEK, nil for the zero DEK.
func Bytes(d key.DEK) []byte { return append([]byte(nil), secret.Bytes(d)...) }

// New returns a DEK with a copy of b, which must be 32 bytes long.
func New(b []byte) (key.DEK, error) { return secret.New(b) }
