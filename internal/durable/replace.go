package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// Replacement is a new file that is written piece by piece and then takes the
// place of another, as [WriteFile] does with bytes that are all there. One
// goroutine at a time uses it.
type Replacement struct {
	fsys       FS
	path, temp string
	f          File
	err        error // why nothing can be done any more
}

var (
	errReplaced  = errors.New("already in place")
	errAbandoned = errors.New("abandoned")
)

// Replace begins to replace the file at path, or to create it, with mode 0600.
// Until Commit the old file stays untouched. A process that dies meanwhile leaves
// a temporary file for [Recover].
func Replace(fsys FS, path string) (*Replacement, error) {
	r := &Replacement{fsys: fsys, path: path, temp: tempName(path)}
	f, err := fsys.OpenFile(r.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) { // else it is somebody else's
			fsys.Remove(r.temp) //nolint:errcheck // Best effort; Recover removes what stays.
		}
		return nil, r.wrap(err)
	}
	r.f = f
	return r, nil
}

func (r *Replacement) wrap(err error) error {
	return fmt.Errorf("durable: replace %s: %w", r.path, err)
}

// Write appends to the new file. After an error the only thing left to do is
// Abort, which Commit does too.
func (r *Replacement) Write(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.wrap(r.err)
	}
	n, err := r.f.Write(b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		r.abandon(err)
		return n, r.wrap(err)
	}
	return n, nil
}

// Commit puts the new file in the place of the old one. What it returns means what
// it means for [WriteFile]; when that was nil, it returns nil again. It syncs once:
// after a sync that failed, another one that succeeds would say nothing.
func (r *Replacement) Commit() error {
	switch {
	case errors.Is(r.err, errReplaced):
		return nil
	case r.err != nil:
		return r.wrap(r.err)
	}
	if err := r.f.Sync(); err != nil {
		r.abandon(err)
		return r.wrap(err)
	}
	r.err = errReplaced
	if err := r.f.Close(); err != nil {
		r.err = err
		r.fsys.Remove(r.temp) //nolint:errcheck // Best effort; Recover removes what stays.
		return r.wrap(err)
	}
	err := r.fsys.Rename(r.temp, r.path)
	if err != nil {
		r.fsys.Remove(r.temp) //nolint:errcheck // Best effort: the rename may have moved it.
	} else {
		err = r.fsys.SyncDir(filepath.Dir(r.path))
	}
	if err != nil {
		r.err = &UnknownOutcomeError{Path: r.path, Err: err}
		return r.err
	}
	return nil
}

// Abort removes the new file and leaves the old one. After Commit, or another
// Abort, it does nothing.
func (r *Replacement) Abort() {
	if r.err == nil {
		r.abandon(errAbandoned)
	}
}

func (r *Replacement) abandon(err error) {
	r.err = err
	r.f.Close()           //nolint:errcheck // The file goes away.
	r.fsys.Remove(r.temp) //nolint:errcheck // Best effort; Recover removes what stays.
}

// OpenRead opens the regular file at path for reading, with the checks of
// [ReadFile], and says how long it is.
func OpenRead(fsys FS, path string) (File, int64, error) {
	f, info, err := openFile(fsys, path, math.MaxInt64)
	if err != nil {
		return nil, 0, fmt.Errorf("durable: open %s: %w", path, err)
	}
	return f, info.Size(), nil
}
