package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

var update = flag.Bool("update", false, "write the vectors of generation 2 anew")

// vector2 is a whole envelope of generation 2, from the DEK on.
type vector2 struct {
	Kind      string   `json:"kind"`
	Version   uint8    `json:"version"`
	Flag      uint8    `json:"flag"`
	KeyID     key.ID   `json:"key_id"`
	DEK       hexBytes `json:"dek"`
	Subkey    hexBytes `json:"subkey,omitempty"`
	Nonce     hexBytes `json:"nonce"`
	Location  hexBytes `json:"location,omitempty"`
	Cluster   hexBytes `json:"cluster,omitempty"`
	Label     string   `json:"label,omitempty"`
	AAD       hexBytes `json:"aad"`
	Plaintext hexBytes `json:"plaintext"`
	Envelope  hexBytes `json:"envelope"`
}

type vectors2 struct {
	Note    string    `json:"note"`
	Vectors []vector2 `json:"vectors"`
}

const note2 = "Envelopes of generation 2. Byte strings are hexadecimal. kind storage: aad is version, flag, key id (4, big-endian), location. " +
	"kind raft: aad is 'R', version, flag, key id, cluster id (16), group label. Version 1 is AES-256-GCM under dek with the 12-byte nonce. " +
	"Version 3 is XAES-256-GCM (C2SP) under subkey with the 24-byte nonce; subkey is 32 bytes of HKDF-Expand (SHA-256) of dek with info atrest/v2/xaes-256-gcm. " +
	"envelope is version, flag, key id, nonce, ciphertext, tag."

// fill computes everything that follows from the inputs of a vector. It shares no
// code with the package: it is a second reading of the format.
func (v *vector2) fill(t *testing.T) {
	t.Helper()
	header := []byte{v.Version, v.Flag, byte(v.KeyID >> 24), byte(v.KeyID >> 16), byte(v.KeyID >> 8), byte(v.KeyID)}
	switch v.Kind {
	case "storage":
		v.AAD = bytes.Join([][]byte{header, v.Location}, nil)
	case "raft":
		v.AAD = bytes.Join([][]byte{[]byte("R"), header, v.Cluster, []byte(v.Label)}, nil)
	}
	k, nonce := []byte(v.DEK), []byte(v.Nonce)
	if v.Version == 3 {
		mac := hmac.New(sha256.New, v.DEK)
		mac.Write([]byte("atrest/v2/xaes-256-gcm\x01"))
		v.Subkey = mac.Sum(nil)
		k, nonce = xaesMessageKey(t, v.Subkey, nonce[:12]), nonce[12:]
	}
	gcm := newGCM(t, k)
	v.Envelope = bytes.Join([][]byte{header, v.Nonce, gcm.Seal(nil, nonce, v.Plaintext, v.AAD)}, nil)
}

func newGCM(t *testing.T, k []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(k)
	require.NoError(t, err)
	gcm, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return gcm
}

func xaesMessageKey(t *testing.T, k, salt []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(k)
	require.NoError(t, err)
	zero := make([]byte, 16)
	block.Encrypt(zero, zero)
	k1 := new(big.Int).Lsh(new(big.Int).SetBytes(zero), 1)
	if k1.Bit(128) == 1 {
		k1.SetBit(k1, 128, 0).Xor(k1, big.NewInt(0x87))
	}
	var out []byte
	for _, counter := range []byte{1, 2} {
		m := new(big.Int).SetBytes(append([]byte{0, counter, 'X', 0}, salt...))
		b := m.Xor(m, k1).FillBytes(make([]byte, 16))
		block.Encrypt(b, b)
		out = append(out, b...)
	}
	return out
}

// counting returns n bytes that count up from a first one.
func counting(first byte, n int) hexBytes {
	b := make(hexBytes, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

// inputs2 are the vectors' inputs. Doubling in XAES carries for some of the DEKs
// and not for others.
func inputs2() []vector2 {
	var out []vector2
	for _, version := range []uint8{1, 3} {
		for i, size := range []int{0, 1, 5, 15, 16, 17, 64, 255, 1024} {
			nonce := counting(byte(0x40+i), envelope.Suite(version).NonceSize())
			out = append(out,
				vector2{
					Kind: "raft", Version: version, KeyID: 0x01020304 + key.ID(i), DEK: counting(byte(i), 32), Nonce: nonce,
					Cluster: counting(byte(0xa0+i), 16), Label: "groups/" + string(counting('a', i)), Plaintext: counting(1, size),
				},
				vector2{
					Kind: "storage", Version: version, KeyID: 0xffffffff - key.ID(i), DEK: counting(byte(0x80+i), 32), Nonce: nonce,
					Location: counting(0x30, 7*i), Plaintext: counting(2, size),
				})
		}
	}
	return out
}

func TestGeneration2Vectors(t *testing.T) {
	path := filepath.Join("testdata", "generation2.json")
	want := vectors2{Note: note2, Vectors: inputs2()}
	if !fips140.Enforced() {
		for i := range want.Vectors {
			want.Vectors[i].fill(t)
		}
		b, err := json.MarshalIndent(want, "", "  ")
		require.NoError(t, err)
		b = append(b, '\n')
		if *update {
			require.NoError(t, os.WriteFile(path, b, 0o600))
		}
		onDisk, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, string(b), string(onDisk))
	}

	var file vectors2
	readJSON(t, &file, path)
	require.Len(t, file.Vectors, 36)
	for _, v := range file.Vectors {
		c, err := envelope.NewCipher(v.KeyID, v.DEK.dek(t))
		require.NoError(t, err)
		h, err := envelope.ParseHeader(v.Envelope)
		require.NoError(t, err)
		if v.Kind == "storage" {
			require.Equal(t, []byte(v.AAD), envelope.AppendStorageAAD(nil, h, v.Location))
			checkVector(t, c, v.Nonce, v.Plaintext, v.Envelope,
				func(s *envelope.Sealer, dst []byte) ([]byte, error) {
					return s.SealStorage(dst, v.Plaintext, v.Location)
				},
				func(dst []byte) ([]byte, error) { return c.OpenStorage(dst, v.Envelope, v.Location) })
			continue
		}
		g := envelope.RaftGroup{Cluster: key.ClusterID(v.Cluster), Label: v.Label}
		require.Equal(t, []byte(v.AAD), envelope.AppendRaftAAD(nil, h, g))
		checkVector(t, c, v.Nonce, v.Plaintext, v.Envelope,
			func(s *envelope.Sealer, dst []byte) ([]byte, error) { return s.SealRaft(dst, v.Plaintext, g) },
			func(dst []byte) ([]byte, error) { return c.OpenRaft(dst, v.Envelope, g) })
	}
}
