package sidecar_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/sidecar"
)

// testdata/keys.json is one whole file, made by TestGolden with -update and never
// changed since: the file of node 81985529216486895 (0x0123456789abcdef) with
// the file key 00 01 .. 1f, wrapped by AES-256-GCM under the one KEK
// "file:golden", which is 32 bytes a5, with the nonce c0 c1 .. cb; a wrap is
// nonce, ciphertext and tag. It has one of everything that can vary.
var update = flag.Bool("update", false, "write testdata anew")

const goldenFile = "testdata/keys.json"

func counting(from byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = from + byte(i)
	}
	return b
}

// goldenKEK is a KEK with one nonce, which is good for one wrap.
type goldenKEK struct{ cipher.Block }

func (goldenKEK) ID() string { return "file:golden" }

func (k goldenKEK) Wrap(_ context.Context, plaintext, ad []byte) ([]byte, error) {
	aead, err := cipher.NewGCM(k.Block)
	if err != nil {
		return nil, err
	}
	nonce := counting(0xc0, 12)
	return aead.Seal(nonce, nonce, plaintext, ad), nil
}

func (k goldenKEK) Unwrap(_ context.Context, wrapped, ad []byte) ([]byte, error) {
	aead, err := cipher.NewGCMWithRandomNonce(k.Block)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, wrapped, ad)
}

func goldenKEKs(t testing.TB) *kek.Set {
	t.Helper()
	block, err := aes.NewCipher(bytes.Repeat([]byte{0xa5}, 32))
	require.NoError(t, err)
	set, err := kek.NewSet(goldenKEK{block})
	require.NoError(t, err)
	return set
}

func golden(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(goldenFile)
	require.NoError(t, err)
	return data
}

// The same content gives the same bytes, and they are the ones of old.
func TestGolden(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("wrapping with a fixed nonce is what this mode forbids; TestGoldenOpens runs")
	}
	fsys, w := newFS(), goldenKEKs(t)
	fileKey, err := insecurekey.New(counting(0, 32))
	require.NoError(t, err)
	f, err := sidecar.CreateWithKey(t.Context(), dir, node, w, fileKey, []sidecar.Option{sidecar.WithFS(fsys)})
	require.NoError(t, err)
	fill(t, f)
	require.NoError(t, f.Close())
	got := read(t, fsys, path)
	if *update {
		require.NoError(t, os.WriteFile(goldenFile, got, 0o600))
	}
	require.Equal(t, string(golden(t)), string(got))
}

func TestGoldenOpens(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, sidecar.FileName), golden(t), 0o600))
	f, err := sidecar.Open(t.Context(), dir, node, goldenKEKs(t))
	require.NoError(t, err)
	require.True(t, f.FileKeyCurrent())
	require.EqualValues(t, 3, f.Epoch(7))
	require.EqualValues(t, 1, f.Epoch(9))
	require.EqualValues(t, 65535, f.Epoch(10))
	require.Equal(t, sidecar.Usage{Seals: 1 << 20, Bytes: 1 << 34}, f.Reserved(7))
	require.Equal(t, sidecar.Usage{Bytes: 1<<64 - 1}, f.Reserved(4294967295))
	require.EqualValues(t, 4711, f.Through())
	require.JSONEq(t, `{"active":{"storage":7},"keys":[{"id":7,"container":"p0RLAg=="}],"none":[]}`, string(f.State()))
	require.NoError(t, f.Close())
}

// The format as its description says, with nothing of this package: a plain JSON
// decoder, HKDF and HMAC.
func TestGoldenBySomebodyElse(t *testing.T) {
	data := golden(t)
	var indented bytes.Buffer
	require.NoError(t, json.Indent(&indented, data, "", "  "))
	require.Equal(t, indented.String(), string(data), "the form is that of json.Indent")
	require.True(t, strings.HasSuffix(string(data), "\n}\n"))

	var v struct {
		State json.RawMessage `json:"state"`
		MAC   string          `json:"mac"`
	}
	require.NoError(t, json.Unmarshal(data, &v))
	sum := sha256.Sum256(v.State)
	message := strings.Replace(string(data), string(v.State), `"`+hex.EncodeToString(sum[:])+`"`, 1)
	message = strings.Replace(message, v.MAC, "", 1)
	macKey, err := hkdf.Expand(sha256.New, counting(0, 32), "atrest/v2/keys.json", 32)
	require.NoError(t, err)
	mac := hmac.New(sha256.New, macKey)
	mac.Write([]byte(message))
	require.Equal(t, v.MAC, hex.EncodeToString(mac.Sum(nil)))
}
