package envelope_test

import (
	"bytes"
	"crypto/fips140"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
)

// everySealer is a sealer of each combination of options.
func everySealer(t testing.TB, c *envelope.Cipher) map[string]*envelope.Sealer {
	t.Helper()
	out := map[string]*envelope.Sealer{}
	for name, opts := range map[string][]envelope.SealerOption{
		"": nil, "+snappy": {envelope.WithCompression()}, "+xchacha": {envelope.WithXChaCha()},
		"+xchacha+snappy": {envelope.WithXChaCha(), envelope.WithCompression()},
	} {
		if strings.Contains(name, "xchacha") && fips140.Enforced() {
			continue
		}
		s, err := c.NewSealer(nil, opts...)
		require.NoError(t, err)
		out["extended"+name] = s
		s, err = c.NewCountedSealer(envelope.Writer{Node16: 1, Epoch: 2}, nil, opts...)
		require.NoError(t, err)
		out["counted"+name] = s
	}
	return out
}

// What any sealer makes opens, into any buffer, and says what it is.
func TestEverySuiteOpens(t *testing.T) {
	c := newCipher(t)
	want := map[string]envelope.Header{
		"extended":                {Suite: envelope.XAES256GCM},
		"extended+snappy":         {Suite: envelope.XAES256GCM, Flag: 1},
		"extended+xchacha":        {Suite: envelope.XChaCha20Poly1305},
		"extended+xchacha+snappy": {Suite: envelope.XChaCha20Poly1305, Flag: 1},
		"counted":                 {Suite: envelope.AES256GCM},
		"counted+snappy":          {Suite: envelope.AES256GCMSnappy, Flag: 1},
		"counted+xchacha":         {Suite: envelope.AES256GCM},
		"counted+xchacha+snappy":  {Suite: envelope.AES256GCMSnappy, Flag: 1},
	}
	location := []byte("location")
	for name, s := range everySealer(t, c) {
		for _, plaintext := range [][]byte{bytes.Repeat([]byte("compressible "), 100), bytes.Repeat([]byte{7}, 32)} {
			for _, room := range []int{0, 10, 5000} {
				env, err := s.SealStorage(make([]byte, 3, 3+room), plaintext, location)
				require.NoError(t, err)
				env = env[3:]
				h, err := envelope.ParseHeader(env)
				require.NoError(t, err)
				h.KeyID = 0
				if !fips140.Enforced() {
					require.Equal(t, want[name], h, name)
				}
				got, err := c.OpenStorage(make([]byte, 3, 3+room), env, location)
				require.NoError(t, err, name)
				require.Equal(t, plaintext, got[3:], name)

				for _, bit := range []int{0, 8, 8 * 5, 8 * 7, 8*len(env) - 1} {
					bad := bytes.Clone(env)
					bad[bit/8] ^= 1 << (bit % 8)
					got, err = c.OpenStorage(nil, bad, location)
					require.Error(t, err, "%s: bit %d", name, bit)
					require.Nil(t, got)
				}
				_, err = c.OpenStorage(nil, env, []byte("elsewhere"))
				require.ErrorIs(t, err, envelope.ErrIntegrity)
			}
		}
	}
}

// A plaintext is compressed from 32 bytes on, and only if it gets smaller by it.
func TestWhenToCompress(t *testing.T) {
	c := newCipher(t)
	s, err := c.NewSealer(nil, envelope.WithCompression())
	require.NoError(t, err)
	noise := make([]byte, 4096)
	rand.NewChaCha8([32]byte{}).Read(noise) //nolint:errcheck // It never fails.
	for _, tt := range []struct {
		name      string
		plaintext []byte
		flag      byte
	}{
		{"empty", nil, 0},
		{"31 equal bytes", make([]byte, 31), 0},
		{"32 equal bytes", make([]byte, 32), 1},
		{"noise", noise, 0},
	} {
		env, err := s.SealStorage(nil, tt.plaintext, nil)
		require.NoError(t, err)
		require.Equal(t, tt.flag, env[1], tt.name)
		if tt.flag == 0 {
			require.Len(t, env, len(tt.plaintext)+envelope.XAES256GCM.Overhead(), tt.name)
		}
		got, err := c.OpenStorage(nil, env, nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(tt.plaintext, got) && got != nil, tt.name)
	}
	env, err := s.SealRaft(nil, make([]byte, 1000), group)
	require.NoError(t, err)
	require.Zero(t, env[1], "a Raft payload")
}

