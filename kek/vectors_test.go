package kek_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorFile = "testdata/kek_aes.json"

// vectors are wraps of KEKs held in memory and the containers around them, all
// bytes in hex.
type vectors struct {
	Note       string      `json:"note"`
	Containers []container `json:"containers"`
}

type container struct {
	Kind      string `json:"kind"`
	Cluster   string `json:"cluster,omitempty"`
	ID        uint32 `json:"id,omitempty"`
	Purpose   string `json:"purpose,omitempty"`
	Node      string `json:"node,omitempty"` // decimal
	Key       string `json:"key"`
	Check     string `json:"check"`
	AAD       string `json:"aad"`
	Wraps     []wrap `json:"wraps"`
	Container string `json:"container"`
}

type wrap struct {
	KEK   string `json:"kek"`
	ID    string `json:"kek_id"`
	Nonce string `json:"nonce"`
	Wrap  string `json:"wrap"`
}

// makeVectors computes the vectors with the standard library and the drawing of
// the format alone.
func makeVectors(t testing.TB) vectors {
	t.Helper()
	one := func() wrap { return wrap{KEK: counting(0x20, 32), Nonce: counting(0xa0, 12)} }
	two := func() wrap { return wrap{KEK: strings.Repeat("42", 32), Nonce: counting(0xb0, 12)} }
	vs := vectors{
		Note: "wraps by KEKs held in memory: AES-256-GCM under kek with nonce and aad, and the containers with them, in hex; " +
			"check is the key's check value",
		Containers: []container{
			{Kind: "dek", Cluster: counting(0xc0, 16), ID: 7, Purpose: "storage", Key: counting(0, 32), Wraps: []wrap{one()}},
			{Kind: "dek", Cluster: strings.Repeat("00", 16), ID: 0xffffffff, Purpose: "raft", Key: counting(0x40, 32), Wraps: []wrap{two(), one()}},
			{Kind: "file", Node: "626980046172116160", Key: counting(0x60, 32), Wraps: []wrap{one(), two()}},
		},
	}
	for i := range vs.Containers {
		vs.Containers[i].complete(t)
	}
	return vs
}

func (c *container) complete(t testing.TB) {
	t.Helper()
	c.Check = expand(t, c.Key, "atrest/v2/key-check")[:32]
	var header string
	if c.Kind == "dek" {
		header = "a7444b02" + c.Cluster + fmt.Sprintf("%08x", c.ID) + map[string]string{"storage": "01", "raft": "02"}[c.Purpose] + c.Check
		c.AAD = header
	} else {
		node, err := strconv.ParseUint(c.Node, 10, 64)
		require.NoError(t, err)
		header = "a7464b02" + fmt.Sprintf("%016x", node) + c.Check
		c.AAD = hex.EncodeToString([]byte("atrest/v2/file-key")) + header
	}
	c.Container = header + fmt.Sprintf("%02x", len(c.Wraps))
	for i := range c.Wraps {
		w := &c.Wraps[i]
		w.ID = "file:" + expand(t, w.KEK, "atrest/v2/kek-id")[:16]
		block, err := aes.NewCipher(unhex(t, w.KEK))
		require.NoError(t, err)
		gcm, err := cipher.NewGCM(block)
		require.NoError(t, err)
		w.Wrap = w.Nonce + hex.EncodeToString(gcm.Seal(nil, unhex(t, w.Nonce), unhex(t, c.Key), unhex(t, c.AAD)))
		c.Container += fmt.Sprintf("%04x%x0000%04x%s", len(w.ID), w.ID, len(w.Wrap)/2, w.Wrap)
	}
}

// expand is HKDF-Expand for up to 32 bytes, by hand.
func expand(t testing.TB, keyHex, label string) string {
	t.Helper()
	mac := hmac.New(sha256.New, unhex(t, keyHex))
	mac.Write([]byte(label + "\x01"))
	return hex.EncodeToString(mac.Sum(nil))
}

func counting(first byte, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return hex.EncodeToString(b)
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	require.NoError(t, err)
	var vs vectors
	require.NoError(t, json.Unmarshal(b, &vs))
	return vs
}

func TestVectorFile(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("wrapping with a fixed nonce is what strict FIPS mode forbids; TestVectors runs")
	}
	if *update {
		b, err := json.MarshalIndent(makeVectors(t), "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(vectorFile, append(b, '\n'), 0o644))
	}
	require.Equal(t, makeVectors(t), readVectors(t))
}

// Each KEK of each vector, read from a file, opens its wrap and the container.
func TestVectors(t *testing.T) {
	for i, v := range readVectors(t).Containers {
		for _, w := range v.Wraps {
			t.Run(fmt.Sprintf("%d-%s-%s", i, v.Kind, w.ID), func(t *testing.T) {
				k, err := kek.File(kekFile(t, unhex(t, w.KEK)))
				require.NoError(t, err)
				require.Equal(t, w.ID, k.ID())
				got, err := k.Unwrap(t.Context(), unhex(t, w.Wrap), unhex(t, v.AAD))
				require.NoError(t, err)
				require.Equal(t, v.Key, hex.EncodeToString(got))

				s := newSet(t, k)
				var dek key.DEK
				if v.Kind == "dek" {
					var h key.Header
					h, dek, err = s.UnwrapDEK(t.Context(), unhex(t, v.Container))
					require.NoError(t, err)
					require.Equal(t, []any{v.Cluster, key.ID(v.ID), v.Purpose, v.Check},
						[]any{h.Cluster.String(), h.ID, h.Purpose.String(), h.Check.String()})
				} else {
					node, perr := strconv.ParseUint(v.Node, 10, 64)
					require.NoError(t, perr)
					dek, err = s.UnwrapFileKey(t.Context(), node, unhex(t, v.Container))
					require.NoError(t, err)
				}
				require.Equal(t, v.Key, hex.EncodeToString(insecurekey.Bytes(dek)))
			})
		}
	}
}
