package kek_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

const passphraseFile = "testdata/kek_passphrase.json"

type passphraseVectors struct {
	Note  string             `json:"note"`
	Wraps []passphraseVector `json:"wraps"`
}

type passphraseVector struct {
	Passphrase string `json:"passphrase"` // in hex, as all bytes
	Name       string `json:"name"`
	Time       uint32 `json:"time"`
	Memory     uint32 `json:"memory"`
	Threads    uint8  `json:"threads"`
	Salt       string `json:"salt"`
	Params     string `json:"params"`
	KEK        string `json:"kek"`
	Nonce      string `json:"nonce"`
	ID         uint32 `json:"id"`
	Cluster    string `json:"cluster"`
	Key        string `json:"key"`
	AAD        string `json:"aad"`
	Wrap       string `json:"wrap"`
	Container  string `json:"container"`
}

// makePassphraseVectors follows the drawing of the format, with Argon2id and
// AES-GCM and nothing of package kek.
func makePassphraseVectors(t testing.TB) passphraseVectors {
	t.Helper()
	vs := passphraseVectors{
		Note: "wraps under a passphrase: kek is Argon2id of passphrase and salt, wrap is AES-256-GCM of key under kek with nonce and aad, " +
			"which is params and the header of the container; bytes in hex, memory in KiB; the key is for storage",
		Wraps: []passphraseVector{
			{Passphrase: hex.EncodeToString([]byte("correct horse battery staple")), Name: "default", Time: 2, Memory: 19456, Threads: 1, ID: 7},
			{Passphrase: hex.EncodeToString([]byte("Gr\u00fc\u00dfe\n")), Name: "ops-2", Time: 3, Memory: 20000, Threads: 3, ID: 0xffffffff},
			{Passphrase: "00", Name: "a", Time: 3, Memory: 65536, Threads: 4, ID: 1},
		},
	}
	for i := range vs.Wraps {
		v := &vs.Wraps[i]
		v.Salt, v.Nonce = counting(0x50+byte(16*i), 16), counting(0xa0+byte(16*i), 12)
		v.Cluster, v.Key = counting(0xc0+byte(i), 16), counting(byte(32*i), 32)
		v.Params = fmt.Sprintf("01%08x%08x%02x%s", v.Time, v.Memory, v.Threads, v.Salt)
		v.KEK = hex.EncodeToString(argon2.IDKey(unhex(t, v.Passphrase), unhex(t, v.Salt), v.Time, v.Memory, v.Threads, 32))
		header := fmt.Sprintf("a7444b02%s%08x01%s", v.Cluster, v.ID, expand(t, v.Key, "atrest/v2/key-check")[:32])
		v.AAD = v.Params + header
		block, err := aes.NewCipher(unhex(t, v.KEK))
		require.NoError(t, err)
		gcm, err := cipher.NewGCM(block)
		require.NoError(t, err)
		v.Wrap = v.Nonce + hex.EncodeToString(gcm.Seal(nil, unhex(t, v.Nonce), unhex(t, v.Key), unhex(t, v.AAD)))
		id := "passphrase:" + v.Name
		v.Container = header + fmt.Sprintf("01%04x%x%04x%s%04x%s", len(id), id, len(v.Params)/2, v.Params, len(v.Wrap)/2, v.Wrap)
	}
	return vs
}

func TestPassphraseVectorFile(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("Argon2id and wrapping with a fixed nonce are what strict FIPS mode forbids")
	}
	if *update {
		b, err := json.MarshalIndent(makePassphraseVectors(t), "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(passphraseFile, append(b, '\n'), 0o644))
	}
	require.Equal(t, makePassphraseVectors(t), readPassphraseVectors(t))
}

func readPassphraseVectors(t testing.TB) passphraseVectors {
	t.Helper()
	b, err := os.ReadFile(passphraseFile)
	require.NoError(t, err)
	var vs passphraseVectors
	require.NoError(t, json.Unmarshal(b, &vs))
	return vs
}

func TestPassphraseVectors(t *testing.T) {
	for _, v := range readPassphraseVectors(t).Wraps {
		t.Run(v.Name, func(t *testing.T) {
			cost := kek.Cost{Time: v.Time, Memory: v.Memory, Threads: v.Threads}
			k := newPassphrase(t, unhex(t, v.Passphrase), kek.WithName(v.Name), kek.WithCost(cost), kek.WithSalt([16]byte(unhex(t, v.Salt))))
			h, dek, err := newSet(t, k).UnwrapDEK(t.Context(), unhex(t, v.Container))
			require.NoError(t, err)
			require.Equal(t, key.ID(v.ID), h.ID)
			require.Equal(t, v.Key, hex.EncodeToString(insecurekey.Bytes(dek)))

			// New wraps have the same parameters, and open under the key in the vector.
			params, w, err := k.WrapParams(t.Context(), unhex(t, v.Key), h.AAD())
			require.NoError(t, err)
			require.Equal(t, v.Params, hex.EncodeToString(params))
			block, err := aes.NewCipher(unhex(t, v.KEK))
			require.NoError(t, err)
			gcm, err := cipher.NewGCM(block)
			require.NoError(t, err)
			got, err := gcm.Open(nil, w[:12], w[12:], unhex(t, v.AAD))
			require.NoError(t, err)
			require.Equal(t, v.Key, hex.EncodeToString(got))
		})
	}
}
