package keystore_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/keystore"
)

var update = flag.Bool("update", false, "compute the results in testdata/macs.json anew")

// hexBytes is hexadecimal in JSON.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type macVector struct {
	Name   string     `json:"name"`
	DEK    hexBytes   `json:"dek"`
	Label  hexBytes   `json:"label"`
	Parts  []hexBytes `json:"parts"`
	MAC    hexBytes   `json:"mac"`
	Subkey hexBytes   `json:"subkey"`
}

func (v *macVector) parts() [][]byte {
	var parts [][]byte
	for _, p := range v.Parts {
		parts = append(parts, p)
	}
	return parts
}

func macVectors(t *testing.T) []macVector {
	t.Helper()
	b, err := os.ReadFile("testdata/macs.json")
	require.NoError(t, err)
	var f struct {
		About   string      `json:"about"`
		Vectors []macVector `json:"vectors"`
	}
	require.NoError(t, json.Unmarshal(b, &f))
	require.NotEmpty(t, f.Vectors)
	if *update {
		for i := range f.Vectors {
			v := &f.Vectors[i]
			v.MAC = macByHand(v.DEK, string(v.Label), v.parts())
			v.Subkey = expandByHand(v.DEK, "atrest/v2/subkey/"+string(v.Label))
		}
		b, err = json.MarshalIndent(f, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("testdata/macs.json", append(b, '\n'), 0o600))
	}
	return f.Vectors
}

// macByHand is HMAC over HKDF-Expand, both from their definitions in RFC 2104 and
// RFC 5869.
func macByHand(dek []byte, label string, parts [][]byte) []byte {
	var msg []byte
	for _, p := range parts {
		msg = append(binary.BigEndian.AppendUint64(msg, uint64(len(p))), p...)
	}
	return hmacByHand(expandByHand(dek, "atrest/v2/mac/"+label), msg)
}

func expandByHand(k []byte, info string) []byte { return hmacByHand(k, append([]byte(info), 1)) }

func hmacByHand(k, msg []byte) []byte {
	var inner, outer [sha256.BlockSize]byte
	copy(inner[:], k)
	copy(outer[:], k)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	h := sha256.Sum256(append(inner[:], msg...))
	h = sha256.Sum256(append(outer[:], h[:]...))
	return h[:]
}

func TestMACVectors(t *testing.T) {
	seen := map[string]string{}
	for _, v := range macVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			s := newStore(t)
			dek, err := insecurekey.New(v.DEK)
			require.NoError(t, err)
			require.NoError(t, s.Install(1, key.Storage, dek))
			require.NoError(t, s.Install(2, key.Raft, dek))
			label := string(v.Label)
			require.Equal(t, []byte(v.MAC), macByHand(v.DEK, label, v.parts()))
			for _, id := range []key.ID{1, 2} {
				mac, err := s.MAC(id, label, v.parts()...)
				require.NoError(t, err)
				require.Equal(t, []byte(v.MAC), mac[:])
				require.NoError(t, s.VerifyMAC(id, label, v.MAC, v.parts()...))
				sub, err := s.Subkey(id, label)
				require.NoError(t, err)
				require.Equal(t, []byte(v.Subkey), insecurekey.Bytes(sub))
			}
			require.Equal(t, []byte(v.Subkey), expandByHand(v.DEK, "atrest/v2/subkey/"+label))
			require.Empty(t, seen[string(v.MAC)], "the same MAC")
			seen[string(v.MAC)] = v.Name
		})
	}
}

func TestVerifyMACRefuses(t *testing.T) {
	for _, v := range macVectors(t) {
		s := newStore(t)
		dek, err := insecurekey.New(v.DEK)
		require.NoError(t, err)
		require.NoError(t, s.Install(1, key.Storage, dek))
		require.NoError(t, s.Install(2, key.Storage, key.NewDEK()))
		label, parts := string(v.Label), v.parts()

		wrong := [][]byte{nil, {}, v.MAC[:31], append(bytes.Clone(v.MAC), 0), make([]byte, 32)}
		for i := range v.MAC {
			w := bytes.Clone(v.MAC)
			w[i] ^= 1 << (i % 8)
			wrong = append(wrong, w)
		}
		for _, w := range wrong {
			require.ErrorIs(t, s.VerifyMAC(1, label, w, parts...), keystore.ErrMAC, v.Name)
		}
		require.ErrorIs(t, s.VerifyMAC(2, label, v.MAC, parts...), keystore.ErrMAC, "another key")
		require.ErrorIs(t, s.VerifyMAC(1, "other", v.MAC, parts...), keystore.ErrMAC, "another label")
		require.ErrorIs(t, s.VerifyMAC(1, label, v.MAC, append(parts, nil)...), keystore.ErrMAC, "one part more")
	}
}

