package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ensureKEK makes a KEK file of 32 random bytes if there is none, durable
// before anything is sealed under it. It never replaces a file.
func ensureKEK(path string) (made bool, err error) {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, fmt.Errorf("-kek %s cannot be made: %w", path, reason(err))
	}
	raw := make([]byte, 32)
	rand.Read(raw)
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("-kek %s cannot be made: %w", path, reason(err)), os.Remove(path))
	}
	return true, nil
}

// syncDir makes a new file's name durable, which Windows has no call for.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
