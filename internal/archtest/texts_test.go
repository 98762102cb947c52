package archtest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every package starts with a comment that says what it is.
func TestPackageComments(t *testing.T) {
	has := map[string]bool{}
	for _, s := range sources(t) {
		doc := s.ast.Doc.Text()
		want := "Package " + s.ast.Name.Name + " "
		if s.ast.Name.Name == "main" {
			want = strings.ToUpper(filepath.Base(s.pkg)[:1]) + filepath.Base(s.pkg)[1:] + " "
		}
		assert.False(t, doc != "" && !strings.HasPrefix(doc, want), "%s: the package comment starts with %q", s.path, want)
		assert.False(t, doc != "" && has[s.pkg], "%s: a second package comment", s.path)
		has[s.pkg] = has[s.pkg] || doc != ""
	}
	for pkg, ok := range has {
		assert.True(t, ok, "%s has no package comment", pkg)
	}
}

// The patterns are spelt so that they do not match themselves.
var unwanted = []struct{ name, pattern string }{
	{"work left for later", `\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b`},
	{"promises", `(?i)\bnot yet implement[e]d\b|\bplacehold[e]r\b|\bfor no[w]\b|\bin a rea[l] (world|system|implementation)\b`},
	{"paths of one machine", `(?i)(^|[^.a-z0-9_])/(hom[e]|roo[t]|wor[k]|far[m])/`},
	{"how the work was organised", `(?i)\bissue [A-F]\b|\bmileston[e]s?\b|\b(this|previous|earlier|next) sessio[n]\b|\b(by|other|another) helpe[r] (session|wrote|writes|is)\b`},
	{"who typed it", `(?i)\b(clau[d]e|code[x]|chatgp[t]|LL[M])\b`},
	{"numbers of documents that are not here", `(?i)\bdecisio[n] [0-9]+\b|\bspe[c] [A-G]\.[0-9]+\b`},
	{"merge conflicts", `(?m)^(<{7}|>{7}|={7})( |$)`},
}

func TestUnwantedWords(t *testing.T) {
	files := strings.Split(strings.TrimSuffix(string(command(t, ".", "git", "ls-files", "-z")), "\x00"), "\x00")
	require.Greater(t, len(files), 20)
	for _, u := range unwanted {
		re := regexp.MustCompile(u.pattern)
		for _, name := range files {
			if filepath.Base(name) == "go.sum" || strings.Contains(name, "testdata/") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(root, name))
			if os.IsNotExist(err) || bytes.IndexByte(text, 0) >= 0 {
				continue // deleted and not committed, or not a text
			}
			require.NoError(t, err)
			for i, line := range strings.Split(string(text), "\n") {
				assert.False(t, re.MatchString(line), "%s:%d: %s: %q", name, i+1, u.name, line)
			}
		}
	}
}
