package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/atrestdb/atrest/sidecar"
)

// isNew reports whether out is a place for a new store: it does not exist or is
// empty, but for the lock of a run that was killed early. It refuses what
// another program put there.
func isNew(out string) (bool, error) {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("-out %s cannot be used: %w", out, reason(err))
	}
	var keys, beside, others bool // keys.json, what goes with it, and the rest
	for _, e := range entries {
		switch name := e.Name(); {
		case name == sidecar.FileName:
			keys = true
		case strings.HasPrefix(name, sidecar.FileName+"."):
			beside = true
		default:
			others = true
			beside = beside || name == dbDir
		}
	}
	switch {
	case keys && beside:
		return false, nil
	case !keys && !others:
		return true, nil
	}
	return false, fmt.Errorf("-out %s is neither empty nor a store of this program, so nothing was written there", out)
}

// checkApart refuses directories that lie in one another, and a key that lies
// with its data.
func checkApart(in, out, kek string) error {
	in, out, kek = resolve(in), resolve(out), resolve(kek)
	switch {
	case within(out, in) || within(in, out):
		return fmt.Errorf("-in %s and -out %s lie in one another", in, out)
	case within(kek, out):
		return fmt.Errorf("-kek %s lies inside -out, where a thief of the data would find it", kek)
	case within(kek, in):
		return fmt.Errorf("-kek %s lies inside -in, so the key would be stored in its own data", kek)
	}
	return nil
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// resolve follows the symbolic links in the part of path that exists.
func resolve(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(resolve(dir), filepath.Base(path))
}

// reason drops from an error of package os what the sentence around it says.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
