package crashfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/atrestdb/atrest/internal/durable"
)

// do counts an operation and lets its effect happen or not.
func (f *FS) do(op Op, effect func(v verdict) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.begin(op)
	var err error
	if v.run {
		err = effect(v)
	}
	if v.err != nil {
		return v.err
	}
	if err != nil {
		return &fs.PathError{Op: op.Kind.String(), Path: op.Path, Err: err}
	}
	return nil
}

// OpenFile opens a file; perm is used as it is.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	op := Op{Kind: KindOpen, Path: name}
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		op.Kind = KindCreate
	}
	var h *handle
	err := f.do(op, func(verdict) error {
		n, err := f.open(name, flag, perm)
		h = &handle{f: f, n: n, name: name, flag: flag}
		return err
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (f *FS) open(name string, flag int, perm fs.FileMode) (*inode, error) {
	d, base, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	n := d.entries[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case n == nil:
		n = f.create(d, base, perm)
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	}
	if flag&os.O_TRUNC != 0 && writable(flag) {
		n.truncate()
	}
	return n, nil
}

func (f *FS) create(d *directory, base string, perm fs.FileMode) *inode {
	f.inodes++
	n := newInode(f.inodes, perm.Perm())
	f.setName(d, base, n)
	return n
}

// Lstat describes a file or directory.
func (f *FS) Lstat(name string) (info fs.FileInfo, err error) {
	err = f.do(Op{Kind: KindLstat, Path: name}, func(verdict) error {
		if f.dirs[clean(name)] != nil {
			info = fileInfo{name: path.Base(clean(name)), mode: fs.ModeDir | 0o700}
			return nil
		}
		d, base, err := f.lookup(name)
		if err != nil {
			return err
		}
		n := d.entries[base]
		if n == nil {
			return fs.ErrNotExist
		}
		info = n.info(base)
		return nil
	})
	return info, err
}

// Rename gives a file another name.
func (f *FS) Rename(oldname, newname string) error {
	return f.do(Op{Kind: KindRename, Path: oldname + " -> " + newname}, func(verdict) error {
		from, oldbase, err := f.lookup(oldname)
		if err != nil {
			return err
		}
		to, newbase, err := f.lookup(newname)
		if err != nil {
			return err
		}
		n := from.entries[oldbase]
		if n == nil {
			return fs.ErrNotExist
		}
		if to.entries[newbase] == n {
			return nil // as POSIX has it for two names of one file
		}
		f.setName(to, newbase, n)
		f.setName(from, oldbase, nil)
		return nil
	})
}

// Remove removes a file.
func (f *FS) Remove(name string) error {
	return f.do(Op{Kind: KindRemove, Path: name}, func(verdict) error {
		d, base, err := f.lookup(name)
		if err != nil {
			return err
		}
		if d.entries[base] == nil {
			return fs.ErrNotExist
		}
		f.setName(d, base, nil)
		return nil
	})
}

// ReadDir returns the names of the files and directories in dir, sorted.
func (f *FS) ReadDir(dir string) (names []string, err error) {
	err = f.do(Op{Kind: KindReadDir, Path: dir}, func(verdict) error {
		d := f.dirs[clean(dir)]
		if d == nil {
			return fs.ErrNotExist
		}
		for name := range d.entries {
			names = append(names, name)
		}
		for sub := range f.dirs {
			if path.Dir(sub) == clean(dir) && sub != clean(dir) {
				names = append(names, path.Base(sub))
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

// SyncDir makes the names in dir durable.
func (f *FS) SyncDir(dir string) error {
	return f.do(Op{Kind: KindSyncDir, Path: dir}, func(v verdict) error {
		d := f.dirs[clean(dir)]
		if d == nil {
			return fs.ErrNotExist
		}
		if v.sync {
			d.sync()
		}
		return nil
	})
}

// Lock takes a lock. Its holder is this process, whoever took it: a lock does
// not outlive [FS.Restart].
func (f *FS) Lock(name string) (io.Closer, error) {
	var held bool
	err := f.do(Op{Kind: KindLock, Path: name}, func(v verdict) error {
		if _, err := f.open(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return err
		}
		held = f.locks[clean(name)]
		if v.err == nil {
			f.locks[clean(name)] = true
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case held:
		return nil, &durable.LockedError{Path: name, PID: os.Getpid()}
	}
	return &fsLock{f: f, name: name}, nil
}

type fsLock struct {
	f      *FS
	name   string
	closed bool
}

// Close releases the lock even if it returns an error.
func (l *fsLock) Close() error {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	v := l.f.begin(Op{Kind: KindUnlock, Path: l.name})
	if l.closed {
		return fmt.Errorf("crashfs: unlock %s: %w", l.name, fs.ErrClosed)
	}
	l.closed = true
	delete(l.f.locks, clean(l.name))
	return v.err
}

// fileInfo describes a file or directory. Times are not modelled.
type fileInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (n *inode) info(name string) fs.FileInfo {
	return fileInfo{name: name, size: int64(len(n.data)), mode: n.mode}
}

// Name is the last element of the path.
func (i fileInfo) Name() string { return i.name }

// Size is the length in bytes.
func (i fileInfo) Size() int64 { return i.size }

// Mode is what the file was created with.
func (i fileInfo) Mode() fs.FileMode { return i.mode }

// ModTime is zero.
func (i fileInfo) ModTime() time.Time { return time.Time{} }

// IsDir tells directories from files.
func (i fileInfo) IsDir() bool { return i.mode.IsDir() }

// Sys is nil.
func (i fileInfo) Sys() any { return nil }
