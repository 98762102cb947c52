package kek

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/atrestdb/atrest/internal/secret"
)

// SourceError says why a file, an environment variable or a passphrase gives no
// KEK, or what is doubtful about it.
type SourceError struct {
	Source string // "file", "env", "passphrase" or what another package calls its own
	Name   string // path or name
	Err    error
}

func (e *SourceError) Error() string { return fmt.Sprintf("kek: %s %s: %v", e.Source, e.Name, e.Err) }

// Unwrap makes errors.Is and errors.As work.
func (e *SourceError) Unwrap() error { return e.Err }

// FileOption changes what File does.
type FileOption func(*fileConfig)

type fileConfig struct {
	path    string
	symlink bool
	warn    func(error)
	euid    int            // user of this process, -1 where there are none
	opened  func(*os.File) // called before the open file is checked
}

// AllowSymlink lets the path be a symbolic link, as where an orchestrator mounts
// secrets. The checks then are about the file that it leads to.
func AllowSymlink() FileOption { return func(c *fileConfig) { c.symlink = true } }

// OnWarning sets what is done with a warning, a [*SourceError], in place of
// slog.Warn; nil drops it. File calls it before it returns.
func OnWarning(warn func(error)) FileOption { return func(c *fileConfig) { c.warn = warn } }

// File reads a KEK from a file of exactly 32 random bytes, which head -c 32
// /dev/urandom makes. Keep it outside the data directory and its backups, and
// keep copies: without it nothing opens.
//
// It must be a regular file, and no symbolic link unless [AllowSymlink] is given;
// on Unix it must also belong to root or to this process's user and have no
// permissions for group and others. Anything else is [ErrInsecure]; a file of
// another length, or of zeros, is [ErrBadKey]; one that is not there matches
// fs.ErrNotExist. The checks are made on the open file, so replacing it meanwhile
// gains nothing. A parent folder in which anybody could replace the file is a
// warning.
//
// The id is "file:" and 16 hexadecimal digits derived from the key: it does not
// depend on the path.
func File(path string, opts ...FileOption) (*AES, error) {
	c := newFileConfig(path, opts)
	raw, size, err := c.read(secret.Size)
	if err != nil {
		return nil, c.refuse(err)
	}
	if len(raw) != secret.Size {
		return nil, c.refuse(badLength(raw, size))
	}
	k, err := newAES("file", raw)
	if err != nil {
		return nil, c.refuse(err)
	}
	c.checkParents()
	return k, nil
}

// ReadFile reads a secret of at most limit bytes from a file that stands up to
// the checks of [File], for those who make a KEK of something else. A file that is
// longer is [ErrTooLong].
func ReadFile(path string, limit int, opts ...FileOption) ([]byte, error) {
	c := newFileConfig(path, opts)
	raw, size, err := c.read(limit)
	if err != nil {
		return nil, c.refuse(err)
	}
	if len(raw) > limit {
		return nil, c.refuse(fmt.Errorf("%w: %d bytes, want at most %d", ErrTooLong, max(size, int64(len(raw))), limit))
	}
	c.checkParents()
	return raw, nil
}

func newFileConfig(path string, opts []FileOption) *fileConfig {
	c := &fileConfig{
		path:   path,
		warn:   func(err error) { slog.Warn(err.Error()) },
		euid:   os.Geteuid(),
		opened: func(*os.File) {},
	}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

func (c *fileConfig) refuse(err error) error {
	if p, ok := err.(*fs.PathError); ok { //nolint:errorlint // only where it would say the path once more
		err = p.Err
	}
	return &SourceError{Source: "file", Name: c.path, Err: err}
}

// read opens the file and reads it, having checked the very file that is open. It
// returns one byte more than limit where there is more, and the size that the
// system tells.
func (c *fileConfig) read(limit int) (raw []byte, size int64, err error) {
	f, err := c.open()
	if err != nil {
		return nil, 0, err
	}
	defer f.Close() //nolint:errcheck // Nothing was written.
	c.opened(f)
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, insecure("it is %s, want a regular file", kindOfFile(info.Mode()))
	}
	if err := checkAccess(info, c.euid); err != nil {
		return nil, 0, err
	}
	raw, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, 0, err
	}
	return raw, info.Size(), nil
}

func insecure(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInsecure, fmt.Errorf(format, args...))
}

// badLength tells the usual mistakes from each other, without showing the bytes.
func badLength(raw []byte, size int64) error {
	hint := ""
	switch {
	case len(raw) == secret.Size+1 && size == int64(len(raw)) && bytes.HasSuffix(raw, []byte("\n")):
		hint = ": the last is a newline"
	case isText(raw) && size > int64(len(raw)):
		hint = ": it looks like text, want the bytes themselves"
	}
	return fmt.Errorf("%w: %d bytes, want %d%s", ErrBadKey, max(size, int64(len(raw))), secret.Size, hint)
}

// isText reports whether all bytes but spaces at the end are of hexadecimal or base64 text.
func isText(b []byte) bool {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return false
	}
	if _, err := hex.DecodeString(string(b[:len(b)/2*2])); err == nil {
		return true
	}
	_, err := base64.StdEncoding.DecodeString(string(b[:len(b)/4*4]))
	return err == nil
}

func kindOfFile(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&os.ModeSymlink != 0:
		return "a symbolic link"
	case m&os.ModeNamedPipe != 0:
		return "a named pipe"
	case m&os.ModeSocket != 0:
		return "a socket"
	case m&os.ModeDevice != 0:
		return "a device"
	}
	return "of an unknown kind"
}

// checkParents warns of folders in which anybody could put another file in the
// place of this one.
func (c *fileConfig) checkParents() {
	warn := func(err error) {
		if c.warn != nil {
			c.warn(c.refuse(err))
		}
	}
	dirs := []string{filepath.Dir(c.path)}
	if target, err := filepath.EvalSymlinks(c.path); err == nil && filepath.Dir(target) != dirs[0] {
		dirs = append(dirs, filepath.Dir(target))
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			warn(fmt.Errorf("cannot check its folder: %w", err))
		} else if err := checkParent(dir, info); err != nil {
			warn(err)
		}
	}
}
