package archtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Vectors that nobody can find are of no use to other implementations.
func TestFormatsNameEveryVectorFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "FORMATS.md"))
	require.NoError(t, err)
	found := 0
	for name := range strings.SplitSeq(string(command(t, ".", "git", "ls-files", "-z")), "\x00") {
		if strings.Contains(name, "testdata/") && strings.HasSuffix(name, ".json") {
			found++
			assert.Contains(t, string(text), "| `"+name+"` |")
		}
	}
	require.Greater(t, found, 5)
}
