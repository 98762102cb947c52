package envelope_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
)

// Runs the next test, and all vectors, in a process under strict FIPS mode.
func TestStrictFIPSProcess(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("this process is one already")
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run=^(TestStrictFIPS|TestVectors|TestGeneration2Vectors|TestXAESVectors|TestRefusals|TestSealOverlap|TestOpenOverlap|TestInPlace|TestEverySuiteOpens|TestWhenToCompress|TestXChaChaUnderStrictFIPS)$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, name := range []string{"TestStrictFIPS", "TestVectors", "TestGeneration2Vectors", "TestXAESVectors", "TestRefusals", "TestSealOverlap", "TestOpenOverlap", "TestInPlace", "TestEverySuiteOpens", "TestWhenToCompress", "TestXChaChaUnderStrictFIPS"} {
		require.Contains(t, string(out), "--- PASS: "+name+" ", "%s", out)
	}
}

func TestStrictFIPS(t *testing.T) {
	if !fips140.Enforced() {
		t.Skip("not under GODEBUG=fips140=only; TestStrictFIPSProcess runs it there")
	}
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		require.Equal(t, envelope.XAES256GCM, s.Suite(), name)
		seen := map[string]bool{}
		for range 2000 { // more than one block
			for _, k := range kinds[:2] {
				env, err := k.seal(s, nil, []byte("plaintext"))
				require.NoError(t, err, name)
				require.Equal(t, byte(envelope.XAES256GCM), env[0], name)
				require.False(t, seen[nonceOf(env)], name)
				seen[nonceOf(env)] = true
				got, err := k.open(c, nil, env)
				require.NoError(t, err, name)
				require.Equal(t, "plaintext", string(got), name)
				env[len(env)-1] ^= 1
				got, err = k.open(c, nil, env)
				require.ErrorIs(t, err, envelope.ErrIntegrity, name)
				require.Nil(t, got, name)
			}
		}
	}

	// An envelope of suite 0x01 that was sealed elsewhere.
	var file struct{ Vectors []vector }
	readJSON(t, &file, "testdata", "envelopes.json")
	v := file.Vectors[0]
	require.Equal(t, uint8(envelope.AES256GCM), v.Version)
	c, err := envelope.NewCipher(v.KeyID, v.Key.dek(t))
	require.NoError(t, err)
	got, err := c.OpenStorage(nil, v.Envelope, v.Location)
	require.NoError(t, err)
	require.Equal(t, append([]byte{}, v.Plaintext...), got)
}
