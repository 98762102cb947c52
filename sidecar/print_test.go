package sidecar_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/sidecar"
)

// No exported value shows the file key or the MAC key, however it is printed.
func TestNothingPrintsKeys(t *testing.T) {
	raw := counting(0x81, 32)
	fileKey, err := insecurekey.New(raw)
	require.NoError(t, err)
	f, err := sidecar.CreateWithKey(t.Context(), dir, node, newKEKs("a"), fileKey, []sidecar.Option{sidecar.WithFS(newFS())})
	require.NoError(t, err)
	fill(t, f)
	var tx *sidecar.Tx
	require.NoError(t, f.Update(func(t *sidecar.Tx) error { tx = t; return nil }))

	var needles []string
	for _, k := range [][]byte{raw, secret.Expand(fileKey, "atrest/v2/keys.json", 32)} {
		k = k[3:12] // not at either end, and aligned for base64
		needles = append(needles, string(k), hex.EncodeToString(k), fmt.Sprintf("%X", k), base64.StdEncoding.EncodeToString(k),
			strings.Trim(fmt.Sprint(k), "[]"), strings.TrimPrefix(strings.Trim(fmt.Sprintf("%#v", k), "}"), "[]byte{"))
	}
	show := func(v any) (texts []string) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		if b, err := json.Marshal(v); err == nil {
			texts = append(texts, string(b))
		}
		return texts
	}
	shows := func(v any) bool {
		for _, text := range show(v) {
			for _, needle := range needles {
				if strings.Contains(text, needle) {
					return true
				}
			}
		}
		return false
	}
	require.True(t, shows(struct{ b []byte }{raw}), "the search finds a key")
	fields := reflect.ValueOf(f).Elem().Interface() // a copy, without the methods of *File
	for _, v := range []any{f, fields, tx, *tx, struct{ f *sidecar.File }{f}, []any{fields}, sidecar.Usage{}, &sidecar.LockedError{}} {
		require.False(t, shows(v), "%T", v)
	}
	require.Equal(t, "data/keys.json of node 81985529216486895", fmt.Sprint(f))
}
