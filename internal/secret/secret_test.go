package secret_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/secret"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func newKey(t require.TestingT, b []byte) secret.Key {
	k, err := secret.New(b)
	require.NoError(t, err)
	return k
}

func TestNewWantsSize(t *testing.T) {
	for _, n := range []int{0, 1, 16, 31, 33, 64} {
		k, err := secret.New(make([]byte, n))
		require.ErrorIs(t, err, secret.ErrSize, "%d bytes", n)
		require.ErrorContains(t, err, fmt.Sprint(n))
		require.True(t, k.IsZero())
	}
	k := newKey(t, make([]byte, 32))
	require.False(t, k.IsZero(), "32 zero bytes are a key")
}

func TestNewCopies(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 32)
	k := newKey(t, b)
	b[0] = 0
	require.EqualValues(t, 7, secret.Bytes(k)[0])
}

func TestBytes(t *testing.T) {
	b := unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	require.Equal(t, b, secret.Bytes(newKey(t, b)))
	require.Nil(t, secret.Bytes(secret.Key{}))
	require.True(t, secret.Key{}.IsZero())
}

func TestRandom(t *testing.T) {
	a, b := secret.Random(), secret.Random()
	require.Len(t, secret.Bytes(a), secret.Size)
	require.False(t, secret.Equal(a, b))
	require.NotEqual(t, secret.Bytes(a), make([]byte, 32))
}

func TestEqual(t *testing.T) {
	a := newKey(t, bytes.Repeat([]byte{7}, 32))
	require.True(t, secret.Equal(a, a))
	require.True(t, secret.Equal(a, newKey(t, bytes.Repeat([]byte{7}, 32))), "compares bytes, not pointers")
	require.True(t, secret.Equal(secret.Key{}, secret.Key{}))
	require.False(t, secret.Equal(a, secret.Key{}))
	require.False(t, secret.Equal(secret.Key{}, a))
	for bit := range 256 {
		b := bytes.Repeat([]byte{7}, 32)
		b[bit/8] ^= 1 << (bit % 8)
		require.False(t, secret.Equal(a, newKey(t, b)), "bit %d", bit)
	}
}

// RFC 5869, test case 1: the PRK is as long as a key.
func TestExpandRFC5869(t *testing.T) {
	k := newKey(t, unhex(t, "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"))
	want := unhex(t, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
	label := string(unhex(t, "f0f1f2f3f4f5f6f7f8f9"))
	require.Equal(t, want, secret.Expand(k, label, 42))
	require.Equal(t, want[:32], secret.Bytes(secret.Derive(k, label)))
}

func TestExpandWycheproof(t *testing.T) {
	b, err := os.ReadFile("../../../shared/vectors/wycheproof/hkdf_sha256_test.json")
	if os.IsNotExist(err) {
		t.Skip("the Wycheproof vectors lie beside the repository, in ../shared, and are not there")
	}
	require.NoError(t, err)
	var file struct {
		TestGroups []struct {
			Tests []struct {
				TcID                          int
				Ikm, Salt, Info, Okm, Comment string
				Size                          int
				Result                        string
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &file))
	ran := 0
	for _, g := range file.TestGroups {
		for _, tc := range g.Tests {
			prk, err := hkdf.Extract(sha256.New, unhex(t, tc.Ikm), unhex(t, tc.Salt))
			require.NoError(t, err)
			k, info := newKey(t, prk), string(unhex(t, tc.Info))
			if ikm := unhex(t, tc.Ikm); len(ikm) == secret.Size {
				require.Equal(t, prk, secret.Bytes(secret.Extract(newKey(t, ikm), unhex(t, tc.Salt))), "case %d: %s", tc.TcID, tc.Comment)
			}
			if tc.Result != "valid" {
				require.Panics(t, func() { secret.Expand(k, info, tc.Size) }, "case %d: %s", tc.TcID, tc.Comment)
			} else {
				require.Equal(t, unhex(t, tc.Okm), secret.Expand(k, info, tc.Size), "case %d: %s", tc.TcID, tc.Comment)
			}
			ran++
		}
	}
	require.Greater(t, ran, 50)
}

func TestExpandMisuse(t *testing.T) {
	require.Panics(t, func() { secret.Expand(secret.Key{}, "label", 32) })
	require.Panics(t, func() { secret.Derive(secret.Key{}, "label") })
	require.Panics(t, func() { secret.Expand(secret.Random(), "label", 255*32+1) })
	require.Len(t, secret.Expand(secret.Random(), "label", 255*32), 255*32)
}

// Keys under different labels, or of different keys, are different.
// HKDF-Extract is HMAC with the salt for its key.
func TestExtract(t *testing.T) {
	k := newKey(t, bytes.Repeat([]byte{7}, 32))
	for _, n := range []int{16, 32, 64, 100} {
		salt := bytes.Repeat([]byte{9}, n)
		h := hmac.New(sha256.New, salt)
		h.Write(secret.Bytes(k))
		require.Equal(t, h.Sum(nil), secret.Bytes(secret.Extract(k, salt)))
	}
	require.Panics(t, func() { secret.Extract(secret.Key{}, make([]byte, 32)) })
}

func TestDeriveSeparates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newKey(t, rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		require.Equal(t, a == b, secret.Equal(secret.Derive(k, a), secret.Derive(k, b)))
		require.False(t, secret.Equal(k, secret.Derive(k, a)))
		require.False(t, secret.Equal(secret.Derive(secret.Random(), a), secret.Derive(k, a)))
	})
}

