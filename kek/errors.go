package kek

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What became of a call to a KEK. Implementations of [KEK] wrap the first three.
var (
	ErrUnreachable = errors.New("KEK unreachable")
	ErrDenied      = errors.New("KEK denied access")
	ErrWrongKey    = errors.New("wrong KEK")
	ErrFaulty      = errors.New("faulty KEK")
)

// Other refusals.
var (
	// ErrOtherNode is returned for the file key of another node.
	ErrOtherNode = errors.New("file key of another node")
	// ErrInsecure is returned for a KEK file that others may read or replace, or
	// that is no regular file.
	ErrInsecure = errors.New("insecure KEK file")
	// ErrBadKey is returned by File and Env for anything but 32 bytes, and for 32
	// zeros, which a file is that lost its contents. So do the methods of a KEK of this
	// package that is nil or a zero value.
	ErrBadKey = errors.New("not a 32-byte KEK")
	// ErrTooLong is returned by ReadFile for a file beyond the limit.
	ErrTooLong = errors.New("file too long")
	// ErrBadPassphrase is returned for an empty passphrase.
	ErrBadPassphrase = errors.New("no usable passphrase")
	// ErrCost is returned for a Cost that is too low, or too high to be paid on the
	// word of a file.
	ErrCost = errors.New("cost of Argon2id out of bounds")
	// ErrFIPS is returned in strict FIPS mode (GODEBUG=fips140=only) for a KEK whose
	// algorithm is not approved.
	ErrFIPS = errors.New("not allowed in strict FIPS mode")
	// ErrRecipient is returned for a recipient that cannot be added or removed.
	ErrRecipient = errors.New("recipients stay as they are")
	// ErrURI is returned by OpenURI for what is no URI of a KEK, or of a scheme that
	// nobody registered.
	ErrURI = errors.New("bad KEK URI")
	// ErrConfig is returned by NewSet.
	ErrConfig = errors.New("bad set of KEKs")
)

// errZero is what a KEK answers that nobody made.
var errZero = fmt.Errorf("kek: %w: it is nil or a zero value", ErrBadKey)

var advice = map[error]string{
	ErrUnreachable: "try again",
	ErrDenied:      "check its credentials and policy",
	ErrWrongKey:    "configure or restore the KEK that wrapped the key",
	ErrFaulty:      "do not use this KEK",
}

// kindOf classifies an error of a KEK. One that could be several is the most
// hopeful.
func kindOf(err error) error {
	for _, kind := range []error{ErrUnreachable, ErrDenied, ErrWrongKey} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return ErrUnreachable
}

// Error is the failure of one KEK. It matches Kind, and Err unless that would
// match another kind.
type Error struct {
	KEK  string // its id
	Op   string // what it was asked for
	Kind error  // ErrUnreachable, ErrDenied, ErrWrongKey or ErrFaulty
	Err  error  // what happened
}

// failed makes the error of a KEK out of its answer.
func failed(id, op string, err error) *Error {
	return &Error{KEK: id, Op: op, Kind: kindOf(err), Err: err}
}

func faulty(id, op, format string, args ...any) *Error {
	return &Error{KEK: id, Op: op, Kind: ErrFaulty, Err: fmt.Errorf(format, args...)}
}

func (e *Error) Error() string {
	return fmt.Sprintf("kek: %s: KEK %s: %s; %s", e.Op, e.KEK, e.what(), advice[e.Kind])
}

// what says what happened, with the kind in it.
func (e *Error) what() string {
	if text := e.Err.Error(); strings.Contains(text, e.Kind.Error()) {
		return text
	}
	return fmt.Sprintf("%v: %v", e.Kind, e.Err)
}

// Unwrap makes errors.Is and errors.As work.
func (e *Error) Unwrap() []error {
	for kind := range advice {
		if kind != e.Kind && errors.Is(e.Err, kind) {
			return []error{e.Kind}
		}
	}
	return []error{e.Kind, e.Err}
}

// UnwrapError says that no KEK opened a container. It matches Kind, and what the
// KEKs of that kind said.
type UnwrapError struct {
	Key    string   // which key the container holds, in words
	Kind   error    // ErrUnreachable, ErrDenied or ErrWrongKey
	Failed []*Error // the KEKs that were asked, in this order
	Absent []string // ids of KEKs that the container names and the set does not have
}

// Final reports whether trying again with the same KEKs is useless: every one of
// them gave a final answer.
func (e *UnwrapError) Final() bool { return e.Kind == ErrWrongKey }

func newUnwrapError(what string, tried []*Error, absent []string) *UnwrapError {
	e := &UnwrapError{Key: what, Kind: ErrWrongKey, Failed: tried, Absent: absent}
	for _, kind := range []error{ErrDenied, ErrUnreachable} {
		if slices.ContainsFunc(tried, func(t *Error) bool { return t.Kind == kind }) {
			e.Kind = kind
		}
	}
	return e
}

func (e *UnwrapError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kek: no KEK opens %s: ", e.Key)
	for _, t := range e.Failed {
		fmt.Fprintf(&b, "KEK %s: %s; ", t.KEK, t.what())
	}
	for _, id := range e.Absent {
		fmt.Fprintf(&b, "KEK %s: not configured here; ", id)
	}
	b.WriteString(advice[e.Kind])
	return b.String()
}

// Unwrap makes errors.Is and errors.As work.
func (e *UnwrapError) Unwrap() []error {
	out := []error{e.Kind}
	for _, t := range e.Failed {
		if t.Kind == e.Kind {
			out = append(out, t)
		}
	}
	return out
}
