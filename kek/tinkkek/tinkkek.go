// Package tinkkek makes KEKs of what Tink has: keysets, AEADs and the clients of
// key services. It is the one package of the module that links Tink, and importing
// it teaches [kek.OpenURI] the scheme tink-keyset.
//
// A keyset in a file, encrypted under a key service or another AEAD:
// [EncryptedFile]. A key in a service for which there is a Tink client: [FromKMS].
// A keyset that is already open: [FromHandle]. Anything else: [New].
//
// # Rotation of keysets
//
// A keyset opens what any of its keys wrapped, so rotating it needs no rewrap,
// provided that the KEK keeps its id: give it one by [WithID]. Without, the id is
// that of the primary key, and a new primary makes another KEK.
//
// # Calls
//
// Tink's older AEADs take no context. Theirs run in goroutines of their own, and a
// call whose context ends is left behind: see [WithContext].
//
// # Errors
//
// What a keyset in memory does not open is kek.ErrWrongKey. A service says why in
// ways of its own; those of AWS, Google Cloud and Vault are understood as far as
// they are certain, and whatever is not is no final answer. [WithErrors] adds to
// that.
//
// # Strict FIPS mode
//
// Under GODEBUG=fips140=only Tink's AES-GCM, X-AES-GCM and ChaCha20-Poly1305 do
// not work and AES-GCM-SIV is not approved. A keyset with a key of these is refused
// with kek.ErrFIPS; one of AES-CTR-HMAC keys works.
package tinkkek

import (
	"cmp"
	"context"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
)

// KEK is a [kek.KEK] over an AEAD of Tink. A wrap is the AEAD's ciphertext, and
// the header of the container its associated data.
type KEK struct {
	id string
	// A func prints as an address, whatever the verb.
	aead   func() tink.AEADWithContext
	wrap   []func(error) error // who knows what an error means
	unwrap []func(error) error
}

var _ kek.KEK = (*KEK)(nil)

// Option changes what the functions of this package do.
type Option func(*config)

type config struct {
	name  string // in errors, in place of the id
	id    string
	files []kek.FileOption
	errs  func(error) error
}

// WithID sets the id of the KEK.
func WithID(id string) Option { return func(c *config) { c.id = id } }

// WithFile sets how a keyset's file is checked.
func WithFile(opts ...kek.FileOption) Option { return func(c *config) { c.files = opts } }

// WithErrors names a function that is shown each error of the AEAD first. It
// returns kek.ErrUnreachable, kek.ErrDenied or kek.ErrWrongKey, or nil for errors
// that it leaves to this package.
func WithErrors(kindOf func(error) error) Option { return func(c *config) { c.errs = kindOf } }

func newConfig(opts []Option) config {
	c := config{errs: func(error) error { return nil }}
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// New returns a KEK over an AEAD, as that of a key service; [WithContext] makes
// one of an AEAD that takes no context. Nothing is called: ask [kek.Verify] whether
// it works, in strict FIPS mode above all.
func New(id string, a tink.AEADWithContext, opts ...Option) (*KEK, error) {
	c := newConfig(opts)
	c.id = id
	return c.kek(a, remote)
}

// kek makes a KEK. The last to know what it means that something does not open is
// kindOf.
func (c config) kek(a tink.AEADWithContext, kindOf func(error) error) (*KEK, error) {
	if a == nil {
		return nil, c.refuse(errNoAEAD)
	}
	if err := key.CheckKEKID(c.id); err != nil {
		return nil, c.refuse(err)
	}
	return &KEK{
		id:     c.id,
		aead:   func() tink.AEADWithContext { return a },
		wrap:   []func(error) error{c.errs, remote},
		unwrap: []func(error) error{c.errs, kindOf},
	}, nil
}

func (c config) refuse(err error) error {
	return &kek.SourceError{Source: "tink", Name: cmp.Or(c.name, c.id, "keyset"), Err: err}
}

// ID returns the id that was given or derived.
func (k *KEK) ID() string {
	if k == nil {
		return ""
	}
	return k.id
}

// check refuses a KEK that nobody made.
func (k *KEK) check() error {
	if k == nil || k.aead == nil {
		return config{}.refuse(errNoAEAD)
	}
	return nil
}

// Wrap encrypts.
func (k *KEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	out, err := k.aead().EncryptWithContext(ctx, plaintext, ad)
	if err != nil {
		return nil, explain(ctx, err, k.wrap...)
	}
	return out, nil
}

// Unwrap decrypts.
func (k *KEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	out, err := k.aead().DecryptWithContext(ctx, wrapped, ad)
	if err != nil {
		return nil, explain(ctx, err, k.unwrap...)
	}
	return out, nil
}
