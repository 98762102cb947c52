package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
)

const (
	keyID    = key.ID(7)
	location = 32 // bytes; with the header, 38 bytes of associated data
	spare    = 96 // capacity of every buffer beyond the plaintext
)

var errDiffers = errors.New("what was opened is not what was sealed")

// sealer is one way through the module: what seals and what opens again.
type sealer struct {
	name  string
	suite envelope.Suite
	seal  func(dst, plaintext, location []byte) ([]byte, error)
	open  func(dst, env, location []byte) ([]byte, error)
}

// goals are the highest ratios for one size; 0 where there is none.
type goals struct{ seal, open, extendedSeal float64 }

var sizes = []struct {
	bytes int
	name  string
	goals
}{
	{64, "64 B", goals{1.12, 1.15, 1.60}},
	{256, "256 B", goals{1.10, 1.10, 0}},
	{1 << 10, "1 KiB", goals{1.03, 1.03, 0}},
	{4 << 10, "4 KiB", goals{1.03, 1.03, 1.10}},
	{16 << 10, "16 KiB", goals{1.03, 1.03, 1.05}},
	{64 << 10, "64 KiB", goals{1.03, 1.03, 1.05}},
	{1 << 20, "1 MiB", goals{1.03, 1.03, 1.05}},
}

// valueRows compares sealing and opening one value with the standard library's
// AES-256-GCM under the same key.
func valueRows() []row {
	var out []row
	for _, way := range []struct {
		name string
		make func(dek key.DEK) (sealer, error)
	}{
		{"envelope, suite 0x01", counted},
		{"keystore, suite 0x01", store},
		{"envelope, suite 0x03", extended},
	} {
		for goroutines := 1; goroutines <= 2; goroutines++ {
			group := way.name + ", one goroutine"
			if goroutines == 2 {
				group = way.name + ", two goroutines"
			}
			for _, sz := range sizes {
				seal, open := sz.seal, sz.open
				if way.name == "envelope, suite 0x03" {
					seal = sz.extendedSeal
				}
				if goroutines == 2 && sz.bytes == 64 && seal < 1.15 {
					seal = 1.15
				}
				prepare := func(work func(sealer, *gcm, int, int) (trial, error)) func() (trial, error) {
					return func() (trial, error) {
						dek, raw, err := newKey()
						if err != nil {
							return trial{}, err
						}
						s, err := way.make(dek)
						if err != nil {
							return trial{}, err
						}
						return work(s, raw, sz.bytes, goroutines)
					}
				}
				out = append(out,
					row{group: group, what: "seal " + sz.name, goal: seal, allocFree: true, prepare: prepare(sealing)},
					row{group: group, what: "open " + sz.name, goal: open, allocFree: true, prepare: prepare(opening)})
			}
		}
	}
	return out
}

// gcm is the standard library's side.
type gcm struct {
	key []byte
	cipher.AEAD
}

// newKey returns the same random key for both sides.
func newKey() (key.DEK, *gcm, error) {
	b := make([]byte, 32)
	rand.Read(b)
	dek, err := insecurekey.New(b)
	if err != nil {
		return key.DEK{}, nil, err
	}
	aead, err := newGCM(b)
	return dek, &gcm{b, aead}, err
}

func newGCM(b []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(b)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func counted(dek key.DEK) (sealer, error) {
	c, err := envelope.NewCipher(keyID, dek)
	if err != nil {
		return sealer{}, err
	}
	s, err := c.NewCountedSealer(envelope.Writer{Node16: 1, Epoch: 1}, nil)
	return sealer{"envelope", envelope.AES256GCM, s.SealStorage, c.OpenStorage}, err
}

func extended(dek key.DEK) (sealer, error) {
	c, err := envelope.NewCipher(keyID, dek)
	if err != nil {
		return sealer{}, err
	}
	s, err := c.NewSealer(nil)
	return sealer{"envelope", envelope.XAES256GCM, s.SealStorage, c.OpenStorage}, err
}

func store(dek key.DEK) (sealer, error) {
	st, err := keystore.New()
	if err != nil {
		return sealer{}, err
	}
	if err := st.Install(keyID, key.Storage, dek); err != nil {
		return sealer{}, err
	}
	if err := st.ActivateCounted(keyID, envelope.Writer{Node16: 1, Epoch: 1}); err != nil {
		return sealer{}, err
	}
	values := st.Storage()
	return sealer{"keystore", envelope.AES256GCM, values.Seal, values.Open}, nil
}

// value is what one goroutine works on; both sides get their own.
type value struct{ plaintext, location, aad, nonce, dst []byte }

func newValue(size int) value {
	v := value{
		plaintext: make([]byte, size),
		location:  make([]byte, location),
		nonce:     make([]byte, 12),
		dst:       make([]byte, 0, size+spare),
	}
	for _, b := range [][]byte{v.plaintext, v.location, v.nonce} {
		rand.Read(b)
	}
	v.aad = envelope.AppendStorageAAD(nil, envelope.Header{Suite: envelope.AES256GCM, KeyID: keyID}, v.location)
	return v
}

func sealing(s sealer, raw *gcm, size, goroutines int) (trial, error) {
	var t trial
	for range goroutines {
		v, w := newValue(size), newValue(size)
		if _, err := sealed(s, v); err != nil {
			return trial{}, err
		}
		t.ours = append(t.ours, func(n int) {
			for range n {
				if _, err := s.seal(v.dst, v.plaintext, v.location); err != nil {
					panic(err) // sealed worked with the same arguments
				}
			}
		})
		t.raw = append(t.raw, func(n int) {
			for range n {
				raw.Seal(w.dst, w.nonce, w.plaintext, w.aad)
			}
		})
	}
	return t, nil
}

func opening(s sealer, raw *gcm, size, goroutines int) (trial, error) {
	var t trial
	for range goroutines {
		v, w := newValue(size), newValue(size)
		env, err := sealed(s, v)
		if err != nil {
			return trial{}, err
		}
		ciphertext := raw.Seal(nil, w.nonce, w.plaintext, w.aad)
		t.ours = append(t.ours, func(n int) {
			for range n {
				if _, err := s.open(v.dst, env, v.location); err != nil {
					panic(err) // sealed opened it
				}
			}
		})
		t.raw = append(t.raw, func(n int) {
			for range n {
				if _, err := raw.Open(w.dst, w.nonce, ciphertext, w.aad); err != nil {
					panic(err)
				}
			}
		})
	}
	return t, nil
}

// sealed returns an envelope, after a look that it is what the row is about.
func sealed(s sealer, v value) ([]byte, error) {
	env, err := s.seal(nil, v.plaintext, v.location)
	if err != nil {
		return nil, err
	}
	h, err := envelope.ParseHeader(env)
	if err != nil {
		return nil, err
	}
	if h.Suite != s.suite {
		return nil, fmt.Errorf("%s sealed with suite %v, not %v", s.name, h.Suite, s.suite)
	}
	out, err := s.open(nil, env, v.location)
	if err == nil && !bytes.Equal(out, v.plaintext) {
		err = errDiffers
	}
	return env, err
}
