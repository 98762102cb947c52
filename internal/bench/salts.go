package main

import (
	"crypto/aes"

	"github.com/atrestdb/atrest/envelope"
)

// saltRows compares opening a value whose salt was not met before with what that
// costs at least: two AES blocks, a key set-up, and opening the value.
func saltRows(cfg config) []row {
	salts := 4096 // far more than a cipher keeps
	if cfg.quick {
		salts = 128
	}
	return []row{{
		group: "envelope, suite 0x03, salts not met before",
		what:  "open 64 B against a key set-up and raw",
		goal:  1.15,
		prepare: func() (trial, error) {
			dek, raw, err := newKey()
			if err != nil {
				return trial{}, err
			}
			c, err := envelope.NewCipher(keyID, dek)
			if err != nil {
				return trial{}, err
			}
			v, w := newValue(64), newValue(64)
			envs, ciphertexts := make([][]byte, salts), make([][]byte, salts)
			for i := range envs {
				s, err := c.NewSealer(nil) // draws a salt of its own
				if err != nil {
					return trial{}, err
				}
				if envs[i], err = s.SealStorage(nil, v.plaintext, v.location); err != nil {
					return trial{}, err
				}
				ciphertexts[i] = raw.Seal(nil, w.nonce, w.plaintext, w.aad)
			}
			return coldTrial(c, raw, v, w, envs, ciphertexts)
		},
	}}
}

func coldTrial(c *envelope.Cipher, raw *gcm, v, w value, envs, ciphertexts [][]byte) (trial, error) {
	derive, err := aes.NewCipher(raw.key)
	if err != nil {
		return trial{}, err
	}
	var i, j int
	ours := func(n int) {
		for range n {
			i = (i + 1) % len(envs)
			if _, err := c.OpenStorage(v.dst, envs[i], v.location); err != nil {
				panic(err) // they were just sealed
			}
		}
	}
	subkey := make([]byte, 32)
	theirs := func(n int) {
		for range n {
			j = (j + 1) % len(ciphertexts)
			derive.Encrypt(subkey[:16], raw.key[:16])
			derive.Encrypt(subkey[16:], raw.key[16:])
			aead, err := newGCM(raw.key)
			if err != nil {
				panic(err)
			}
			if _, err := aead.Open(w.dst, w.nonce, ciphertexts[j], w.aad); err != nil {
				panic(err)
			}
		}
	}
	return trial{ours: []work{ours}, raw: []work{theirs}}, nil
}
