package durable

import (
	"io"
	"io/fs"
	"os"
)

// OS is the file system of the operating system. A file's Sync reaches the disk
// itself as far as the system has a call for that, on macOS with F_FULLFSYNC.
// On Windows SyncDir does nothing.
var OS FS = osFS{}

type osFS struct{}

// OpenFile is [os.OpenFile], with openFlags.
func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag|openFlags, perm)
	if err != nil {
		return nil, err // not f: a nil *os.File in a File is not nil
	}
	return f, nil
}

// Lstat is [os.Lstat].
func (osFS) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }

// Rename is [os.Rename], which on Windows replaces a file, too.
func (osFS) Rename(oldname, newname string) error { return os.Rename(oldname, newname) }

// Remove is [os.Remove].
func (osFS) Remove(name string) error { return os.Remove(name) }

// SyncDir opens the directory and syncs it.
func (osFS) SyncDir(dir string) error { return syncDir(dir) }

// Lock locks as an open file does, not as a process does.
func (osFS) Lock(name string) (io.Closer, error) { return lock(name) }

// ReadDir keeps the names of [os.ReadDir].
func (osFS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}
