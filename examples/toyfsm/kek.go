package main

import (
	"crypto/rand"
	"os"

	"github.com/atrestdb/atrest/kek"
)

// makeKEK makes a key encryption key in a file. A real one is made by an operator
// and lies apart from the data.
func makeKEK(path string) (kek.KEK, error) {
	raw := make([]byte, 32)
	rand.Read(raw)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return nil, err
	}
	return kek.File(path)
}
