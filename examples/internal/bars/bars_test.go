package bars_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

// Nobody wants bars in a log.
func TestNoBarsInFiles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	for _, total := range []int64{10, -1} {
		for _, start := range []bars.Start{bars.Terminal(f), bars.Silent} {
			b := start(t.Context(), "sealing", total)
			b.Add(5)
			b.Add(5)
			b.Done()
		}
	}
	info, err := f.Stat()
	require.NoError(t, err)
	require.Zero(t, info.Size())
	require.NoError(t, f.Close())
}
