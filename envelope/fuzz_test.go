package envelope_test

import (
	"bytes"
	"crypto/fips140"
	"errors"
	"testing"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

// fuzzCipher opens what the committed seeds hold.
func fuzzCipher(f *testing.F) *envelope.Cipher {
	f.Helper()
	dek, err := insecurekey.New(counting(0, 32))
	if err != nil {
		f.Fatal(err)
	}
	c, err := envelope.NewCipher(keyID, dek)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// addVectors adds the vectors of the kind as seeds.
func addVectors(f *testing.F, kind string, add func(env, location []byte)) {
	f.Helper()
	var file struct{ Vectors []vector }
	readJSON(f, &file, "testdata", "envelopes.json")
	for _, v := range file.Vectors {
		if v.Kind == kind && len(v.Plaintext) < 200 {
			add(v.Envelope, v.Location)
		}
	}
}

// What parses marshals back to the same bytes; what does not is nothing at all.
func FuzzParseHeader(f *testing.F) {
	addVectors(f, "storage", func(env, _ []byte) { f.Add(env) })
	f.Fuzz(func(t *testing.T, env []byte) {
		before := bytes.Clone(env)
		h, err := envelope.ParseHeader(env)
		if !bytes.Equal(before, env) {
			t.Fatal("the input changed")
		}
		if err != nil {
			known := errors.Is(err, envelope.ErrShort) || errors.Is(err, envelope.ErrSuite) || errors.Is(err, key.ErrReservedID)
			if h != (envelope.Header{}) || !known {
				t.Fatal(h, err)
			}
			return
		}
		// Without a location, the associated data is the header.
		if !bytes.Equal(envelope.AppendStorageAAD(nil, h, nil), env[:envelope.HeaderSize]) || len(env) < h.Suite.Overhead() {
			t.Fatalf("%v from % x", h, env)
		}
	})
}

// checkOpen checks that opening is the same with room in dst and without, nil on
// error, and that of an envelope that opens every bit counts.
func checkOpen(t *testing.T, env []byte, bit uint, open func(dst, env []byte) ([]byte, error)) {
	t.Helper()
	before := bytes.Clone(env)
	got, err := open(nil, env)
	roomy, err2 := open(make([]byte, 0, len(env)+500), env)
	if (err == nil) != (err2 == nil) || !bytes.Equal(got, roomy) {
		t.Fatal(got, err, roomy, err2)
	}
	if !bytes.Equal(before, env) {
		t.Fatal("the envelope changed")
	}
	if err != nil {
		if got != nil || roomy != nil {
			t.Fatal(got, roomy, err)
		}
		return
	}
	if got == nil {
		t.Fatal("a nil plaintext")
	}
	bit %= uint(8 * len(env))
	env[bit/8] ^= 1 << (bit % 8)
	for _, dst := range [][]byte{nil, make([]byte, 0, len(env)+500)} {
		if got, err := open(dst, env); err == nil || got != nil {
			t.Fatalf("bit %d does not count: %x", bit, got)
		}
	}
	env[bit/8] ^= 1 << (bit % 8)
}

func FuzzOpenStorage(f *testing.F) {
	c := fuzzCipher(f)
	addVectors(f, "storage", func(env, location []byte) { f.Add(env, location, uint(len(env))) })
	f.Fuzz(func(t *testing.T, env, location []byte, bit uint) {
		checkOpen(t, env, bit, func(dst, env []byte) ([]byte, error) { return c.OpenStorage(dst, env, location) })
	})
}

func FuzzOpenRaft(f *testing.F) {
	c := fuzzCipher(f)
	addVectors(f, "raft", func(env, _ []byte) { f.Add(env, make([]byte, 16), "label", uint(len(env))) })
	f.Fuzz(func(t *testing.T, env, cluster []byte, label string, bit uint) {
		g := envelope.RaftGroup{Label: label}
		copy(g.Cluster[:], cluster)
		checkOpen(t, env, bit, func(dst, env []byte) ([]byte, error) { return c.OpenRaft(dst, env, g) })
		checkOpen(t, env, bit, c.OpenRaftGeneration1)
	})
}

// What is sealed opens, for what it was sealed for alone, and of it every bit
// counts.
func FuzzSeal(f *testing.F) {
	c := fuzzCipher(f)
	counted, err := c.NewCountedSealer(envelope.Writer{}, nil)
	if err != nil {
		f.Fatal(err)
	}
	extended, err := c.NewSealer(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("plaintext"), []byte("location"), []byte("elsewhere"), uint(9))
	f.Add([]byte(nil), []byte(nil), []byte{0}, uint(100))
	f.Fuzz(func(t *testing.T, plaintext, location, other []byte, bit uint) {
		for _, s := range []*envelope.Sealer{counted, extended} {
			env, err := s.SealStorage(nil, plaintext, location)
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.OpenStorage(nil, env, location)
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Fatal(got, err)
			}
			if got, err := c.OpenStorage(nil, env, other); bytes.Equal(location, other) != (err == nil) {
				t.Fatal(got, err)
			}
			checkOpen(t, env, bit, func(dst, env []byte) ([]byte, error) { return c.OpenStorage(dst, env, location) })

			g := envelope.RaftGroup{Label: string(location[:min(len(location), envelope.MaxGroup)])}
			env, err = s.SealRaft(nil, plaintext, g)
			if err != nil {
				t.Fatal(err)
			}
			checkOpen(t, env, bit, func(dst, env []byte) ([]byte, error) { return c.OpenRaft(dst, env, g) })
		}
		if fips140.Enforced() {
			return
		}
		env, err := counted.SealRaftGeneration1(nil, plaintext)
		if err != nil {
			t.Fatal(err)
		}
		checkOpen(t, env, bit, c.OpenRaftGeneration1)
	})
}
