package atrest_test

import (
	"bytes"
	"crypto/fips140"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/envelope"
)

// Strict FIPS mode is a matter of how a process starts, so the test runs itself. What
// was written in one mode is read in the other.
func TestBackupsInStrictFIPSMode(t *testing.T) {
	keks := fixedKEK(t)
	data := bytes.Repeat([]byte("data"), 40_000)
	if path, ok := os.LookupEnv("ATREST_TEST_OUT"); ok {
		require.True(t, fips140.Enforced())
		b, err := atrest.ReadBackup(t.Context(), os.Stdin, keks)
		require.NoError(t, err)
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, data, got)
		require.NoError(t, os.WriteFile(path, localBackup(t, data, keks), 0o600))
		return
	}
	out := t.TempDir() + "/backup"
	cmd := exec.Command(os.Args[0], "-test.run=^TestBackupsInStrictFIPSMode$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", "ATREST_TEST_OUT="+out)
	cmd.Stdin = bytes.NewReader(localBackup(t, data, keks))
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	require.Contains(t, string(text), "--- PASS: TestBackupsInStrictFIPSMode")
	file, err := os.ReadFile(out)
	require.NoError(t, err)
	_, err = atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks)
	require.NoError(t, err)
}

// What strict FIPS mode does not allow is refused before anything is written, with an
// error that says what to leave out.
func TestRefusalsInStrictFIPSMode(t *testing.T) {
	if !fips140.Enforced() {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRefusalsInStrictFIPSMode$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		text, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", text)
		require.Contains(t, string(text), "--- PASS: TestRefusalsInStrictFIPSMode")
		return
	}
	for name, opt := range map[string]atrest.Option{
		"XChaCha20-Poly1305": atrest.WithSealing(envelope.WithXChaCha()),
		"generation-1 mode":  atrest.WithGeneration1(atrest.Generation1{}),
	} {
		disk := newDisk()
		_, err := atrest.Open(t.Context(), atrest.Config{Dir: dir, Name: "n", KEK: fixedKEK(t), Propose: noPropose}, opt, atrest.WithFS(disk))
		require.ErrorIs(t, err, atrest.ErrConfig)
		require.ErrorContains(t, err, name)
		names, err := disk.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, names)
	}
}
