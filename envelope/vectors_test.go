package envelope_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

// hexBytes is a byte string that JSON has in hexadecimal.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b hexBytes) dek(t testing.TB) key.DEK {
	t.Helper()
	d, err := insecurekey.New(b)
	require.NoError(t, err)
	return d
}

func readJSON(t testing.TB, v any, path ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, v))
}

// vector is a whole envelope. Key is what the suite gets: the DEK for 0x01 and 0x02,
// its subkey for 0x03 and 0x04.
type vector struct {
	Kind      string   `json:"kind"`
	Version   uint8    `json:"version"`
	Flag      uint8    `json:"flag"`
	KeyID     key.ID   `json:"key_id"`
	Key       hexBytes `json:"key"`
	Nonce     hexBytes `json:"nonce"`
	Location  hexBytes `json:"location"`
	AAD       hexBytes `json:"aad"`
	Plaintext hexBytes `json:"plaintext"`
	Envelope  hexBytes `json:"envelope"`
}

func TestVectors(t *testing.T) {
	var file struct{ Vectors []vector }
	readJSON(t, &file, "testdata", "envelopes.json")
	seen := map[string]int{}
	for _, v := range file.Vectors {
		c := envelope.NewCipherForSuiteKey(t, v.KeyID, v.Key.dek(t))
		h, err := envelope.ParseHeader(v.Envelope)
		require.NoError(t, err)
		require.Equal(t, envelope.Header{Suite: envelope.Suite(v.Version), Flag: v.Flag, KeyID: v.KeyID}, h)

		var (
			aad  []byte
			seal func(s *envelope.Sealer, dst []byte) ([]byte, error)
			open func(dst []byte) ([]byte, error)
		)
		switch v.Kind {
		case "storage":
			aad = envelope.AppendStorageAAD(nil, h, v.Location)
			seal = func(s *envelope.Sealer, dst []byte) ([]byte, error) {
				return s.SealStorage(dst, v.Plaintext, v.Location)
			}
			open = func(dst []byte) ([]byte, error) { return c.OpenStorage(dst, v.Envelope, v.Location) }
		case "raft":
			aad, err = envelope.AppendRaftAADGeneration1(nil, h)
			require.NoError(t, err)
			seal = func(s *envelope.Sealer, dst []byte) ([]byte, error) {
				return s.SealRaftGeneration1(dst, v.Plaintext)
			}
			open = func(dst []byte) ([]byte, error) { return c.OpenRaftGeneration1(dst, v.Envelope) }
		}
		require.Equal(t, []byte(v.AAD), aad)
		seen[fmt.Sprintf("%s %v/%d", v.Kind, h.Suite, h.Flag)]++
		if h.Suite == envelope.XChaCha20Poly1305 && fips140.Enforced() {
			_, err := open(nil)
			require.ErrorIs(t, err, envelope.ErrUnsupported)
			continue
		}
		var opts []envelope.SealerOption
		if h.Suite == envelope.XChaCha20Poly1305 {
			opts = append(opts, envelope.WithXChaCha())
		}
		if h.Flag == 1 {
			seal = nil // encoders of Snappy may differ
		}
		checkVector(t, c, v.Nonce, v.Plaintext, v.Envelope, seal, open, opts...)
	}
	require.Equal(t, map[string]int{
		"storage AES-256-GCM/0": 16, "raft AES-256-GCM/0": 8, "storage AES-256-GCM+Snappy/1": 24,
		"storage XAES-256-GCM/0": 18, "storage XAES-256-GCM/1": 6,
		"storage XChaCha20-Poly1305/0": 18, "storage XChaCha20-Poly1305/1": 6,
	}, seen)
}

