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
	if err != nil {
		return nil, c.explain(err)
	}
	return f, nil
}

// explain finds the reason why a file does not open that is none to us. Systems
// disagree on the error for a link that is not followed, and for a socket.
func (c *fileConfig) explain(err error) error {
	if !c.symlink && errors.Is(err, syscall.ELOOP) {
		return insecure("it is a symbolic link, want a regular file: %w", err)
	}
	stat := os.Lstat
	if c.symlink {
		stat = os.Stat
	}
	if info, serr := stat(c.path); serr == nil && !info.Mode().IsRegular() {
		return insecure("it is %s, want a regular file: %w", kindOfFile(info.Mode()), err)
	}
	return err
}

// checkAccess checks owner and permissions of the open file.
func checkAccess(info fs.FileInfo, euid int) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return insecure("mode %#o gives access to group or others, want 0600: chmod 600", perm)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return insecure("the system does not tell whom it belongs to")
	}
	if st.Uid != 0 && int(st.Uid) != euid {
		return insecure("it belongs to user %d, want root or this process's user %d", st.Uid, euid)
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
