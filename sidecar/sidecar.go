// Package sidecar keeps keys.json, the one file of encryption state in a node's
// data directory: what is private to the node (its id, the epochs it has used, the
// usage it has reserved, how far it has looked through the log), and the
// replicated key state, which is opaque here.
//
// [Create] makes the file of a new node and [Open] reads the one that is there;
// both take an exclusive lock, which [File.Close] releases. [File.Update] changes
// it in a transaction: what it set is durable before Update returns nil and
// before any reader sees it. A crash at any instant leaves the file as it was
// before an Update or after it.
//
// The file is readable JSON and cannot be edited: every byte is covered by a MAC
// under the file key, a random key that belongs to this file, is used for
// nothing else and rests in the file itself, wrapped under the key encryption
// keys (KEKs) of a [KeyWrapper]. A file of another node, with another file's key
// or changed in any way is refused. Two things cannot be noticed here: an older
// copy of the same file, put back whole, which is authentic; and a whole file
// made by somebody who may wrap under one of the KEKs.
//
// The caller guarantees that a directory's file is changed only through this
// package, and acts as [ErrPoisoned] says. docs/FORMATS.md draws the file; it
// stays compatible within its version.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
)

const (
	// FileName is the name of the file in its directory. The lock is taken on
	// a file beside it, of this name and ".lock".
	FileName = "keys.json"
	// MaxSize bounds the file, in bytes.
	MaxSize = 64 << 20
)

// What can be wrong with the file. No retry helps; an operator decides. All
// errors of this package name the file.
var (
	// ErrVersion says that another version of this library wrote the file.
	ErrVersion = errors.New("version of keys.json is not supported")
	// ErrMalformed says that the file is not as this library writes it.
	ErrMalformed = errors.New("malformed keys.json")
	// ErrMAC says that the file was changed by something else than this
	// library, or put together from several files.
	ErrMAC = errors.New("MAC of keys.json does not match")
	// ErrOtherNode says that the file belongs to another node.
	ErrOtherNode = errors.New("keys.json of another node")
	// ErrInsecureMode says that others than the owner may use the file.
	ErrInsecureMode = errors.New("insecure mode of keys.json")
	// ErrFileKey says that no configured KEK opens the file key and that none
	// will if asked again. The file is as good as lost. A KEK that could not
	// be asked gives an error of its own, which does not match this one.
	ErrFileKey = errors.New("no configured KEK opens the file key")
)

// What can be wrong with a change. Nothing was changed.
var (
	// ErrPoisoned says that the outcome of a write is unknown, of this one or
	// an earlier one: it may be there now, and it may be gone after a power
	// loss. Whatever depends on it must stop. Close the File and open it
	// again; the file is then one or the other for good. This is the one
	// error after which the change may have happened.
	ErrPoisoned = errors.New("outcome of a write is unknown; close and open keys.json again")
	// ErrEpochLowered refuses an epoch below the one that is recorded.
	ErrEpochLowered = errors.New("an epoch cannot be lowered")
	// ErrState refuses a state that is not valid JSON.
	ErrState = errors.New("state is not valid JSON")
	// ErrTooLarge says that the file is, or would get, larger than MaxSize.
	ErrTooLarge = errors.New("keys.json too large")
	// ErrClosed says that the File, or the transaction, has ended.
	ErrClosed = errors.New("already closed")
)

// KeyWrapper wraps the file key for one node under all configured KEKs, and
// unwraps it, in the form of a [key.FileContainer]. Its methods may be called from
// several goroutines and do not keep a container that they are given.
//
// An error of UnwrapFileKey that has a method Final() bool, itself or somewhere
// in its chain, which returns true says that asking again will not help: it
// becomes [ErrFileKey]. Any other error may pass.
type KeyWrapper interface {
	// WrapFileKey returns a container that names node and the KEKs.
	WrapFileKey(ctx context.Context, node uint64, k key.DEK) (container []byte, err error)
	// UnwrapFileKey refuses a container that names another node.
	UnwrapFileKey(ctx context.Context, node uint64, container []byte) (key.DEK, error)
	// FileKeyCurrent reports whether the KEKs of a container are those that
	// are configured.
	FileKeyCurrent(container []byte) bool
}

// Usage is how much of a DEK is spoken for: the seals, and the bytes of
// plaintext in them.
type Usage struct{ Seals, Bytes uint64 }

// LockedError says that another process, or this one, has the file open. PID is
// 0 if the holder is not known.
type LockedError struct {
	Path string // of keys.json
	PID  int
	Err  error
}

func (e *LockedError) Error() string {
	holder := "another process"
	if e.PID != 0 {
		holder = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("sidecar: %s is in use by %s; two processes of one node must not run at once: end that one first", e.Path, holder)
}

// Unwrap returns the error of the lock.
func (e *LockedError) Unwrap() error { return e.Err }

// pathError is an error about the file at path and what can be done about it.
func pathError(path string, err error) error {
	where := path + ": "
	if strings.Contains(err.Error(), path) {
		where = ""
	}
	return fmt.Errorf("sidecar: %s%w%s", where, err, advice(err))
}

func advice(err error) string {
	for _, a := range []struct {
		err  error
		text string
	}{
		{ErrVersion, "run the version of the library that wrote it, or upgrade it as the release notes say"},
		{ErrMalformed, "put back the last copy that this node wrote"},
		{ErrMAC, "put back the last copy that this node wrote, and find out who changed it"},
		{ErrOtherNode, "give each node its own directory; one is not made by copying another's"},
		{ErrInsecureMode, "find out who could read or change it, then chmod 600"},
		{durable.ErrNotRegular, "put the file itself in its place"},
	} {
		if errors.Is(err, a.err) {
			return "; " + a.text
		}
	}
	return ""
}
