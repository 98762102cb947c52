package kek

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/crypto/argon2"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// Argon2id is a KEK made of a passphrase. What it wraps carries what the key was
// derived with, a [Cost] and a salt, as parameters.
type Argon2id struct {
	id string
	// A func prints as an address, whatever the verb.
	keys func() *derivations
}

var _ ParamKEK = (*Argon2id)(nil)

// passphrasePrefix stands before the name in an id.
const passphrasePrefix = "passphrase:"

// PassphraseOption changes what Passphrase does.
type PassphraseOption func(*passphraseConfig)

type passphraseConfig struct {
	name      string
	cost, max Cost
	salt      salt
}

// WithName sets what follows "passphrase:" in the id, in place of "default". It
// is stored in every container and says nothing about the passphrase; let it not
// be one.
func WithName(name string) PassphraseOption { return func(c *passphraseConfig) { c.name = name } }

// WithCost sets what new wraps cost, in place of 3 passes over 64 MiB by 4
// threads. Older wraps keep theirs until they are made anew.
func WithCost(cost Cost) PassphraseOption { return func(c *passphraseConfig) { c.cost = cost } }

// WithMaxCost sets the cost above which a wrap is not opened, in place of 16
// passes over 256 MiB by 64 threads: the cost is read from a file, and whoever
// wrote it must not get all the memory. It is never below the cost of new wraps.
func WithMaxCost(limit Cost) PassphraseOption { return func(c *passphraseConfig) { c.max = limit } }

// Passphrase makes a KEK of a passphrase, which it copies. Every byte counts: a
// newline at the end, or another encoding of the same letters, is another
// passphrase.
//
// The derivation is slow and takes memory on purpose, and happens once for each
// salt. A KEK wraps with one salt: that of the first wrap of the same cost that
// it opened, else a random one of its own. Derivations run one at a time and
// cannot be interrupted; a call that waits for one ends with its context.
//
// An empty passphrase is [ErrBadPassphrase]; a cost out of bounds is [ErrCost],
// with [ErrWrongKey] or [ErrDenied] where it is that of a wrap, too low or too
// high. In strict FIPS mode, where Argon2id is not approved, it is [ErrFIPS].
func Passphrase(passphrase []byte, opts ...PassphraseOption) (*Argon2id, error) {
	c := passphraseConfig{name: "default", cost: defaultCost, max: defaultMax}
	rand.Read(c.salt[:])
	for _, opt := range opts {
		opt(&c)
	}
	refuse := func(err error) error { return &SourceError{Source: "passphrase", Name: c.name, Err: err} }
	if fips140.Enforced() {
		return nil, refuse(fmt.Errorf("%w: Argon2id", ErrFIPS))
	}
	id := passphrasePrefix + c.name
	if err := key.CheckKEKID(id); err != nil {
		return nil, refuse(err)
	}
	if len(passphrase) == 0 {
		return nil, refuse(fmt.Errorf("%w: it is empty", ErrBadPassphrase))
	}
	if err := c.cost.checkMin(); err != nil {
		return nil, refuse(err)
	}
	d := &derivations{
		passphrase: bytes.Clone(passphrase),
		cost:       c.cost,
		max:        c.max.atLeast(c.cost),
		turn:       make(chan struct{}, 1),
		most:       maxDerived,
		own:        newParams(c.cost, c.salt),
	}
	return &Argon2id{id: id, keys: func() *derivations { return d }}, nil
}

// ID returns "passphrase:" and the name.
func (a *Argon2id) ID() string {
	if a == nil {
		return ""
	}
	return a.id
}

func (a *Argon2id) held() (*derivations, error) {
	if a == nil || a.keys == nil {
		return nil, errZero
	}
	return a.keys(), nil
}

