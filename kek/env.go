package kek

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"

	"github.com/atrestdb/atrest/internal/secret"
)

// Env reads a KEK from an environment variable that holds 32 bytes in base64 (the
// standard alphabet, padded), and unsets the variable, whether it is good or not:
// children do not inherit it.
//
// It is for tests. On Linux the environment that a process was started with stays
// readable in /proc, and on most systems root can list it; use [File] or a key
// service where it matters.
//
// A variable that is not set matches fs.ErrNotExist; anything but 32 bytes in
// base64 is [ErrBadKey]. The id is "env:" and 16 hexadecimal digits derived from
// the key.
func Env(name string) (*AES, error) {
	refuse := func(err error) error { return &SourceError{Source: "env", Name: name, Err: err} }
	value, err := takeEnv(name)
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(value)
	if err != nil {
		return nil, refuse(fmt.Errorf("%w: it is not padded base64", ErrBadKey))
	}
	if len(raw) != secret.Size {
		return nil, refuse(fmt.Errorf("%w: %d bytes in base64, want %d", ErrBadKey, len(raw), secret.Size))
	}
	k, err := newAES("env", raw)
	if err != nil {
		return nil, refuse(err)
	}
	return k, nil
}

// takeEnv reads a variable and unsets it.
func takeEnv(name string) (string, error) {
	value, ok := os.LookupEnv(name)
	if !ok {
		return "", &SourceError{Source: "env", Name: name, Err: unsetError{}}
	}
	if err := os.Unsetenv(name); err != nil {
		return "", &SourceError{Source: "env", Name: name, Err: err}
	}
	return value, nil
}

// unsetError is fs.ErrNotExist in the words of variables.
type unsetError struct{}

func (unsetError) Error() string { return "not set, or read before, which unsets it" }
func (unsetError) Unwrap() error { return fs.ErrNotExist }
