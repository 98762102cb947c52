package durable_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/durable"
)

func TestWriteFileOS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, data := range []string{"", "one", "two, longer", "3"} {
		require.NoError(t, durable.WriteFile(durable.OS, path, []byte(data)))
		got, info, err := durable.ReadFile(durable.OS, path, 100)
		require.NoError(t, err)
		require.Equal(t, data, string(got))
		require.EqualValues(t, len(data), info.Size())
		names, err := durable.OS.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Equal(t, []string{"f"}, names)
	}
	require.NoError(t, os.Remove(path))
	_, _, err := durable.ReadFile(durable.OS, path, 100)
	require.ErrorIs(t, err, fs.ErrNotExist)
}
