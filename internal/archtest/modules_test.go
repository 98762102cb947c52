package archtest_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// direct are the modules that the root module may require directly: everybody
// who imports the library gets them.
var direct = []string{
	snappy,
	xcrypto,
	xsys,
	tink,
	cockroachErrors,
	"pgregory.net/rapid",                // tests
	"github.com/stretchr/testify",       // tests
	"github.com/cockroachdb/datadriven", // tests
}

func TestDirectDependencies(t *testing.T) {
	for _, r := range readMod(t, ".").Require {
		if !r.Indirect {
			assert.Contains(t, direct, r.Path)
		}
	}
}

// What a package links, over all that it imports in turn: the packages that run
// for every value, and those below them, stay small.
func TestLinked(t *testing.T) {
	small := []string{snappy, xcrypto, xsys}
	tests := []struct {
		pkg  string
		only []string // modules other than ours; nil: all but Tink
	}{
		{pkg: "."},
		{pkg: "kek"},
		{pkg: "kek/kektest"},
		{pkg: "sidecar"},
		{pkg: "applier"},
		{pkg: "guard"},
		{"key", small},
		{"key/insecurekey", small},
		{"nodeid", small},
		{"envelope", small},
		{"keystore", small},
		{"stream", small},
		{"internal/secret", small},
		{"internal/durable", small},
		{"internal/crashfs", small},
	}
	for _, tt := range tests {
		t.Run(tt.pkg, func(t *testing.T) {
			out := command(t, tt.pkg, "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
			pkgs := strings.Fields(string(out))
			assert.NotEmpty(t, pkgs)
			for _, pkg := range pkgs {
				assert.False(t, within(pkg, tink), "links %s", pkg)
				if tt.only != nil && !within(pkg, module) {
					assert.True(t, slices.ContainsFunc(tt.only, func(m string) bool { return within(pkg, m) }), "links %s", pkg)
				}
			}
		})
	}
}

// Replace lines are not inherited, so a nested module needs one for each sibling
// that it reaches, directly or not.
func TestNestedModulesReplaceSiblings(t *testing.T) {
	nested := map[string]bool{}
	for _, s := range sources(t) {
		if s.module != "." {
			nested[s.module] = true
		}
	}
	assert.NotEmpty(t, nested)
	for dir := range nested {
		m := readMod(t, dir)
		assert.Equal(t, module+"/"+dir, m.Module.Path)
		for _, r := range m.Require {
			sibling, ours := strings.CutPrefix(r.Path+"/", module+"/")
			if !ours {
				continue
			}
			want := strings.Repeat("../", strings.Count(dir, "/")+1) + sibling
			found := false
			for _, rep := range m.Replace {
				found = found || rep.Old.Path == r.Path && strings.TrimSuffix(rep.New.Path, "/") == strings.TrimSuffix(want, "/")
			}
			assert.True(t, found, "%s/go.mod needs: replace %s => %s", dir, r.Path, want)
		}
	}
}
