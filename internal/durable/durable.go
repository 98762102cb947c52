// Package durable replaces small files so that a crash or a power loss at any
// instant leaves the old file or the new one, whole, and never a third thing.
//
// [WriteFile] replaces a file, [ReadFile] reads one back with a size limit.
// A process that opens a file which an earlier process may have been replacing
// when it died calls [Recover] before it reads. [FS.Lock] keeps a second
// process out, and [Probe] finds out at start whether the file system can do
// what the rest relies on.
//
// Everything goes through [FS], the few operations of a file system that are
// needed. [OS] is the real one; package crashfs has one in memory that loses
// power.
//
// What the caller guarantees: one process at a time works on a file and its
// temporary files (that is what the lock is for), and the directory can be
// written only by those who may replace the file anyway.
//
// What cannot be promised: a disk or file system that reports a sync as done
// without doing it cannot be told from an honest one. On Windows directories
// cannot be synced; there a replaced file is never torn, but after a power loss
// the old one may be back although WriteFile had returned.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// FS is what this package needs of a file system. All methods may be called
// from several goroutines. Errors for missing and existing files match
// [fs.ErrNotExist] and [fs.ErrExist].
type FS interface {
	// OpenFile opens a file with the flags of package os. If the last element
	// of name is a symbolic link, it fails rather than follow it where the
	// system allows that. Opening a named pipe does not block.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Lstat describes a file without following a symbolic link.
	Lstat(name string) (fs.FileInfo, error)
	// Rename gives a file a new name, replacing a file of that name atomically
	// as far as running processes see it.
	Rename(oldname, newname string) error
	// Remove removes a name.
	Remove(name string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes the names in a directory durable: those created, renamed
	// and removed before the call.
	SyncDir(dir string) error
	// Lock takes the exclusive lock that the file name stands for, creating the
	// file if need be. It does not wait: if the lock is held, by this process
	// or another, the error is a *LockedError. Closing the result releases the
	// lock; so does the death of the process. The file stays.
	Lock(name string) (io.Closer, error)
}

// File is an open file. Sync makes the bytes written before the call durable,
// but not the file's name: that takes [FS.SyncDir].
type File interface {
	io.Reader
	io.Writer
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
}

// Errors of this package.
var (
	// ErrOutcomeUnknown matches an *UnknownOutcomeError.
	ErrOutcomeUnknown = errors.New("durable: outcome unknown")
	// ErrUnsupportedFS says that a file system cannot keep a file durable.
	ErrUnsupportedFS = errors.New("durable: file system cannot be used")
	// ErrNotRegular says that a path names something else than a regular file.
	ErrNotRegular = errors.New("durable: not a regular file")
	// ErrTooLarge says that a file is longer than the reader's limit.
	ErrTooLarge = errors.New("durable: file too large")
)

// UnknownOutcomeError is what [WriteFile] returns when it failed at or after the
// rename. The file is the old one or the new one, and may change from new to
// old at a power loss. Nobody may act on either until [Recover] has returned
// nil and the file was read again.
type UnknownOutcomeError struct {
	Path string
	Err  error
}

func (e *UnknownOutcomeError) Error() string {
	return fmt.Sprintf("durable: outcome of replacing %s is unknown: %v", e.Path, e.Err)
}

// Unwrap returns the error of the failed operation.
func (e *UnknownOutcomeError) Unwrap() error { return e.Err }

// Is matches [ErrOutcomeUnknown].
func (e *UnknownOutcomeError) Is(target error) bool { return target == ErrOutcomeUnknown }

// LockedError says that a lock is held. PID is the holder's process id as it
// wrote it into the lock file, 0 if it has not (yet).
type LockedError struct {
	Path string
	PID  int
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("durable: %s is locked by another process", e.Path)
	}
	return fmt.Sprintf("durable: %s is locked by process %d", e.Path, e.PID)
}
