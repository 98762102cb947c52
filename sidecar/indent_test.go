package sidecar_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/sidecar"
)

var (
	goodJSON = []string{
		`null`, `true`, `false`, `0`, `-0`, `12`, `-1.5`, `1e5`, `1E+05`, `0.0e-0`, `""`, `"a"`, `{}`, `[]`, ` [ ] `, "\t{\r\n}",
		`{"a":1}`, `{"a":1,"a":2,"A":3}`, `{"b":[1,[2,{}]],"":{"":null}}`, `[[],[[]],{}]`,
		`"\" \\ \/ \b \f \n \r \t \u00e9 \uD800 \udfff"`, "\"\u00e9\u2028\U0001f511\x7f\"", `"<&>"`,
		`"0123456"`, `"01234567"`, `"012345678"`, `"0123456\"89abcdef\\"`, `[1 , 2]`, ` { "a" : "b" } `,
	}
	badJSON = []string{
		``, ` `, `nul`, `nulll`, `True`, `NaN`, `-`, `+1`, `01`, `-01`, `1.`, `.1`, `1e`, `1e+`, `0x1`, `1_0`,
		`"`, `"\"`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\`, `"\u`, "\"\n\"", "\"\x00\"", "\"\x1f\"", "\"0123456\x1f\"", "\"\xff\"", "\"\xed\xa0\x80\"", `'a'`,
		`[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `]`, `[}`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{a:1}`, `{1:1}`, `{"a" 1}`, `{"a":}`, `{]`,
		`1 2`, `{}{}`, `null,`, "\x00", "null\x00", "\xef\xbb\xbf1", `// 1`, `/**/1`, "\v1", "1\f", "\u00a01",
	}
)

// asIndented is what the standard library makes of a member's value.
func asIndented(t require.TestingT, value []byte) string {
	var b bytes.Buffer
	require.NoError(t, json.Indent(&b, bytes.TrimSpace(value), "  ", "  "))
	return b.String()
}

func asCompact(t require.TestingT, value []byte) string {
	var b bytes.Buffer
	require.NoError(t, json.Compact(&b, value))
	return b.String()
}

func checkState(t require.TestingT, value []byte) {
	text, compact, err := sidecar.State(value)
	require.NoError(t, err)
	require.Equal(t, asIndented(t, value), string(text))
	require.Equal(t, asCompact(t, value), string(compact))
	again, _, err := sidecar.State(compact)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
	back, err := sidecar.ReadState(append(text, ",\n  \"mac\""...))
	require.NoError(t, err)
	require.Equal(t, string(text), string(back))
}

func TestStates(t *testing.T) {
	for _, value := range goodJSON {
		require.True(t, json.Valid([]byte(value)), value)
		checkState(t, []byte(value))
	}
	for _, value := range badJSON {
		require.False(t, json.Valid([]byte(value)) && utf8.ValidString(value), value)
		text, _, err := sidecar.State([]byte(value))
		require.Error(t, err, value)
		require.Nil(t, text)
	}
}

func TestDepthOfStates(t *testing.T) {
	nest := func(n int, inner string) []byte {
		return []byte(strings.Repeat(`{"a":[`, n/2) + inner + strings.Repeat("]}", n/2))
	}
	checkState(t, nest(sidecar.MaxDepth, "1"))
	checkState(t, nest(sidecar.MaxDepth-2, "[],[1],{},[[]]"))
	checkState(t, []byte("["+strings.Repeat("[],[[]],", 1000)+"1]"))
	for _, inner := range []string{"[]", "{}", "[1]"} {
		_, _, err := sidecar.State(nest(sidecar.MaxDepth, inner))
		require.ErrorContains(t, err, "nested more than 64 deep")
	}
}

// drawJSON draws JSON with white space in all the places where it may be.
func drawJSON(t *rapid.T, depth int) string {
	space := func() string { return rapid.SampledFrom([]string{"", "", " ", "\n", "\t \r\n"}).Draw(t, "space") }
	kind := rapid.IntRange(0, 4).Draw(t, "kind")
	if depth == 0 || kind < 3 {
		return space() + rapid.SampledFrom(goodJSON[:12]).Draw(t, "scalar") + space()
	}
	var parts []string
	for range rapid.IntRange(0, 4).Draw(t, "members") {
		v := drawJSON(t, depth-1)
		if kind == 4 {
			name, err := json.Marshal(rapid.String().Draw(t, "name"))
			require.NoError(t, err)
			v = space() + string(name) + space() + ":" + v
		}
		parts = append(parts, v)
	}
	if kind == 4 {
		return "{" + space() + strings.Join(parts, ",") + "}"
	}
	return "[" + space() + strings.Join(parts, ",") + "]" + space()
}

func TestStatesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkState(t, []byte(drawJSON(t, 4)))
	})
}

// Long strings go by eight bytes at a time: a special byte is seen wherever it is.
func TestSpecialBytesInStrings(t *testing.T) {
	for n := range 40 {
		for _, special := range []string{`"`, `\`, "\x00", "\x1f", "\n"} {
			value := []byte(`"` + strings.Repeat("x", n) + special + strings.Repeat("x", 40-n) + `"`)
			_, _, err := sidecar.State(value)
			require.Error(t, err, "%q", value)
		}
		for _, plain := range []string{" ", "!", "#", "[", "]", "\x7f", "\u0080", "\u20ac"} {
			checkState(t, []byte(`"`+strings.Repeat("x", n)+plain+strings.Repeat("x", 40-n)+`"`))
		}
	}
}