// A value that does not get smaller stays as it is, be it by no byte.
func TestCompressedToTheSameLengthIsNotCompressed(t *testing.T) {
	c := newCipher(t)
	s, err := c.NewSealer(nil, envelope.WithCompression())
	require.NoError(t, err)
	noise := make([]byte, 64)
	rand.NewChaCha8([32]byte{}).Read(noise) //nolint:errcheck // It never fails.
	found := 0
	for again := range 32 { // the first bytes are there again in the middle
		plaintext := slices.Concat(noise[:40], noise[:again], noise[40:])
		n := len(snappy.Encode(nil, plaintext))
		env, err := s.SealStorage(nil, plaintext, nil)
		require.NoError(t, err)
		require.Equal(t, n < len(plaintext), env[1] == 1, "%d bytes, compressed %d", len(plaintext), n)
		if n == len(plaintext) {
			found++
			require.Len(t, env, n+envelope.XAES256GCM.Overhead())
		}
	}
	require.Positive(t, found, "no value of this kind has the same length compressed")
}

// Suites 0x01 and 0x02 share one sequence of nonces.
func TestCompressionUsesTheSameSequence(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("there are no counted nonces under GODEBUG=fips140=only")
	}
	c := newCipher(t)
	s, err := c.NewCountedSealer(envelope.Writer{Node16: 1, Epoch: 2}, nil, envelope.WithCompression())
	require.NoError(t, err)
	seen := map[string]bool{}
	for i := range 3000 {
		env, err := s.SealStorage(nil, make([]byte, 16+i%32), nil)
		require.NoError(t, err)
		nonce := string(env[envelope.HeaderSize : envelope.HeaderSize+12])
		require.False(t, seen[nonce])
		seen[nonce] = true
	}
}

func TestXChaChaUnderStrictFIPS(t *testing.T) {
	if !fips140.Enforced() {
		t.Skip("not under GODEBUG=fips140=only; TestStrictFIPSProcess runs it there")
	}
	c := newCipher(t)
	_, err := c.NewSealer(nil, envelope.WithXChaCha())
	require.ErrorIs(t, err, envelope.ErrUnsupported)
	_, err = c.NewCountedSealer(envelope.Writer{}, nil, envelope.WithXChaCha())
	require.ErrorIs(t, err, envelope.ErrUnsupported)
}

// Whatever is sealed under any suite opens, and allocates nothing beyond its result.
func TestEverySuiteProperty(t *testing.T) {
	c := newCipher(t)
	all := everySealer(t, c)
	rapid.Check(t, func(rt *rapid.T) {
		plaintext := rapid.OneOf(
			rapid.SliceOfN(rapid.Byte(), 0, 300),
			rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune("ab")), 0, 3000, -1), func(s string) []byte { return []byte(s) }),
		).Draw(rt, "plaintext")
		location := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "location")
		for name, s := range all {
			env, err := s.SealStorage(nil, plaintext, location)
			if err != nil {
				rt.Fatal(name, err)
			}
			inPlace := bytes.Clone(env)
			for _, got := range [][]byte{must(c.OpenStorage(nil, env, location)), must(c.OpenStorage(inPlace[:0], inPlace, location))} {
				if !bytes.Equal(got, plaintext) || got == nil {
					rt.Fatalf("%s: got %q, want %q", name, got, plaintext)
				}
			}
		}
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestFavoured(t *testing.T) {
	require.Contains(t, []envelope.Suite{envelope.XAES256GCM, envelope.XChaCha20Poly1305}, envelope.Favoured())
}

func BenchmarkSuites(b *testing.B) {
	c := newCipher(b)
	text := bytes.Repeat([]byte("a value like those in databases, with some repetition; "), 1200)
	for _, size := range []int{64, 1 << 10, 4 << 10, 64 << 10} {
		for name, s := range everySealer(b, c) {
			b.Run(name+"/size="+strconv.Itoa(size), func(b *testing.B) {
				dst := make([]byte, 0, size+200)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.SealStorage(dst, text[:size], []byte("location")); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
