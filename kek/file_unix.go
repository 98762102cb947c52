//go:build unix

package kek

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// open opens the file without waiting for the other end of a named pipe, and
// without taking a terminal. Nothing is checked before: what is not open can be
// replaced.
func (c *fileConfig) open() (*os.File, error) {
	flags := os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY
	if !c.symlink {
		flags |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(c.path, flags, 0)
	if err == nil {
		return f, nil
	}
	if !c.symlink {
		// Systems disagree on the error for a link that is not followed.
		if info, lerr := os.Lstat(c.path); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, insecure("it is a symbolic link, which this KEK does not allow: %w", err)
		}
	}
	if errors.Is(err, syscall.ENXIO) { // a socket, or a device that is not there
		return nil, insecure("it is no regular file: %w", err)
	}
	return nil, err
}

// checkAccess checks owner and permissions of the open file.
func checkAccess(info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return insecure("mode %#o gives access to group or others, want 0600: chmod 600", perm)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return checkOwner(int(st.Uid), os.Geteuid())
	}
	return nil
}

func checkOwner(uid, us int) error {
	if uid != 0 && uid != us {
		return insecure("it belongs to user %d, want root or this process's user %d", uid, us)
	}
	return nil
}

// checkParent looks for a folder that anybody may write to and that does not
// keep them from each other's files.
func checkParent(dir string, info fs.FileInfo) error {
	if m := info.Mode(); m.Perm()&0o002 != 0 && m&fs.ModeSticky == 0 {
		return insecure("anybody may replace it: folder %s has mode %#o", dir, m.Perm())
	}
	return nil
}
