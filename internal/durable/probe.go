package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
)

// probeName is the file that Probe makes and removes.
const probeName = ".atrest-probe"

var errNotReplaced = errors.New("a replaced file reads as the old one")

// Probe finds out whether the file system of dir can keep a file durable: it
// creates a file, replaces it, reads it back and removes it, with every sync
// that [WriteFile] makes. A file system that cannot do one of them gives
// [ErrUnsupportedFS]; a full or failing one gives its own error. Probe leaves
// nothing behind, and removes what a probe cut short by a crash had left.
// Nobody else may be probing dir meanwhile.
func Probe(fsys FS, dir string) error {
	path := filepath.Join(dir, probeName)
	err := probe(fsys, path)
	if left := probeClean(fsys, path); err == nil {
		err = left
	}
	switch {
	case err == nil:
		return nil
	case unsupported(err):
		return fmt.Errorf("%w: probe of %s: %w", ErrUnsupportedFS, dir, err)
	}
	return fmt.Errorf("durable: probe of %s: %w", dir, err)
}

func probe(fsys FS, path string) error {
	var want []byte
	for _, text := range []string{"old\n", "new\n"} {
		want = []byte(text)
		if _, err := replace(fsys, path, want); err != nil {
			return err
		}
	}
	got, _, err := readFile(fsys, path, int64(len(want)))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errNotReplaced
	}
	return nil
}

// probeClean tries twice, so that one passing error leaves nothing behind.
func probeClean(fsys FS, path string) error {
	err := probeRemove(fsys, path)
	if err != nil {
		probeRemove(fsys, path) //nolint:errcheck // The first error is reported.
	}
	return err
}

func probeRemove(fsys FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return settle(fsys, path)
}

// unsupported reports whether err says that an operation does not exist rather
// than that it failed. Some file systems say so for the sync of a directory
// with EINVAL.
func unsupported(err error) bool {
	return errors.Is(err, errNotReplaced) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}
