package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var nonceWord = regexp.MustCompile(`(?i)^iv$|nonce`)

// Nobody outside hands in a nonce or gets one out: no exported function or method
// has a parameter, a result or a name with that word where bytes or numbers pass,
// and no exported type has such a field. How long the nonces of a suite are is
// public.
func TestNoNonceInTheAPI(t *testing.T) {
	seen := 0
	for _, s := range sources(t) {
		if s.module != "." || strings.Contains("/"+s.pkg+"/", "/internal/") {
			continue
		}
		for _, bad := range nonces(s.ast, &seen) {
			assert.Equal(t, "NonceSize", bad, "%s", s.path)
		}
	}
	require.Greater(t, seen, 100)
}

// nonces returns the names of what could carry a nonce, and counts what it looked
// at.
func nonces(f *ast.File, seen *int) (bad []string) {
	fields := func(list *ast.FieldList, name string) {
		if list == nil {
			return
		}
		for _, field := range list.List {
			*seen++
			if !carries(field.Type) {
				continue
			}
			names := []string{name}
			for _, id := range field.Names {
				names = append(names, id.Name)
			}
			for _, n := range names {
				if nonceWord.MatchString(n) {
					bad = append(bad, n)
				}
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.IsExported() {
				fields(n.Type.Params, n.Name.Name)
				fields(n.Type.Results, n.Name.Name)
			}
			return false
		case *ast.TypeSpec:
			return n.Name.IsExported()
		case *ast.InterfaceType:
			for _, m := range n.Methods.List {
				if ft, ok := m.Type.(*ast.FuncType); ok && len(m.Names) == 1 {
					fields(ft.Params, m.Names[0].Name)
					fields(ft.Results, m.Names[0].Name)
				}
			}
		case *ast.StructType:
			exported := new(ast.FieldList)
			for _, field := range n.Fields.List {
				if len(field.Names) > 0 && field.Names[0].IsExported() {
					exported.List = append(exported.List, field)
				}
			}
			fields(exported, "")
		}
		return true
	})
	return bad
}

// carries reports whether a value of the type could be a nonce: bytes, a string
// or a number.
func carries(typ ast.Expr) bool {
	switch typ := typ.(type) {
	case *ast.ArrayType:
		return true
	case *ast.Ident:
		return typ.Name == "string" || strings.HasPrefix(typ.Name, "uint") || strings.HasPrefix(typ.Name, "int")
	}
	return false
}

func TestNoncesAreFound(t *testing.T) {
	for _, code := range []string{
		"func F(nonce []byte) {}",
		"func F() (IV [12]byte) { return }",
		"func (t T) Nonce() uint64 { return 0 }",
		"type T struct { FirstNonce []byte }",
		"type I interface { F(nonce string) }",
	} {
		require.Len(t, nonces(parse(t, "package p\n"+code), new(int)), 1, code)
	}
	for _, code := range []string{
		"func f(nonce []byte) {}",
		"func WithExtendedNonces() Option { return nil }",
		"type T struct { nonce []byte; CountedNonces bool }",
		"type t struct { Nonce []byte }",
	} {
		require.Empty(t, nonces(parse(t, "package p\n"+code), new(int)), code)
	}
}

func parse(t *testing.T, code string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "code.go", code, parser.SkipObjectResolution)
	require.NoError(t, err)
	return f
}
