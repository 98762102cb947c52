package kek

import "os"

// NewAES makes a KEK of given bytes.
var NewAES = newAES

// AsUser reads a file as if the process belonged to this user.
func AsUser(uid int) FileOption { return func(c *fileConfig) { c.euid = uid } }

// Opened runs between the opening of a file and its checks.
func Opened(f func(*os.File)) FileOption { return func(c *fileConfig) { c.opened = f } }

// WithSalt fixes the salt of new wraps.
func WithSalt(s [16]byte) PassphraseOption { return func(c *passphraseConfig) { c.salt = s } }

// Derived returns how many keys were derived and kept.
func Derived(a *Argon2id) int {
	d := a.keys()
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.derived)
}

// KeepDerived sets how many keys are kept at most.
func KeepDerived(a *Argon2id, n int) { a.keys().most = n }

// HoldDerivations keeps a derivation from starting until release is called.
func HoldDerivations(a *Argon2id) (release func()) {
	a.keys().turn <- struct{}{}
	return func() { <-a.keys().turn }
}

// ParseParams returns what parameters say.
func ParseParams(b []byte) (Cost, []byte, error) {
	p, err := parseParams(b)
	if err != nil {
		return Cost{}, nil, err
	}
	return p.cost(), p.salt(), nil
}

// NewParams makes parameters.
func NewParams(c Cost, s [16]byte) []byte {
	p := newParams(c, s)
	return p[:]
}

// ParseURI takes a URI apart.
func ParseURI(s string) (scheme, path string, options map[string]string, err error) {
	name, rest, err := cutScheme(s)
	if err != nil {
		return "", "", nil, err
	}
	u, err := parseRest(name, rest)
	return u.scheme, u.path, u.options, err
}

// Forget undoes Register.
func Forget(scheme string) {
	schemesMu.Lock()
	defer schemesMu.Unlock()
	delete(schemes, scheme)
}
