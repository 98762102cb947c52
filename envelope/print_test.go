package envelope_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key/insecurekey"
)

// However a value is formatted, no key byte shows: not of the DEK, nor of the
// keys derived from it.
func TestNothingPrintsKeys(t *testing.T) {
	dek, err := insecurekey.New(bytes.Repeat([]byte{0xc7, 0xd3, 0xe5, 0xf1}, 8))
	require.NoError(t, err)
	c, err := envelope.NewCipher(keyID, dek)
	require.NoError(t, err)
	s, x := counted(t, c, nil), extended(t, c, nil)
	for _, s := range []*envelope.Sealer{s, x} {
		env, err := s.SealStorage(nil, []byte("value"), nil)
		require.NoError(t, err)
		_, err = c.OpenStorage(nil, env, nil)
		require.NoError(t, err)
	}
	var needles []string
	for _, k := range [][]byte{insecurekey.Bytes(dek), secret.Expand(dek, "atrest/v2/xaes-256-gcm", 32)} {
		for i := 0; i < len(k); i += 4 {
			le, be := binary.LittleEndian.Uint32(k[i:]), binary.BigEndian.Uint32(k[i:])
			needles = append(
				needles,
				fmt.Sprintf("%d %d %d %d", k[i], k[i+1], k[i+2], k[i+3]),
				fmt.Sprintf("%d, %d, %d, %d", k[i], k[i+1], k[i+2], k[i+3]),
				fmt.Sprintf("%#x, %#x, %#x, %#x", k[i], k[i+1], k[i+2], k[i+3]),
				fmt.Sprintf("%x", k[i:i+4]), fmt.Sprintf("%X", k[i:i+4]),
				fmt.Sprint(le), fmt.Sprint(be), fmt.Sprintf("%x", le), fmt.Sprintf("%X", le), string(k[i:i+4]),
			)
		}
	}
	// The control: what the standard library's AEAD prints of itself does hold key
	// bytes.
	gcm, _ := envelope.NewAEAD(t, insecurekey.Bytes(dek))
	require.True(t, slices.ContainsFunc(needles, func(n string) bool { return strings.Contains(fmt.Sprintf("%s", gcm), n) }))

	type host struct {
		c *envelope.Cipher
		s *envelope.Sealer
	}
	for _, v := range []any{c, s, x, host{c, s}, &host{c, x}, []any{c, s}, map[string]any{"c": c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t"} {
			text := fmt.Sprintf(verb, v)
			if b, err := json.Marshal(v); err == nil {
				text += string(b)
			}
			for _, n := range needles {
				require.NotContains(t, text, n, "%T with %s", v, verb)
			}
		}
	}
}
