// Package kek wraps and unwraps keys under key encryption keys (KEKs), which
// live outside the data directory: in a file, in a key service.
//
// Get a KEK from [File], [Passphrase] ([Env] for tests) or, whichever the operator
// names, [OpenURI]; package kek/tinkkek has those of Tink; or implement [KEK] over
// a key service.
// Ask [Verify] at start-up whether it works. [NewSet] puts one or several
// together; [Set.WrapDEK] and [Set.UnwrapDEK] turn a DEK into a container that
// any one of them opens, and back. Package kek/kektest has a scripted KEK for
// tests.
//
// # Errors
//
// Each says what the caller may do. [ErrUnreachable]: try again. [ErrDenied]: an
// operator must look at credentials or policy. [ErrWrongKey]: final, the KEK does
// not open this, or is gone. An error matches one of the three at most; where
// several KEKs were asked and failed, it is the most hopeful. [ErrFaulty]: the KEK
// answers, but wrongly, and must not be used. Where a context ended, the error
// matches the context's error as well as ErrUnreachable.
//
// What a KEK sees of a key's header is drawn in package key; docs/FORMATS.md has
// the bytes.
package kek

import "context"

// KEK wraps and unwraps keys of 32 bytes. It is safe for concurrent use.
//
// An implementation passes on the context, and binds ad: Unwrap gives the key
// only to who presents the bytes given to Wrap. It neither keeps nor changes the
// slices it is given; what it returns belongs to the caller. Its errors wrap
// [ErrUnreachable], [ErrDenied] or [ErrWrongKey]; any other counts as
// ErrUnreachable, because nobody said that it was final.
type KEK interface {
	// ID names the key, not its bytes, and never changes: 1 to 255 printable ASCII
	// characters without spaces. It is stored in every container and not secret.
	ID() string
	// Wrap returns the wrapped key: 1 to 4096 bytes.
	Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error)
	// Unwrap returns the key that Wrap was given. Whatever it cannot open, changed
	// bytes or another ad included, is ErrWrongKey.
	Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error)
}

// ParamKEK is a KEK whose wraps need parameters to be opened, such as a salt. It
// is found by type assertion: a [Set] stores the parameters beside the wrap, and
// does not call Wrap and Unwrap, which are for callers that know no parameters.
// Who puts something around such a KEK passes these methods on.
type ParamKEK interface {
	KEK
	// WrapParams returns the wrapped key, 1 to 4096 bytes, and what UnwrapParams
	// needs beside it, at most 1024 bytes.
	WrapParams(ctx context.Context, plaintext, ad []byte) (params, wrapped []byte, err error)
	// UnwrapParams returns the key that WrapParams was given. It binds params as it
	// binds ad: with any others the answer is ErrWrongKey. It bounds what they make
	// it do, because anybody may have written them.
	UnwrapParams(ctx context.Context, params, wrapped, ad []byte) ([]byte, error)
}
