package archtest_test

import (
	"go/ast"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	cockroachErrors = "github.com/cockroachdb/errors"
	snappy          = "github.com/golang/snappy"
	xcrypto         = "golang.org/x/crypto"
	xsys            = "golang.org/x/sys"
	tink            = "github.com/tink-crypto/tink-go/v2"
)

// row says what the files of a package that are not tests may import beyond the
// standard library.
type row struct {
	ours    []string // packages of this module
	outside []string // modules
}

// rows has a row for each package of the root module. A package has one job;
// what it needs from a package that is not in its row comes in as a small
// interface of its own.
var rows = map[string]row{
	".": {ours: []string{
		"key", "nodeid", "envelope", "keystore", "kek", "sidecar", "sidecar/generation1", "applier", "guard", "stream", "internal/durable", "internal/planted", "internal/secret",
	}, outside: []string{cockroachErrors}},
	"key":                 {ours: []string{"internal/secret"}},
	"key/insecurekey":     {ours: []string{"key", "internal/secret"}},
	"nodeid":              {},
	"envelope":            {ours: []string{"key", "internal/pinned", "internal/secret"}, outside: []string{snappy, xcrypto, xsys}},
	"keystore":            {ours: []string{"key", "envelope", "internal/secret"}},
	"kek":                 {ours: []string{"key", "internal/secret"}, outside: []string{cockroachErrors, xcrypto, xsys}},
	"kek/tinkkek":         {ours: []string{"kek", "key"}, outside: []string{tink}},
	"kek/kektest":         {ours: []string{"kek", "key"}},
	"sidecar/generation1": {ours: []string{"key"}},
	"sidecar":             {ours: []string{"key", "internal/durable", "internal/secret"}, outside: []string{cockroachErrors}},

	"stream": {ours: []string{"key", "envelope", "keystore", "internal/durable", "internal/secret"}},

	"guard": {
		ours:    []string{"key", "nodeid", "sidecar", "sidecar/generation1", "applier", "kek", "internal/durable"},
		outside: []string{cockroachErrors},
	},

	"applier": {ours: []string{"key", "nodeid", "internal/planted"}, outside: []string{cockroachErrors}},

	"internal/secret":   {},
	"internal/planted":  {},
	"internal/pinned":   {},
	"internal/durable":  {outside: []string{xsys}},
	"internal/crashfs":  {ours: []string{"internal/durable"}},
	"internal/archtest": {},
	"internal/sim": {ours: []string{
		".", "key", "nodeid", "envelope", "keystore", "kek", "kek/kektest", "sidecar", "guard", "applier", "internal/crashfs", "internal/durable",
	}},
	"internal/bench": {ours: []string{
		"key", "key/insecurekey", "envelope", "keystore", "kek", "kek/kektest", "sidecar", "stream",
	}},
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if s.module != "." {
			continue
		}
		seen[s.pkg] = true
		may, ok := rows[s.pkg]
		if !ok {
			continue // said once below, not once a file
		}
		for _, spec := range s.ast.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			assert.True(t, may.allows(imp), "%s imports %s, which the row of %s does not name", s.path, imp, s.pkg)
		}
	}
	assert.Equal(t, slices.Sorted(maps.Keys(rows)), slices.Sorted(maps.Keys(seen)), "rows, and packages that exist")
}

func (r row) allows(imp string) bool {
	if imp == module {
		return slices.Contains(r.ours, ".")
	}
	if ours, ok := strings.CutPrefix(imp, module+"/"); ok {
		return slices.Contains(r.ours, ours)
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(r.outside, func(m string) bool { return within(imp, m) })
}

// within reports whether a package path lies in a module or folder.
func within(pkg, prefix string) bool {
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

// A nested module shows how others use the library, so it uses what others can.
// The one exception names the file system of package sidecar.
func TestNestedModulesUseExportedPackages(t *testing.T) {
	for _, s := range sources(t) {
		if s.module == "." {
			continue
		}
		for _, spec := range s.ast.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			if imp != module+"/internal/durable" {
				assert.False(t, within(imp, module+"/internal"), "%s imports %s", s.path, imp)
			}
		}
	}
}

// Only tests pin what is random.
func TestOnlyTestsPin(t *testing.T) {
	for _, s := range sources(t) {
		if s.pkg == "internal/pinned" {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "pinned" {
					assert.Equal(t, "Start", sel.Sel.Name, s.path)
				}
			}
			return true
		})
	}
}
