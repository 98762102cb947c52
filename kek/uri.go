package kek

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/atrestdb/atrest/key"
)

// Opener makes a KEK out of what stands behind the scheme of a URI. Only options
// that were registered with it come up, each at most once.
type Opener func(ctx context.Context, path string, options map[string]string) (KEK, error)

type scheme struct {
	open    Opener
	options []string
}

var (
	schemesMu sync.RWMutex
	schemes   = map[string]scheme{
		"file":       {openFile, []string{"symlink"}},
		"env":        {openEnv, nil},
		"passphrase": {openPassphrase, []string{"file", "env", "symlink"}},
	}
)

// Names that are nobody's secret, so that errors may show them.
const (
	tinkPackage = "github.com/atrestdb/atrest/kek/tinkkek"
	tinkScheme  = "tink-keyset" // which it registers
)

// services are schemes by which Tink and others name keys in key services. They are
// none here.
var services = []string{"aws-kms", "azure-kms", "gcp-kms", "hcvault", "vault-transit"}

// Register makes OpenURI know a scheme, lower-case letters, digits and hyphens,
// and the options it takes. Packages that have KEKs of their own call it when
// they are initialised. It panics where the scheme is bad or known already.
func Register(name string, open Opener, options ...string) {
	schemesMu.Lock()
	defer schemesMu.Unlock()
	if !isWord(name) || open == nil {
		panic(fmt.Sprintf("kek: register scheme %q: bad name or no opener", name))
	}
	if _, ok := schemes[name]; ok {
		panic("kek: scheme registered twice: " + name)
	}
	schemes[name] = scheme{open, options}
}

// OpenURI makes the KEK that a URI names, as from a configuration file:
//
//	file:PATH                     File
//	env:NAME                      Env
//	passphrase:NAME?file=PATH     Passphrase, read from a file under the checks of File
//	passphrase:NAME?env=VARIABLE  Passphrase, read from a variable, which is unset
//	tink-keyset:PATH              a Tink keyset; import package kek/tinkkek
//
// With symlink=allow, PATH may be a symbolic link. The NAME of a passphrase is
// that of [WithName], "default" if there is none; of one that is read from a file,
// a newline at the end is no part.
//
// Percent-encoding is undone everywhere; a path that holds %, ? or # needs it, as
// %25, %3F, %23, and so does & in an option. "file:///path" is "file:/path".
//
// Keys in key services have no scheme of their own: see FromKMS in package
// kek/tinkkek.
//
// What is no URI of this kind, an option that the scheme does not take, and an
// unknown scheme are [ErrURI]. People paste secrets into the wrong field, so such an
// error shows nothing of the URI but a scheme that is registered or a well-known one of
// key services, and which byte is wrong where; an unknown scheme may be a
// password with a colon. Once the URI is good, errors name the file, the variable or
// the passphrase that it names.
func OpenURI(ctx context.Context, uri string) (KEK, error) {
	name, rest, err := cutScheme(uri)
	if err != nil {
		return nil, err
	}
	// First of all: what is wrong behind an unknown scheme is nothing to correct.
	s, err := schemeOf(name)
	if err != nil {
		return nil, err
	}
	u, err := parseRest(name, rest)
	if err != nil {
		return nil, err
	}
	for name := range u.options {
		if !slices.Contains(s.options, name) {
			return nil, u.bad("unknown option, want %s", orNone(s.options))
		}
	}
	return s.open(ctx, u.path, u.options)
}

func schemeOf(name string) (scheme, error) {
	schemesMu.RLock()
	defer schemesMu.RUnlock()
	if s, ok := schemes[name]; ok {
		return s, nil
	}
	if name == tinkScheme {
		return scheme{}, fmt.Errorf("kek: %w: %s: import %s", ErrURI, name, tinkPackage)
	}
	shown := ""
	if slices.Contains(services, name) {
		shown = " " + name
	}
	return scheme{}, fmt.Errorf("kek: %w: unknown scheme%s, want one of %s; for a key in a service import %s and use its FromKMS",
		ErrURI, shown, strings.Join(slices.Sorted(maps.Keys(schemes)), ", "), tinkPackage)
}

func orNone(options []string) string {
	if len(options) == 0 {
		return "none"
	}
	return strings.Join(options, ", ")
}

func openFile(_ context.Context, path string, options map[string]string) (KEK, error) {
	opts, err := FileOptions(options)
	if err != nil {
		return nil, err
	}
	return notNil(File(path, opts...))
}

func openEnv(_ context.Context, path string, _ map[string]string) (KEK, error) {
	if err := checkVariable("env", path); err != nil {
		return nil, err
	}
	return notNil(Env(path))
}