// Every form in which fmt, an encoder or a log shows a value, for every place in
// which a key may lie: none shows it.
func TestKeyDoesNotShow(t *testing.T) {
	raw := make([]byte, 32)
	for i := range raw {
		raw[i] = 0x81 + byte(5*i%60)
	}
	k := newKey(t, raw)
	type exported struct{ K secret.Key }
	type hidden struct{ k secret.Key }
	type embedded struct{ secret.Key }
	type deep struct {
		p *struct{ m map[string][]hidden }
	}
	values := []any{
		k, &k,
		[]secret.Key{k},
		[1]secret.Key{k},
		map[string]secret.Key{"k": k},
		exported{k},
		&exported{k},
		hidden{k},
		&hidden{k},
		[]hidden{{k}},
		embedded{k},
		&embedded{k},
		deep{&struct{ m map[string][]hidden }{map[string][]hidden{"k": {{k}}}}},
		struct{ any }{k},
		fmt.Errorf("key %v", k), fmt.Errorf("key %s", hidden{k}), reflect.ValueOf(k),
	}
	for _, v := range values {
		for form, text := range renderings(v) {
			require.False(t, shows(text, raw), "%T, %s: %q", v, form, text)
		}
	}
	require.Equal(t, "[redacted key]", fmt.Sprint(k))
	require.Equal(t, "[redacted key]", fmt.Sprintf("%x", k))
}

// The search of the test above finds bytes where there are some.
func TestShowingIsNoticed(t *testing.T) {
	raw := bytes.Repeat([]byte{0x81, 0x92, 0xa3, 0xb4}, 8)
	for _, v := range []any{raw, [32]byte(raw), struct{ b []byte }{raw}, &struct{ B []byte }{raw}} {
		found := 0
		for _, text := range renderings(v) {
			if shows(text, raw) {
				found++
			}
		}
		require.Greater(t, found, 4, "%T", v)
	}
}

func renderings(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%b", "%o", "%c", "%U", "%e", "%t", "%p"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	var b bytes.Buffer
	encoders := map[string]func(io.Writer) error{
		"json": func(w io.Writer) error { return json.NewEncoder(w).Encode(v) },
		"xml":  func(w io.Writer) error { return xml.NewEncoder(w).Encode(v) },
		"gob":  func(w io.Writer) error { return gob.NewEncoder(w).Encode(v) },
		"slog text": func(w io.Writer) error {
			slog.New(slog.NewTextHandler(w, nil)).Info("value", "v", v)
			return nil
		},
		"slog json": func(w io.Writer) error {
			slog.New(slog.NewJSONHandler(w, nil)).Info("value", "v", v)
			return nil
		},
	}
	for name, encode := range encoders {
		b.Reset()
		// What cannot be encoded must not show the key in its error either.
		if err := encode(&b); err != nil {
			fmt.Fprint(&b, err)
		}
		out[name] = b.String()
	}
	return out
}

// shows looks for 8 bytes of the key in a row, in the forms that the renderings
// use.
func shows(text string, raw []byte) bool {
	b := raw[4:12]
	octal := make([]string, len(b))
	for i, x := range b {
		octal[i] = fmt.Sprintf("%o", x)
	}
	for _, needle := range []string{
		string(b), fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), fmt.Sprintf("% x", b), strings.Join(octal, " "),
		strings.Trim(fmt.Sprint(b), "[]"), strings.Trim(fmt.Sprintf("%b", b), "[]"),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", b), "[]byte{"), "}"),
		strings.ReplaceAll(strings.Trim(fmt.Sprint(b), "[]"), " ", ","),
		strings.Trim(fmt.Sprintf("%q", string(b)), `"`),
		base64.StdEncoding.EncodeToString(raw[6:12]), base64.StdEncoding.EncodeToString(raw[3:12]),
		fmt.Sprint(binary.LittleEndian.Uint32(b)), fmt.Sprint(binary.BigEndian.Uint32(b)),
	} {
		if strings.Contains(text, needle) {
			return true
		}
	}
	return false
}

func BenchmarkDerive(b *testing.B) {
	k := secret.Random()
	b.ReportAllocs()
	for b.Loop() {
		secret.Derive(k, "a label of the usual length")
	}
}
