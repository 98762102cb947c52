package archtest_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/atrestdb/atrest"
	root   = "../.." // from the folder that tests of this package run in
)

// source is one Go file.
type source struct {
	module string // folder of its module, "." for the root module
	pkg    string // folder of its package within the repository, "." for the root
	path   string // within the repository
	ast    *ast.File
}

// sources parses every Go file of the repository that is not a test, of every
// operating system. Tools have no Go files.
func sources(t *testing.T) []source {
	t.Helper()
	var (
		out []source
		in  = map[string]string{} // folder -> folder of its module
	)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if name := d.Name(); rel != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return fs.SkipDir
			}
			in[rel] = in[path.Dir(rel)]
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil {
				in[rel] = rel
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(rel)
		out = append(out, source{module: in[dir], pkg: dir, path: rel, ast: f})
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, out)
	return out
}

// command runs a command in a folder of the repository and returns what it
// prints.
func command(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = filepath.Join(root, filepath.FromSlash(dir))
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr)
	}
	return out
}

// gomod is what `go mod edit -json` says of a go.mod.
type gomod struct {
	Module  struct{ Path string }
	Require []struct {
		Path     string
		Indirect bool
	}
	Replace []struct{ Old, New struct{ Path string } }
}

func readMod(t *testing.T, dir string) gomod {
	t.Helper()
	var m gomod
	require.NoError(t, json.Unmarshal(command(t, dir, "go", "mod", "edit", "-json"), &m))
	return m
}