// No two different sequences of parts have the same MAC.
func TestMACSeparatesParts(t *testing.T) {
	s := newStore(t)
	install(t, s, 1)
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.SliceOfN(rapid.ByteRange(0, 1), 0, 10), 0, 4)
		a, b := parts.Draw(t, "a"), parts.Draw(t, "b")
		mac, err := s.MAC(1, "l", a...)
		require.NoError(t, err)
		same := len(a) == len(b)
		for i := range min(len(a), len(b)) {
			same = same && bytes.Equal(a[i], b[i])
		}
		require.Equal(t, same, s.VerifyMAC(1, "l", mac[:], b...) == nil)
	})
}

func TestLabels(t *testing.T) {
	s := newStore(t)
	install(t, s, 1)
	for label, ok := range map[string]bool{
		"":                       false,
		"l":                      true,
		"\x00":                   true,
		strings.Repeat("x", 200): true,
		strings.Repeat("x", 201): false,
	} {
		_, err := s.MAC(1, label)
		_, errSub := s.Subkey(1, label)
		if ok {
			require.NoError(t, err, label)
			require.NoError(t, errSub, label)
			continue
		}
		require.ErrorIs(t, err, keystore.ErrLabel, label)
		require.ErrorIs(t, errSub, keystore.ErrLabel, label)
		require.ErrorIs(t, s.VerifyMAC(1, label, make([]byte, 32)), keystore.ErrLabel, label)
	}
}

// No label reaches the DEK's other subkeys, not even one with their name.
func TestSubkeysKeepToThemselves(t *testing.T) {
	s := newStore(t)
	dek := key.NewDEK()
	require.NoError(t, s.Install(1, key.Storage, dek))
	for _, label := range []string{"atrest/v2/key-check", "atrest/v2/xaes-256-gcm", "atrest/v2/stream"} {
		sub, err := s.Subkey(1, label)
		require.NoError(t, err)
		require.NotEqual(t, expandByHand(insecurekey.Bytes(dek), label), insecurekey.Bytes(sub))
		mac, err := s.MAC(1, label)
		require.NoError(t, err)
		require.NotEqual(t, hmacByHand(expandByHand(insecurekey.Bytes(dek), label), nil), mac[:])
	}
}

func TestDerivingByState(t *testing.T) {
	s := newStore(t)
	install(t, s, 1)
	mac, err := s.MAC(1, "l", value)
	require.NoError(t, err)
	sub, err := s.Subkey(1, "l")
	require.NoError(t, err)

	require.NoError(t, s.Stop(1))
	_, err = s.MAC(1, "l", value)
	requireKeyError(t, err, 1, keystore.ErrStopped)
	require.NoError(t, s.VerifyMAC(1, "l", mac[:], value), "a stopped key still tells")
	again, err := s.Subkey(1, "l")
	require.NoError(t, err)
	require.True(t, key.EqualDEK(sub, again))
	other, err := s.Subkey(1, "m")
	require.NoError(t, err)
	require.False(t, key.EqualDEK(sub, other))
}

// The MAC key of a label is not its subkey, so no subkey gives a MAC away.
func TestMACKeyIsNoSubkey(t *testing.T) {
	s := newStore(t)
	install(t, s, 1)
	mac, err := s.MAC(1, "l")
	require.NoError(t, err)
	for _, label := range []string{"l", "mac/l", "atrest/v2/mac/l"} {
		sub, err := s.Subkey(1, label)
		require.NoError(t, err)
		require.NotEqual(t, hmacByHand(insecurekey.Bytes(sub), nil), mac[:])
	}
}
