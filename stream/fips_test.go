package stream_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/stream"
)

// Strict FIPS mode is a matter of how a process starts, so the test runs itself:
// each side opens what the other sealed.
func TestStrictFIPSMode(t *testing.T) {
	const folder = "ATREST_TEST_FOLDER"
	plaintext := text(3*seg + 10)
	keys := newStore(t)
	if !strictFIPS() {
		dir := t.TempDir()
		ours := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg), stream.WithWorkers(2))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "counted"), ours, 0o600))
		cmd := exec.Command(os.Args[0], "-test.run=^TestStrictFIPSMode$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only", folder+"="+dir)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestStrictFIPSMode")
		theirs, err := os.ReadFile(filepath.Join(dir, "random"))
		require.NoError(t, err)
		opensAll(t, keys, plaintext, theirs)
		return
	}
	for _, workers := range []int{1, 3} {
		for _, size := range []int{1000, len(plaintext), 1 << 20} {
			again := sealBy(t, keys, plaintext, size, workers)
			opensAll(t, keys, plaintext, again)
			segments := slices.Collect(slices.Chunk(again[headSize(place):], full))
			for i := range segments[1:] {
				require.NotEqual(t, make([]byte, 4), segments[i][:4], "the nonce is random")
			}
			again[len(again)-1]++
			_, err := open(t, keys, place, again)
			require.Equal(t, stream.ErrIntegrity, err)
		}
	}
	// The other side, if this process was started by it.
	dir := os.Getenv(folder)
	if dir == "" {
		return
	}
	theirs, err := os.ReadFile(filepath.Join(dir, "counted"))
	require.NoError(t, err)
	opensAll(t, keys, plaintext, theirs)
	ours := seal(t, keys, place, plaintext, stream.WithSegmentSize(seg), stream.WithWorkers(2))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "random"), ours, 0o600))
}

// opensAll opens a stream in every way.
func opensAll(t *testing.T, keys stream.Keys, plaintext, sealed []byte) {
	t.Helper()
	for _, workers := range []int{1, 3} {
		for _, size := range []int{100, seg, 1 << 20} {
			readBy(t, keys, sealed, plaintext, size, workers)
		}
	}
	r, err := stream.NewReaderAt(t.Context(), bytes.NewReader(sealed), int64(len(sealed)), keys, place)
	require.NoError(t, err)
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	require.NoError(t, err)
	require.True(t, bytes.Equal(plaintext, got))
}
