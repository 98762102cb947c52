package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	tempSuffix  = ".tmp"
	tempRandLen = 26 // the length of rand.Text
)

// tempName is a fresh name that nobody could have guessed, so that no file
// planted beforehand, with its mode, its links or its owner, becomes the new
// file.
func tempName(path string) string { return path + "." + rand.Text() + tempSuffix }

// isTempOf reports whether tempName makes names like name for base.
func isTempOf(name, base string) bool {
	mid, ok := strings.CutPrefix(name, base+".")
	if !ok {
		return false
	}
	mid, ok = strings.CutSuffix(mid, tempSuffix)
	return ok && len(mid) == tempRandLen && strings.Trim(mid, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// WriteFile replaces the file at path, or creates it, with mode 0600. When it
// returns nil, the new file survives a power loss. When the error matches
// [ErrOutcomeUnknown], see [UnknownOutcomeError]. After any other error the old
// file is there, untouched. If path is a symbolic link, the link is replaced.
// WriteFile does not keep data.
func WriteFile(fsys FS, path string, data []byte) error {
	tried, err := replace(fsys, path, data)
	switch {
	case err == nil:
		return nil
	case tried:
		return &UnknownOutcomeError{Path: path, Err: err}
	}
	return fmt.Errorf("durable: replace %s: %w", path, err)
}

// replace also reports whether it came to the rename.
func replace(fsys FS, path string, data []byte) (tried bool, err error) {
	temp := tempName(path)
	if err := writeTemp(fsys, temp, data); err != nil {
		return false, err
	}
	if err := fsys.Rename(temp, path); err != nil {
		fsys.Remove(temp) //nolint:errcheck // Best effort: the rename may have moved it.
		return true, err
	}
	return true, fsys.SyncDir(filepath.Dir(path))
}

// writeTemp leaves a synced file, or an error and no file as far as it can.
func writeTemp(fsys FS, temp string, data []byte) (err error) {
	f, err := fsys.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return err // somebody else's
	}
	defer func() {
		if err != nil {
			fsys.Remove(temp) //nolint:errcheck // Best effort; Recover removes what stays.
		}
	}()
	if err != nil {
		return err
	}
	if err := writeSync(f, data); err != nil {
		f.Close() //nolint:errcheck // The first error is the one that counts.
		return err
	}
	return f.Close()
}

// writeSync syncs once: after a sync that failed, systems may have dropped the
// bytes, and another one that succeeds would say nothing about them.
func writeSync(f File, data []byte) error {
	n, err := f.Write(data)
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	return f.Sync()
}

// Recover makes the file at path safe to read and to act on after a process
// died while it may have been replacing it: it removes the temporary files of
// path that are left, then syncs the directory, because a new file that was
// renamed into place without that sync is visible but may still vanish at a
// power loss. A file that does not exist is fine. Nobody may be replacing the
// file meanwhile: hold its lock.
func Recover(fsys FS, path string) error {
	if err := settle(fsys, path); err != nil {
		return fmt.Errorf("durable: recover %s: %w", path, err)
	}
	return nil
}

func settle(fsys FS, path string) error {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	if err := removeTemps(fsys, dir, base); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

func removeTemps(fsys FS, dir, base string) error {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !isTempOf(name, base) {
			continue
		}
		if err := fsys.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
