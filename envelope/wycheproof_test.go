package envelope_test

import (
	"bytes"
	"crypto/fips140"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
)

// sharedVectors returns the folder of vectors that lies beside some folder above
// the package, or "" if there is none.
func sharedVectors(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		vectors := filepath.Join(dir, "shared", "vectors")
		if _, err := os.Stat(vectors); err == nil {
			return vectors
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}

func TestWycheproofAESGCM(t *testing.T) {
	dir := sharedVectors(t)
	if dir == "" {
		t.Skip("the Wycheproof files are not part of the repository and no folder above it has them in shared/vectors")
	}
	var file struct {
		TestGroups []struct {
			IVSize, KeySize, TagSize int
			Tests                    []struct {
				TcID                       int
				Key, IV, AAD, Msg, CT, Tag hexBytes
				Result                     string
			}
		}
	}
	readJSON(t, &file, dir, "wycheproof", "aes_gcm_test.json")
	results := map[string]int{}
	for _, g := range file.TestGroups {
		if g.KeySize != 256 || g.IVSize != 96 || g.TagSize != 128 {
			continue
		}
		for _, v := range g.Tests {
			gcm, choosesNonce := envelope.NewAEAD(t, v.Key)
			nonce, body := []byte(v.IV), append(bytes.Clone(v.CT), v.Tag...)
			if choosesNonce {
				nonce, body = nil, append(bytes.Clone(v.IV), body...)
			}
			got, err := gcm.Open(nil, nonce, body, v.AAD)
			results[v.Result]++
			if v.Result == "invalid" {
				require.Error(t, err, v.TcID)
				require.Nil(t, got, v.TcID)
				continue
			}
			require.NoError(t, err, v.TcID)
			require.True(t, bytes.Equal(v.Msg, got), v.TcID)
			if !choosesNonce {
				require.Equal(t, body, gcm.Seal(nil, nonce, v.Msg, v.AAD), v.TcID)
			}
		}
	}
	t.Logf("256-bit key, 96-bit nonce, 128-bit tag: %v", results)
	require.Positive(t, results["valid"])
	require.Positive(t, results["invalid"])
}

func TestWycheproofXChaCha20Poly1305(t *testing.T) {
	dir := sharedVectors(t)
	if dir == "" {
		t.Skip("the Wycheproof files are not part of the repository and no folder above it has them in shared/vectors")
	}
	if fips140.Enforced() {
		t.Skip("suite 0x04 is refused under GODEBUG=fips140=only")
	}
	var file struct {
		TestGroups []struct {
			IVSize int
			Tests  []struct {
				TcID                       int
				Key, IV, AAD, Msg, CT, Tag hexBytes
				Result                     string
			}
		}
	}
	readJSON(t, &file, dir, "wycheproof", "xchacha20_poly1305_test.json")
	results := map[string]int{}
	for _, g := range file.TestGroups {
		if g.IVSize != 192 {
			continue
		}
		for _, v := range g.Tests {
			got, err := envelope.NewXChaCha(t, v.Key).Open(nil, v.IV, append(bytes.Clone(v.CT), v.Tag...), v.AAD)
			results[v.Result]++
			if v.Result == "valid" {
				require.NoError(t, err, v.TcID)
				require.True(t, bytes.Equal(v.Msg, got), v.TcID)
			} else {
				require.Error(t, err, v.TcID)
			}
		}
	}
	require.Greater(t, results["valid"], 50)
	require.Greater(t, results["invalid"], 50)
}