// WrapParams returns the parameters, 26 bytes, and nonce, ciphertext and tag: 60
// bytes. The parameters are part of the associated data.
func (a *Argon2id) WrapParams(ctx context.Context, plaintext, ad []byte) (params, wrapped []byte, err error) {
	if err := checkPlaintext(plaintext); err != nil {
		return nil, nil, err
	}
	d, err := a.held()
	if err != nil {
		return nil, nil, err
	}
	p := d.current()
	g, err := d.derive(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	if wrapped, err = g.wrap(ctx, plaintext, p.aad(ad)); err != nil {
		return nil, nil, err
	}
	return p[:], wrapped, nil
}

// UnwrapParams opens what WrapParams made with the same ad, and without
// parameters, what Wrap made.
func (a *Argon2id) UnwrapParams(ctx context.Context, params, wrapped, ad []byte) ([]byte, error) {
	if len(params) == 0 {
		return a.Unwrap(ctx, wrapped, ad)
	}
	// What cannot open is refused before it costs a derivation.
	p, err := parseParams(params)
	if err != nil {
		return nil, err
	}
	if err := checkWrap(wrapped, wrapSize); err != nil {
		return nil, err
	}
	d, err := a.held()
	if err != nil {
		return nil, err
	}
	if err := p.cost().checkMax(d.max); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	g, err := d.derive(ctx, p)
	if err != nil {
		return nil, err
	}
	out, err := g.unwrap(ctx, wrapped, p.aad(ad))
	if err != nil {
		return nil, err
	}
	d.opened(p)
	return out, nil
}

// Wrap returns parameters and wrap in one, for callers that have no place for
// parameters: 86 bytes.
func (a *Argon2id) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	p, w, err := a.WrapParams(ctx, plaintext, ad)
	if err != nil {
		return nil, err
	}
	return append(p, w...), nil
}

// Unwrap opens what Wrap made with the same ad.
func (a *Argon2id) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := checkWrap(wrapped, paramsSize+wrapSize); err != nil {
		return nil, err
	}
	return a.UnwrapParams(ctx, wrapped[:paramsSize], wrapped[paramsSize:], ad)
}

// maxDerived bounds how many keys are kept, one for each salt that is met.
const maxDerived = 64

// derivations are the keys that a passphrase gives under one salt or another.
type derivations struct {
	passphrase []byte
	cost, max  Cost
	turn       chan struct{} // held by who derives, so that one at a time takes the memory
	most       int           // how many keys are kept

	mu      sync.Mutex
	own     params // of new wraps
	settled bool   // own is that of a wrap that was opened
	derived []derived
}

type derived struct {
	params params
	key    gcm
}

// derive returns the key under p, which is within all bounds.
func (d *derivations) derive(ctx context.Context, p params) (gcm, error) {
	if g := d.find(p); g != nil {
		return g, nil
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	if g := d.find(p); g != nil { // somebody else's turn made it
		return g, nil
	}
	if err := ended(ctx); err != nil {
		return nil, err
	}
	c := p.cost()
	g, err := newGCM(argon2.IDKey(d.passphrase, p.salt(), c.Time, c.Memory, c.Threads, secret.Size))
	if err != nil {
		return nil, err
	}
	d.keep(derived{params: p, key: g})
	return g, nil
}

func (d *derivations) find(p params) gcm {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.IndexFunc(d.derived, func(x derived) bool { return x.params == p }); i >= 0 {
		return d.derived[i].key
	}
	return nil
}

// keep drops the oldest key where there are too many, but never that of new
// wraps.
func (d *derivations) keep(x derived) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.derived) == d.most {
		i := slices.IndexFunc(d.derived, func(o derived) bool { return o.params != d.own })
		d.derived = slices.Delete(d.derived, i, i+1)
	}
	d.derived = append(d.derived, x)
}

// current returns the parameters of new wraps.
func (d *derivations) current() params {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.own
}

// opened makes new wraps share the salt of the first that was opened, so that the
// wraps of many processes do not cost one derivation for each process. Only who
// knows the passphrase made it.
func (d *derivations) opened(p params) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.settled && p != d.own && p.cost() == d.cost {
		d.own, d.settled = p, true
	}
}
