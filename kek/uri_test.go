package kek_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
)

func openURI(t testing.TB, uri string) kek.KEK {
	t.Helper()
	k, err := kek.OpenURI(t.Context(), uri)
	require.NoError(t, err)
	return k
}

func TestOpenURI(t *testing.T) {
	path := kekFile(t, rawKEK(1))
	id := aesKEK(t, rawKEK(1)).ID()
	for _, uri := range []string{"file:" + path, "file://" + path, "file:" + strings.ReplaceAll(path, "e", "%65")} {
		require.Equal(t, id, openURI(t, uri).ID())
	}
	t.Chdir(filepath.Dir(path))
	require.Equal(t, id, openURI(t, "file:key").ID())

	odd := write(t, filepath.Join(t.TempDir(), "a ?&#%=+ü"), rawKEK(1), 0o600)
	require.Equal(t, id, openURI(t, "file:"+escape(odd)).ID())

	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	_, err := kek.OpenURI(t.Context(), "file:"+link)
	require.ErrorIs(t, err, kek.ErrInsecure)
	require.Equal(t, id, openURI(t, "file:"+link+"?symlink=allow").ID())

	t.Setenv(envName, base64.StdEncoding.EncodeToString(rawKEK(1)))
	require.Equal(t, "env:"+strings.TrimPrefix(id, "file:"), openURI(t, "env:"+envName).ID())
	_, err = kek.OpenURI(t.Context(), "env:"+envName)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A passphrase from a file or from a variable, with a newline or without, is that
// of the program.
func TestOpenURIPassphrase(t *testing.T) {
	want := newPassphrase(t, secret)
	params, w, err := want.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	opens := func(uri, id string) {
		t.Helper()
		k := openURI(t, uri)
		require.Equal(t, id, k.ID())
		p, ok := k.(kek.ParamKEK)
		require.True(t, ok)
		got, err := p.UnwrapParams(t.Context(), params, w, nil)
		require.NoError(t, err)
		require.Equal(t, rawKEK(1), got)
	}
	for _, end := range []string{"", "\n", "\r\n"} {
		path := kekFile(t, append(slices.Clone(secret), end...))
		opens("passphrase:?file="+path, "passphrase:default")
		opens("passphrase:ops?file="+escape(path), "passphrase:ops")
		link := path + "-link"
		require.NoError(t, os.Symlink(path, link))
		opens("passphrase:ops?symlink=allow&file="+link, "passphrase:ops")
		_, err := kek.OpenURI(t.Context(), "passphrase:ops?file="+link)
		require.ErrorIs(t, err, kek.ErrInsecure)
	}
	t.Setenv(envName, string(secret))
	opens("passphrase:ops?env="+envName, "passphrase:ops")
	_, set := os.LookupEnv(envName)
	require.False(t, set)

	// Anything else at the end is part of it.
	for _, end := range []string{" ", "\n\n", "\r", "\n "} {
		k := openURI(t, "passphrase:?file="+kekFile(t, append(slices.Clone(secret), end...)))
		_, err := k.(kek.ParamKEK).UnwrapParams(t.Context(), params, w, nil)
		require.ErrorIs(t, err, kek.ErrWrongKey, "%q", end)
	}
	for _, text := range []string{"", "\n", "\r\n"} {
		_, err := kek.OpenURI(t.Context(), "passphrase:?file="+kekFile(t, []byte(text)))
		require.ErrorIs(t, err, kek.ErrBadPassphrase, "%q", text)
	}
	long := kekFile(t, make([]byte, 4097))
	_, err = kek.OpenURI(t.Context(), "passphrase:?file="+long)
	require.ErrorIs(t, err, kek.ErrTooLong)
	require.EqualError(t, err, "kek: file "+long+": file too long: 4097 bytes, want at most 4096")
	if os.Getuid() >= 0 {
		_, err = kek.OpenURI(t.Context(), "passphrase:?file="+write(t, kekFile(t, secret), secret, 0o644))
		require.ErrorIs(t, err, kek.ErrInsecure)
	}
}

func TestOpenURIRefused(t *testing.T) {
	for uri, text := range map[string]string{
		"":                                "no scheme, as in file:PATH",
		"/etc/kek":                        "no scheme, as in",
		":x":                              "no scheme, as in",
		"FILE:x":                          "no scheme, as in",
		"C:\\kek":                         "no scheme, as in",
		"1f:x":                            "no scheme, as in",
		"fi le:x":                         "no scheme, as in",
		"file:a#b":                        "file: byte 0x23 at 6, which is written %23",
		"file:a\nb":                       "byte 0x0a at 6, which is written %0A",
		"file:a%":                         "file: a % stands for itself only as %25",
		"file:a%0":                        "as %25",
		"file:a%zz":                       "as %25",
		"file:a%00":                       "%00 not at all",
		"file:x?symlink=%":                "as %25",
		"file://host/path":                "file: it names a host, want file:PATH or file:///PATH",
		"file://":                         "it names a host",
		"file:x?":                         "want options as name=value",
		"file:x?symlink":                  "want options as name=value",
		"file:x?symlink=allow&":           "want options as name=value",
		"file:x?=allow":                   "want options as name=value",
		"file:x?Symlink=allow":            "want options as name=value",
		"file:x?symlink=a&symlink=a":      "an option is there twice",
		"file:x?mode=0600":                "file: unknown option, want symlink",
		"file:x?symlink=yes":              "symlink: want allow or nothing",
		"env:X?symlink=allow":             "env: unknown option, want none",
		"passphrase:":                     "passphrase: want one of ?file=PATH and ?env=VARIABLE",
		"passphrase:hunter2":              "want one of",
		"passphrase:a?file=f&env=e":       "want one of",
		"passphrase:?env=X&symlink=allow": "passphrase: symlink is about a file",
		"tink-keyset:x":                   "tink-keyset: import github.com/atrestdb/atrest/kek/tinkkek",
		"aws-kms:x":                       "unknown scheme aws-kms, want one of env, file, passphrase",
		"vault-transit:x":                 "unknown scheme vault-transit, want one of",
		"fil:x":                           "unknown scheme, want one of env, file, passphrase",
		"hunter2:foo":                     "unknown scheme, want",
		"passphrase:hunter2 a?file=/x":    "passphrase: want a name of up to 244 printable ASCII characters without spaces",
		"passphrase:?env=hunter2=":        "passphrase: want the name of a variable",
		"env:hunter2/+hunter2=":           "env: want the name of a variable",
	} {
		k, err := kek.OpenURI(t.Context(), uri)
		require.Nil(t, k, uri)
		require.ErrorIs(t, err, kek.ErrURI, uri)
		require.ErrorContains(t, err, text)
		require.True(t, strings.HasPrefix(err.Error(), "kek: bad KEK URI: "), err.Error())
		require.Equal(t, 1, strings.Count(err.Error(), "kek: "), err.Error())
		require.NotContains(t, err.Error(), "hunter2")
	}
	for _, uri := range []string{"file:", "env:"} {
		k, err := kek.OpenURI(t.Context(), uri)
		require.Nil(t, k)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// What is wrong behind an unknown scheme is not what to correct, and "//" is how
// clients of key services write it.
func TestUnknownSchemeIsSaidBeforeItsHost(t *testing.T) {
	for _, uri := range []string{
		"aws-kms://arn:aws:kms:eu-west-1:1:key/k", "gcp-kms://projects/p", "vault-transit://transit/key#1", "hcvault://host/%", "x://host/path",
	} {
		_, err := kek.OpenURI(t.Context(), uri)
		require.ErrorIs(t, err, kek.ErrURI)
		require.ErrorContains(t, err, "unknown scheme", uri)
		require.ErrorContains(t, err, "import github.com/atrestdb/atrest/kek/tinkkek and use its FromKMS", uri)
		require.NotContains(t, err.Error(), "host")
	}
}

// Of a URI that is none an error shows a scheme that is somebody's and nothing else, of
// an unknown one not even that.
func TestURIErrorsShowNothingOfTheURI(t *testing.T) {
	const marker = "zqx" // in none of the texts
	place := rapid.SampledFrom([]string{
		marker, marker + ":", marker + "://", "file:#" + marker, "file:" + marker + "%", "file://" + marker, "file:x?" + marker,
		"file:x?" + marker + "=1", "file:x?symlink=" + marker, "file:x?symlink=" + marker + "&symlink=allow", "env:" + marker + "=", "env:x?a=" + marker,
		"env:x=" + marker, "passphrase:" + marker, "passphrase:" + marker + " ?file=x", "passphrase:" + marker + "%00", "passphrase:?env=" + marker + "=",
		"passphrase:x?file=" + marker + "&env=x", "tink-keyset:" + marker, "aws-kms://" + marker, "aws-kms:x?" + marker,
	})
	rapid.Check(t, func(rt *rapid.T) {
		uri := place.Draw(rt, "uri") + rapid.StringOf(rapid.SampledFrom([]rune(" #\x00"))).Draw(rt, "tail")
		_, err := kek.OpenURI(t.Context(), uri)
		require.ErrorIs(rt, err, kek.ErrURI)
		require.NotContains(rt, err.Error(), marker)
	})
}

func TestRegister(t *testing.T) {
	t.Cleanup(func() { kek.Forget("test-2") })
	failed := errors.New("failed")
	var got []any
	open := func(_ context.Context, path string, options map[string]string) (kek.KEK, error) {
		got = []any{path, options}
		return nil, failed
	}
	kek.Register("test-2", open, "a", "b")
	_, err := kek.OpenURI(t.Context(), "test-2:x:y/z?b=1=2?&a=%26")
	require.Equal(t, failed, err)
	require.Equal(t, []any{"x:y/z", map[string]string{"b": "1=2?", "a": "&"}}, got)
	_, err = kek.OpenURI(t.Context(), "test-2:x?c=1")
	require.ErrorContains(t, err, "unknown option, want a, b")
	_, err = kek.OpenURI(t.Context(), "test:x")
	require.ErrorContains(t, err, "want one of env, file, passphrase, test-2")

	for name, o := range map[string]kek.Opener{
		"file": open, "test-2": open, "": open, "Test": open, "a:b": open, "-a": open, "1": open, "good": nil,
	} {
		require.Panics(t, func() { kek.Register(name, o) }, name)
	}
}

// escape writes a path as it stands in a URI.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == 0x7f || strings.IndexByte("%?#&", c) >= 0 {
			b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15])))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// format writes a URI in one form.
