package archtest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// No exported value prints key bytes, however it is formatted, encoded or
// logged, and however deep it lies in something else.
func TestNothingPrintsKeys(t *testing.T) {
	f := newFixture(t)
	leaks := searcher(f.keys...)
	for name, v := range f.values {
		t.Run(name, func(t *testing.T) {
			for _, variant := range variants(v) {
				for form, text := range renderings(variant) {
					if found := leaks(text); found != "" {
						t.Errorf("%T, %s: %s in %.200q", variant, form, found, text)
					}
				}
			}
		})
	}
}

// Every exported type has a value in that test.
func TestEveryExportedTypeIsFormatted(t *testing.T) {
	var want []string
	for _, s := range sources(t) {
		if s.module != "." || strings.HasPrefix(s.pkg, "internal/") {
			continue
		}
		for _, decl := range s.ast.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, spec := range gen.Specs {
				ts := spec.(*ast.TypeSpec)
				if _, isInterface := ts.Type.(*ast.InterfaceType); !isInterface && ts.Name.IsExported() {
					want = append(want, path.Base(path.Join(module, s.pkg))+"."+ts.Name.Name)
				}
			}
		}
	}
	values := newFixture(t).values
	assert.Equal(t, slices.Sorted(slices.Values(want)), slices.Sorted(maps.Keys(values)),
		"exported types, and values in newFixture")
	for name, v := range values {
		typ := reflect.TypeOf(v)
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if name != "key.DEK" { // an alias
			assert.Equal(t, name, path.Base(typ.PkgPath())+"."+typ.Name(), "the value of this name has another type")
		}
	}
}

// The search itself: each way in which bytes could show is found.
func TestSearchFindsKeys(t *testing.T) {
	k := fixedBytes(1)
	leaks := searcher(k)
	type open struct{ B []byte }
	block := make([]uint32, 8)
	for i := range block {
		block[i] = binary.BigEndian.Uint32(k[4*i:])
	}
	for i, v := range []any{
		k, string(k), [32]byte(k),
		open{k},
		&open{k},
		[]open{{k}},
		map[string]open{"x": {k}},
		block,
		hex.EncodeToString(k), base64.StdEncoding.EncodeToString(append([]byte{1}, k...)), k[3:20],
		struct{ hidden any }{k},
		struct{ p *[]byte }{&k}, // fmt follows a pointer that a verb does not fit
	} {
		found := 0
		for _, text := range renderings(v) {
			if leaks(text) != "" {
				found++
			}
		}
		assert.Greater(t, found, 3, "value %d: %v", i, v)
	}
	kp := &k
	for _, v := range []any{fixedBytes(2), "a text", 12, struct{ p **[]byte }{&kp}} {
		for form, text := range renderings(v) {
			assert.Empty(t, leaks(text), form)
		}
	}
}

// fixedBytes returns 32 bytes that no two numbers share, none of which is ever
// part of valid UTF-8 beside another, so that %q and JSON cannot merge them.
func fixedBytes(n int) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = 0x80 + byte((i*(2*n+1)+7*n)%64)
	}
	return b
}

// searcher returns a function that says how one of the keys shows in a text, ""
// if none does. It looks for 9 bytes in a row at every fourth place, which meets
// whole words and each of the three ways in which base64 can be aligned.
func searcher(keys ...[]byte) func(text string) string {
	needles := map[string]string{}
	for _, k := range keys {
		for i := 0; i+9 <= len(k); i += 4 {
			for form, needle := range spellings(k[i : i+9]) {
				needles[needle] = fmt.Sprintf("%s of bytes %d to %d", form, i, i+8)
			}
		}
	}
	return func(text string) string {
		for needle, what := range needles {
			if strings.Contains(text, needle) {
				return what
			}
		}
		return ""
	}
}

// spellings lists the forms in which fmt and the encoders show bytes.
func spellings(b []byte) map[string]string {
	out := map[string]string{
		"raw form":      string(b),
		"hex":           hex.EncodeToString(b),
		"HEX":           strings.ToUpper(hex.EncodeToString(b)),
		"spaced hex":    fmt.Sprintf("% x", b),
		"quoted form":   strings.Trim(strconv.Quote(string(b)), `"`),
		"base64":        base64.StdEncoding.EncodeToString(b),
		"base64url":     base64.URLEncoding.EncodeToString(b),
		"Go syntax":     strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", b), "[]byte{"), "}"),
		"decimal list":  strings.Trim(fmt.Sprint(b), "[]"),
		"comma list":    strings.ReplaceAll(strings.Trim(fmt.Sprint(b), "[]"), " ", ","),
		"hex list":      strings.Trim(fmt.Sprintf("%x", slices.Collect(ints(b))), "[]"),
		"words, big":    words(b, binary.BigEndian, "%d %d"),
		"words, little": words(b, binary.LittleEndian, "%d %d"),
		"words, #v big": words(b, binary.BigEndian, "%#x, %#x"),
		"words, #v":     words(b, binary.LittleEndian, "%#x, %#x"),
		"words, json":   words(b, binary.BigEndian, "%d,%d"),
		"words, json l": words(b, binary.LittleEndian, "%d,%d"),
		"words, x big":  words(b, binary.BigEndian, "%x %x"),
		"words, x":      words(b, binary.LittleEndian, "%x %x"),
	}
	return out
}

func ints(b []byte) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for _, x := range b {
			if !yield(int(x)) {
				return
			}
		}
	}
}

func words(b []byte, order binary.ByteOrder, format string) string {
	return fmt.Sprintf(format, order.Uint32(b), order.Uint32(b[4:]))
}

// variants puts a value where its own methods are not called, or where fmt
// follows other paths.
func variants(v any) []any {
	out := []any{v}
	typ, val := reflect.TypeOf(v), reflect.ValueOf(v)
	if typ.Kind() == reflect.Pointer {
		out = append(out, val.Elem().Interface()) // the struct itself, copied
	} else {
		p := reflect.New(typ)
		p.Elem().Set(val)
		out = append(out, p.Interface())
	}
	for _, x := range slices.Clone(out) {
		typ, val := reflect.TypeOf(x), reflect.ValueOf(x)
		list := reflect.Append(reflect.MakeSlice(reflect.SliceOf(typ), 0, 1), val)
		table := reflect.MakeMap(reflect.MapOf(reflect.TypeFor[string](), typ))
		table.SetMapIndex(reflect.ValueOf("k"), val)
		array := reflect.New(reflect.ArrayOf(1, typ)).Elem()
		array.Index(0).Set(val)
		field := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Field", Type: typ}})).Elem()
		field.Field(0).Set(val)
		out = append(out, list.Interface(), table.Interface(), array.Interface(), field.Interface(), field.Addr().Interface(),
			[]any{x}, map[string]any{"k": x}, struct{ Any any }{x}, struct{ hidden any }{x}, &struct{ hidden any }{x},
			fmt.Errorf("wrapped: %v", x))
	}
	return out
}

// renderings formats, encodes and logs a value in every usual way.
func renderings(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "% x", "%q", "%d", "%#x", "%c", "%U", "%t"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	if b, err := json.Marshal(v); err == nil {
		out["json"] = string(b)
	}
	for name, handler := range map[string]func(io.Writer, *slog.HandlerOptions) slog.Handler{
		"slog text": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) },
		"slog json": func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b, nil)).Info("value", "v", v)
		out[name] = b.String()
	}
	return out
}
