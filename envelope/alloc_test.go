package envelope_test

import (
	"crypto/fips140"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
)

// With room in dst nothing is allocated: with room for the associated data too,
// with room for the result alone, and in place.
func TestAllocations(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("the AEAD of strict FIPS mode allocates")
	}
	c := newCipher(t)
	plaintext := make([]byte, 1000)
	for name, s := range sealers(t, c) {
		for _, k := range kinds {
			if k.name == "raft generation 1" && name == "extended" {
				continue
			}
			size := len(plaintext) + envelope.AES256GCM.Overhead()
			if name == "extended" {
				size = len(plaintext) + envelope.XAES256GCM.Overhead()
			}
			roomy, tight, shared := make([]byte, 0, size+100), make([]byte, 0, size), make([]byte, 0, size+100)
			env, err := k.seal(s, nil, plaintext)
			require.NoError(t, err)
			tests := []struct {
				name    string
				scratch bool // needs a pooled buffer
				f       func() ([]byte, error)
			}{
				{"seal", k.name == "raft generation 1", func() ([]byte, error) { return k.seal(s, roomy, plaintext) }},
				{"seal, tight", true, func() ([]byte, error) { return k.seal(s, tight, plaintext) }},
				{"seal in place", true, func() ([]byte, error) { return k.seal(s, shared, shared[:len(plaintext)]) }},
				{"open", k.name == "raft generation 1", func() ([]byte, error) { return k.open(c, roomy, env) }},
				{"open, tight", true, func() ([]byte, error) { return k.open(c, tight[:0:len(plaintext)], env) }},
				{"open in place", true, func() ([]byte, error) {
					copy(shared[:len(env)], env)
					return k.open(c, shared, shared[:len(env)])
				}},
			}
			for _, tt := range tests {
				if tt.scratch && raceEnabled {
					continue // the race detector makes a sync.Pool lose buffers
				}
				var err error
				n := testing.AllocsPerRun(2000, func() { _, err = tt.f() })
				require.NoError(t, err)
				require.Zero(t, n, "%s, %s, %s", name, k.name, tt.name)
			}
		}
	}
}