func format(scheme, path string, options map[string]string) string {
	s := scheme + ":"
	if strings.HasPrefix(path, "//") {
		s += "//"
	}
	s += escape(path)
	for i, name := range slices.Sorted(maps.Keys(options)) {
		s += string("?&"[min(i, 1)]) + name + "=" + escape(options[name])
	}
	return s
}

func TestURIRoundTrip(t *testing.T) {
	text := rapid.StringOf(rapid.SampledFrom([]rune("ab/?&#%= +:~\n\x7fü\\")))
	rapid.Check(t, func(rt *rapid.T) {
		scheme := rapid.StringMatching("[a-z][a-z0-9-]{0,9}").Draw(rt, "scheme")
		path := text.Draw(rt, "path")
		options := rapid.MapOf(rapid.StringMatching("[a-z][a-z0-9-]{0,3}"), text).Draw(rt, "options")
		s, p, o, err := kek.ParseURI(format(scheme, path, options))
		require.NoError(rt, err)
		require.Equal(rt, scheme, s)
		require.Equal(rt, path, p)
		require.Equal(rt, options, o)
	})
}

// What parses says the same when it is written again.
func FuzzURI(f *testing.F) {
	f.Add("file:///etc/kek?symlink=allow")
	f.Fuzz(func(t *testing.T, uri string) {
		scheme, path, options, err := kek.ParseURI(uri)
		if err != nil {
			require.ErrorIs(t, err, kek.ErrURI)
			require.NotContains(t, err.Error(), "\n")
			require.Empty(t, scheme+path)
			require.Nil(t, options)
			return
		}
		require.NotContains(t, path, "\x00")
		s, p, o, err := kek.ParseURI(format(scheme, path, options))
		require.NoError(t, err)
		require.Equal(t, []any{scheme, path, options}, []any{s, p, o})
	})
}
