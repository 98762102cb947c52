package kek_test

import (
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
)

const envName = "ATREST_TEST_KEK"

func TestEnv(t *testing.T) {
	t.Setenv(envName, base64.StdEncoding.EncodeToString(rawKEK(1)))
	k, err := kek.Env(envName)
	require.NoError(t, err)
	require.Regexp(t, "^env:[0-9a-f]{16}$", k.ID())
	require.Equal(t, strings.TrimPrefix(aesKEK(t, rawKEK(1)).ID(), "file:"), strings.TrimPrefix(k.ID(), "env:"))
	require.NoError(t, kek.Verify(t.Context(), k))
	_, set := os.LookupEnv(envName)
	require.False(t, set, "unset after reading")
	require.NotContains(t, strings.Join(os.Environ(), "\n"), envName)

	_, err = kek.Env(envName)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "kek: env "+envName+": ")
	require.ErrorContains(t, err, "not set, or read before")
}

func TestEnvRefused(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(rawKEK(1))
	for name, value := range map[string]string{
		"empty":      "",
		"text":       "not base64!",
		"hex":        hex.EncodeToString(rawKEK(1)), // is base64, of 48 bytes
		"31 bytes":   base64.StdEncoding.EncodeToString(rawKEK(1)[:31]),
		"33 bytes":   base64.StdEncoding.EncodeToString(append(rawKEK(1), 1)),
		"no padding": strings.TrimRight(good, "="),
		"more":       good + "=",
		"URL":        base64.URLEncoding.EncodeToString([]byte(strings.Repeat("\xff\xfe", 16))),
		"spare bits": good[:42] + string(good[42]+1) + "=",
		"quotes":     `"` + good + `"`,
		"space":      " " + good,
		"zeros":      base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"raw":        strings.Repeat("\x81", 32),
		"very long":  strings.Repeat("AAAA", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(envName, value)
			k, err := kek.Env(envName)
			require.ErrorIs(t, err, kek.ErrBadKey)
			require.Nil(t, k)
			var source *kek.SourceError
			require.ErrorAs(t, err, &source)
			require.Equal(t, "env", source.Source)
			require.Equal(t, envName, source.Name)
			require.Equal(t, 1, strings.Count(err.Error(), "kek: "))
			if len(value) > 8 {
				require.NotContains(t, err.Error(), value[:8], "the error shows the value")
			}
			_, set := os.LookupEnv(envName)
			require.False(t, set, "unset, bad as it was")
		})
	}
}
