package tinkkek_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/tinkkek"
)

// Strict FIPS mode is a matter of how a process starts, so the test runs itself:
// keysets of AES-CTR-HMAC keys work there, others are refused when they are opened.
func TestStrictFIPSMode(t *testing.T) {
	if !fips140.Enforced() {
		self, err := os.Executable()
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^(TestStrictFIPSMode|TestFromHandle|TestFiles|TestFromKMS)$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		for _, name := range []string{"TestStrictFIPSMode", "TestFromHandle", "TestFromHandle/AES256_GCM", "TestFiles", "TestFromKMS"} {
			require.Contains(t, string(out), "--- PASS: "+name+" ")
		}
		return
	}
	refused := 0
	for name, template := range templates {
		_, err := tinkkek.FromHandle(handle(t, template()))
		if err != nil {
			require.ErrorIs(t, err, kek.ErrFIPS, name)
			refused++
		}
	}
	require.Equal(t, len(templates)-1, refused)

	// In a file, too; and one bad key is enough.
	path := write(t, inClear(t, handle(t, templates["AES256_GCM"]()), writings[0]))
	k, err := tinkkek.InsecureCleartextFile(path)
	require.Nil(t, k)
	require.ErrorIs(t, err, kek.ErrFIPS)
	require.ErrorContains(t, err, "AesGcmKey, want AesCtrHmacAeadKey")
}