// checkVariable refuses what names no variable and could be the value of one, which
// in base64 of 32 bytes ends with =. An empty name is left to who looks it up.
func checkVariable(scheme, name string) error {
	for _, c := range []byte(name) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return uri{scheme: scheme}.bad("want the name of a variable, of letters, digits and any of _-.")
		}
	}
	return nil
}

// maxPassphrase bounds a file that is read for a passphrase.
const maxPassphrase = 4096

func openPassphrase(_ context.Context, name string, options map[string]string) (KEK, error) {
	file, isFile := options["file"]
	env, isEnv := options["env"]
	opts, err := FileOptions(options)
	if err != nil {
		return nil, err
	}
	if name != "" && key.CheckKEKID(passphrasePrefix+name) != nil {
		return nil, uri{scheme: "passphrase"}.bad("want a name of up to %d printable ASCII characters without spaces",
			key.MaxKEKID-len(passphrasePrefix))
	}
	var raw []byte
	switch {
	case isFile == isEnv:
		return nil, fmt.Errorf("kek: %w: passphrase: want one of ?file=PATH and ?env=VARIABLE", ErrURI)
	case isFile:
		if raw, err = ReadFile(file, maxPassphrase, opts...); err != nil {
			return nil, err
		}
		raw = trimNewline(raw)
	case len(opts) != 0:
		return nil, fmt.Errorf("kek: %w: passphrase: symlink is about a file", ErrURI)
	default:
		if err := checkVariable("passphrase", env); err != nil {
			return nil, err
		}
		value, err := takeEnv(env)
		if err != nil {
			return nil, err
		}
		raw = []byte(value)
	}
	var popts []PassphraseOption
	if name != "" {
		popts = append(popts, WithName(name))
	}
	return notNil(Passphrase(raw, popts...))
}

// trimNewline cuts off the one that editors and echo put at the end.
func trimNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n > 1 && b[n-2] == '\r' {
			b = b[:n-2]
		}
	}
	return b
}

// FileOptions turns the option symlink=allow of a URI into that of [File], for
// openers that read files.
func FileOptions(options map[string]string) ([]FileOption, error) {
	switch v, ok := options["symlink"]; {
	case !ok:
		return nil, nil
	case v == "allow":
		return []FileOption{AllowSymlink()}, nil
	}
	return nil, fmt.Errorf("kek: %w: symlink: want allow or nothing", ErrURI)
}

// notNil keeps a nil pointer from becoming a KEK that is not nil.
func notNil[K KEK](k K, err error) (KEK, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}

// uri is scheme ":" path [ "?" name "=" value *( "&" name "=" value ) ].
type uri struct {
	scheme  string
	path    string
	options map[string]string
}

func (u uri) bad(format string, args ...any) error {
	return fmt.Errorf("kek: %w: %s: %w", ErrURI, u.scheme, fmt.Errorf(format, args...))
}

func cutScheme(s string) (name, rest string, err error) {
	name, rest, ok := strings.Cut(s, ":")
	if !ok || !isWord(name) {
		return "", "", fmt.Errorf("kek: %w: no scheme, as in file:PATH", ErrURI)
	}
	return name, rest, nil
}

// parseRest reads what stands behind the scheme.
func parseRest(name, rest string) (uri, error) {
	u := uri{scheme: name, options: map[string]string{}}
	for i := range len(rest) {
		if c := rest[i]; c < ' ' || c == 0x7f || c == '#' {
			return uri{}, u.bad("byte %#02x at %d, which is written %%%02X", c, len(name)+1+i, c)
		}
	}
	path, query, asks := strings.Cut(rest, "?")
	if after, ok := strings.CutPrefix(path, "//"); ok {
		if !strings.HasPrefix(after, "/") {
			return uri{}, u.bad("it names a host, want %s:PATH or %s:///PATH", name, name)
		}
		path = after
	}
	var err error
	if u.path, err = unescape(path); err != nil {
		return uri{}, u.bad("%w", err)
	}
	if !asks {
		return u, nil
	}
	for option := range strings.SplitSeq(query, "&") {
		k, v, ok := strings.Cut(option, "=")
		if !ok || !isWord(k) {
			return uri{}, u.bad("want options as name=value")
		}
		if _, twice := u.options[k]; twice {
			return uri{}, u.bad("an option is there twice")
		}
		if u.options[k], err = unescape(v); err != nil {
			return uri{}, u.bad("%w", err)
		}
	}
	return u, nil
}

var errEscape = fmt.Errorf("a %% stands for itself only as %%25, and %%00 not at all")

func unescape(s string) (string, error) {
	out, err := url.PathUnescape(s)
	if err != nil || strings.IndexByte(out, 0) >= 0 {
		return "", errEscape
	}
	return out, nil
}

// isWord reports whether s is a lower-case letter and more of these, digits or
// hyphens.
func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