// checkVector opens and seals one vector by every way through the package: into
// a new buffer and into one with room, with a block and a salt at hand or not.
func checkVector(t *testing.T, c *envelope.Cipher, nonce, plaintext, env []byte,
	seal func(s *envelope.Sealer, dst []byte) ([]byte, error), open func(dst []byte) ([]byte, error),
	opts ...envelope.SealerOption,
) {
	t.Helper()
	for _, dst := range [][]byte{nil, make([]byte, 0, len(env)+1000)} {
		for range 2 { // the second time the salt is known
			got, err := open(dst)
			require.NoError(t, err)
			require.Equal(t, append([]byte{}, plaintext...), got)
		}
		envelope.ForgetSalts(c)
	}
	if fips140.Enforced() || seal == nil {
		return // no nonce can be chosen, or nobody says what comes out
	}
	for _, warm := range []bool{false, true} {
		for _, dst := range [][]byte{nil, make([]byte, 0, len(env)+1000)} {
			got, err := seal(envelope.SealerWithNonce(t, c, nonce, warm, opts...), dst)
			require.NoError(t, err)
			require.Equal(t, env, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	type refusal struct {
		Version  uint8    `json:"version"`
		KeyID    key.ID   `json:"key_id"`
		Key      hexBytes `json:"key"`
		Location hexBytes `json:"location"`
		Envelope hexBytes `json:"envelope"`
		Why      string   `json:"why"`
	}
	var file struct{ Vectors []refusal }
	readJSON(t, &file, "testdata", "refusals.json")
	require.Len(t, file.Vectors, 48)

	want := map[string]error{
		"location differs":                           envelope.ErrIntegrity,
		"last tag bit flipped":                       envelope.ErrIntegrity,
		"first ciphertext bit flipped":               envelope.ErrIntegrity,
		"nonce bit flipped":                          envelope.ErrIntegrity,
		"key id changed":                             envelope.ErrKeyMismatch,
		"reserved flag bit 7 set":                    envelope.ErrSuite,
		"compression flag set afterwards":            envelope.ErrSuite,
		"version 0x00":                               envelope.ErrSuite,
		"version 0x0f":                               envelope.ErrSuite,
		"key id 0":                                   key.ErrReservedID,
		"one byte short":                             envelope.ErrIntegrity,
		"header only":                                envelope.ErrShort,
		"empty":                                      envelope.ErrShort,
		"raft envelope given as a value":             envelope.ErrIntegrity,
		"sealed with flag 2 in header and AAD":       envelope.ErrSuite,
		"suite 2 with flag 0":                        envelope.ErrSuite,
		"suite 1 with flag 1, correctly sealed":      envelope.ErrSuite,
		"suite 2, authentic body that is not Snappy": envelope.ErrIntegrity,
	}
	opened := 0
	for _, v := range file.Vectors {
		want := want[v.Why]
		require.NotNil(t, want, v.Why)
		if v.Version >= 3 && v.Why == "compression flag set afterwards" {
			want = envelope.ErrIntegrity // versions 0x03 and 0x04 have that flag
		}
		if v.Version == 4 && want == envelope.ErrIntegrity && fips140.Enforced() && v.Envelope[0] == 4 {
			want = envelope.ErrUnsupported
		}
		c := envelope.NewCipherForSuiteKey(t, v.KeyID, v.Key.dek(t))
		for _, dst := range [][]byte{nil, make([]byte, 0, 1000)} {
			got, err := c.OpenStorage(dst, v.Envelope, v.Location)
			require.ErrorIs(t, err, want, "version %d: %s", v.Version, v.Why)
			require.Nil(t, got, "version %d: %s", v.Version, v.Why)
		}
		if v.Why == "location differs" && (v.Version != 4 || !fips140.Enforced()) {
			// The control: the same envelope opens where it belongs.
			_, err := c.OpenStorage(nil, v.Envelope, []byte("db/key\x00\x01"))
			require.NoError(t, err)
			opened++
		}
	}
	if fips140.Enforced() {
		opened++ // suite 0x04, which it refuses
	}
	require.Equal(t, 3, opened)
}

func TestXAESVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			Key        hexBytes `json:"key"`
			Nonce      hexBytes `json:"nonce"`
			AAD        hexBytes `json:"aad"`
			Plaintext  hexBytes `json:"plaintext"`
			Ciphertext hexBytes `json:"ciphertext"`
		}
	}
	readJSON(t, &file, "testdata", "xaes_c2sp.json")
	require.Len(t, file.Vectors, 2)
	for _, v := range file.Vectors {
		gcm := envelope.NewXAES(t, v.Key.dek(t), v.Nonce)
		if fips140.Enforced() {
			got, err := gcm.Open(nil, nil, append(bytes.Clone(v.Nonce[12:]), v.Ciphertext...), v.AAD)
			require.NoError(t, err)
			require.Equal(t, []byte(v.Plaintext), got)
			continue
		}
		require.Equal(t, []byte(v.Ciphertext), gcm.Seal(nil, v.Nonce[12:], v.Plaintext, v.AAD))
	}
}
