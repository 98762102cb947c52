package key_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorFile = "testdata/containers.json"

// vector is one container, all bytes in hex. A DEK's has cluster, id and purpose,
// a file key's has node.
type vector struct {
	Kind       string            `json:"kind"`
	Cluster    string            `json:"cluster,omitempty"`
	ID         uint32            `json:"id,omitempty"`
	Purpose    string            `json:"purpose,omitempty"`
	Node       string            `json:"node,omitempty"` // decimal
	Key        string            `json:"key"`
	Check      string            `json:"check"`
	AAD        string            `json:"aad"`
	Recipients []vectorRecipient `json:"recipients"`
	Container  string            `json:"container"`
}

type vectorRecipient struct {
	KEK    string `json:"kek"`
	Params string `json:"params"`
	Wrap   string `json:"wrap"`
}

type vectors struct {
	Note    string   `json:"note"`
	Vectors []vector `json:"vectors"`
}

// makeVectors computes the vectors without the package: hexadecimal text put
// together as the format is drawn, and HKDF-Expand by hand.
func makeVectors() vectors {
	one := []vectorRecipient{{KEK: "k", Wrap: "ff"}}
	two := []vectorRecipient{
		{KEK: "file:0123456789abcdef", Wrap: counting(0x10, 60)},
		{KEK: "kms:arn/a-key", Params: counting(0xd0, 20), Wrap: counting(0x80, 180)},
	}
	out := vectors{
		Note: "containers of DEKs and file keys, in hex; check is the key's check value, aad what every wrap is bound to. " +
			"The wraps are no real ones: kek/testdata has those",
		Vectors: []vector{
			{Kind: "dek", Cluster: zeros(16), ID: 1, Purpose: "storage", Key: counting(0, 32), Recipients: one},
			{Kind: "dek", Cluster: counting(0xc0, 16), ID: 0x12345678, Purpose: "raft", Key: counting(0x40, 32), Recipients: two},
			{Kind: "dek", Cluster: counting(0xc0, 16), ID: 0xffffffff, Purpose: "storage", Key: zeros(32), Recipients: two[1:]},
			{Kind: "file", Node: "1", Key: counting(0, 32), Recipients: one},
			{Kind: "file", Node: "626980046172116160", Key: counting(0x60, 32), Recipients: two},
		},
	}
	for i := range out.Vectors {
		out.Vectors[i].complete()
	}
	return out
}

func (v *vector) complete() {
	raw, _ := hex.DecodeString(v.Key)
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte("atrest/v2/key-check\x01"))
	v.Check = hex.EncodeToString(mac.Sum(nil)[:16])
	var header string
	if v.Kind == "dek" {
		purpose := map[string]string{"storage": "01", "raft": "02"}[v.Purpose]
		header = "a7444b02" + v.Cluster + fmt.Sprintf("%08x", v.ID) + purpose + v.Check
		v.AAD = header
	} else {
		node, _ := strconv.ParseUint(v.Node, 10, 64)
		header = "a7464b02" + fmt.Sprintf("%016x", node) + v.Check
		v.AAD = hex.EncodeToString([]byte("atrest/v2/file-key")) + header
	}
	v.Container = header + fmt.Sprintf("%02x", len(v.Recipients))
	for _, r := range v.Recipients {
		v.Container += fmt.Sprintf("%04x%x%04x%s%04x%s", len(r.KEK), r.KEK, len(r.Params)/2, r.Params, len(r.Wrap)/2, r.Wrap)
	}
}

// counting returns n bytes that count up from first, in hex.
func counting(first byte, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return hex.EncodeToString(b)
}

func zeros(n int) string { return hex.EncodeToString(make([]byte, n)) }

func readVectors(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile(vectorFile)
	require.NoError(t, err)
	var vs vectors
	require.NoError(t, json.Unmarshal(b, &vs))
	return vs
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestVectorFile(t *testing.T) {
	if *update {
		b, err := json.MarshalIndent(makeVectors(), "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(vectorFile, append(b, '\n'), 0o644))
	}
	require.Equal(t, makeVectors(), readVectors(t))
}

func TestVectors(t *testing.T) {
	for i, v := range readVectors(t).Vectors {
		t.Run(fmt.Sprintf("%d-%s", i, v.Kind), func(t *testing.T) {
			dek, err := insecurekey.New(unhex(t, v.Key))
			require.NoError(t, err)
			check := key.CheckOf(dek)
			require.Equal(t, v.Check, check.String())
			var (
				rs  []key.Recipient
				aad []byte
				raw = unhex(t, v.Container)
				out []byte
			)
			for _, r := range v.Recipients {
				rec := key.Recipient{KEK: r.KEK, Wrap: unhex(t, r.Wrap)}
				if r.Params != "" {
					rec.Params = unhex(t, r.Params)
				}
				rs = append(rs, rec)
			}
			if v.Kind == "dek" {
				want := key.Container{Header: key.Header{ID: key.ID(v.ID), Check: check}, Recipients: rs}
				require.NoError(t, want.Cluster.UnmarshalText([]byte(v.Cluster)))
				require.NoError(t, want.Purpose.UnmarshalText([]byte(v.Purpose)))
				got, err := key.ParseContainer(raw)
				require.NoError(t, err)
				require.Equal(t, want, got)
				aad = want.AAD()
				out, err = want.Append(nil)
				require.NoError(t, err)
			} else {
				node, err := strconv.ParseUint(v.Node, 10, 64)
				require.NoError(t, err)
				want := key.FileContainer{FileHeader: key.FileHeader{Node: node, Check: check}, Recipients: rs}
				got, err := key.ParseFileContainer(raw)
				require.NoError(t, err)
				require.Equal(t, want, got)
				aad = want.AAD()
				out, err = want.Append(nil)
				require.NoError(t, err)
			}
			require.Equal(t, v.AAD, hex.EncodeToString(aad))
			require.Equal(t, v.Container, hex.EncodeToString(out))
		})
	}
}
