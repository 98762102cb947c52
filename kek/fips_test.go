package kek_test

import (
	"crypto/fips140"
	"encoding/base64"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
)

// Under the strictest FIPS mode, which is a matter of how a process starts, the
// AES KEKs, sets and Verify work, and passphrases are refused.
func TestFIPSOnly(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFIPSChild$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", "ATREST_FIPS_CHILD=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestFIPSChild")
	require.Contains(t, string(out), "strict mode is on")
}

func TestFIPSChild(t *testing.T) {
	if os.Getenv("ATREST_FIPS_CHILD") != "" {
		require.True(t, fips140.Enforced())
		t.Log("strict mode is on")
	}
	if fips140.Enforced() {
		k, err := kek.Passphrase(secret)
		require.Nil(t, k)
		require.ErrorIs(t, err, kek.ErrFIPS)
		require.EqualError(t, err, "kek: passphrase default: not allowed in strict FIPS mode: Argon2id")
		opened, err := kek.OpenURI(t.Context(), "passphrase:ops?file="+kekFile(t, secret))
		require.Nil(t, opened)
		require.ErrorIs(t, err, kek.ErrFIPS)
		k, err = nil, nil
		fips140.WithoutEnforcement(func() { k, err = kek.Passphrase(secret) })
		require.NoError(t, err)
		require.NotNil(t, k)
	}
	file, err := kek.File(kekFile(t, rawKEK(1)))
	require.NoError(t, err)
	require.Equal(t, file.ID(), openURI(t, "file:"+kekFile(t, rawKEK(1))).ID())
	t.Setenv(envName, base64.StdEncoding.EncodeToString(rawKEK(2)))
	env, err := kek.Env(envName)
	require.NoError(t, err)
	for _, k := range []kek.KEK{file, env} {
		require.NoError(t, kek.Verify(t.Context(), k))
	}

	both, dek := newSet(t, file, env), key.NewDEK()
	c := wrapDEK(t, both, 7, key.Storage, dek)
	c, err = both.RewrapDEK(t.Context(), c)
	require.NoError(t, err)
	c, err = both.RemoveRecipient(t.Context(), c, env.ID())
	require.NoError(t, err)
	c, err = both.AddRecipient(t.Context(), c, env)
	require.NoError(t, err)
	fileKey, err := both.WrapFileKey(t.Context(), 5, dek)
	require.NoError(t, err)
	for _, s := range []*kek.Set{newSet(t, file), newSet(t, env)} {
		h, got, err := s.UnwrapDEK(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, key.ID(7), h.ID)
		require.True(t, key.EqualDEK(dek, got))
		got, err = s.UnwrapFileKey(t.Context(), 5, fileKey)
		require.NoError(t, err)
		require.True(t, key.EqualDEK(dek, got))
	}

	// What was written in any mode opens in this one.
	v := readVectors(t).Containers[0]
	k, err := kek.File(kekFile(t, unhex(t, v.Wraps[0].KEK)))
	require.NoError(t, err)
	_, _, err = newSet(t, k).UnwrapDEK(t.Context(), unhex(t, v.Container))
	require.NoError(t, err)
}
