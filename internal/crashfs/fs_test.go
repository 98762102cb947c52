package crashfs_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

// Each operation in each form: what it returns, and what is there afterwards.
func TestForms(t *testing.T) {
	const old = "a=1"
	for _, tt := range []struct {
		step   string
		form   crashfs.Form
		err    error
		left   string
		caught bool // the process sees later operations fail
	}{
		{step: "create b", form: crashfs.NotDone, err: syscall.EIO, left: old},
		{step: "create b", form: crashfs.ButDone, err: syscall.EIO, left: "a=1 b="},
		{step: "create b", form: crashfs.NoSpace, err: syscall.ENOSPC, left: old},
		{step: "create b", form: crashfs.Broken, err: syscall.EIO, left: old, caught: true},
		{step: "create b", form: crashfs.Kill, err: crashfs.ErrCrashed, left: "a=1 b=", caught: true},
		{step: "create b", form: crashfs.PowerLoss, err: crashfs.ErrCrashed, left: "a=1 b=", caught: true},
		{step: "write a 2345", form: crashfs.NotDone, err: syscall.EIO, left: old},
		{step: "write a 2345", form: crashfs.ButDone, err: syscall.EIO, left: "a=12345"},
		{step: "write a 2345", form: crashfs.ShortWrite, err: syscall.ENOSPC, left: "a=123"},
		{step: "write a 2345", form: crashfs.NoSpace, err: syscall.ENOSPC, left: old},
		{step: "write a 2345", form: crashfs.Kill, err: crashfs.ErrCrashed, left: "a=12345", caught: true},
		{step: "rename a b", form: crashfs.NotDone, err: syscall.EIO, left: old},
		{step: "rename a b", form: crashfs.ButDone, err: syscall.EIO, left: "b=1"},
		{step: "rename a b", form: crashfs.Kill, err: crashfs.ErrCrashed, left: "b=1", caught: true},
		{step: "remove a", form: crashfs.NotDone, err: syscall.EIO, left: old},
		{step: "remove a", form: crashfs.ButDone, err: syscall.EIO, left: ""},
		{step: "remove a", form: crashfs.Broken, err: syscall.EIO, left: old, caught: true},
		{step: "open a", form: crashfs.NotDone, err: syscall.EIO, left: old},
		{step: "syncdir", form: crashfs.NotDone, err: syscall.EIO, left: old},
		{step: "sync a", form: crashfs.NoSpace, err: syscall.ENOSPC, left: old},
	} {
		t.Run(tt.step+"/"+tt.form.String(), func(t *testing.T) {
			u := newUser(t)
			u.all("create a", "write a 1", "all")
			u.f.FailAt(1, nil, tt.form)
			u.all("syncdir")
			require.False(t, u.f.Fired())
			err := u.do(tt.step)
			require.True(t, u.f.Fired())
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, !errors.Is(tt.err, crashfs.ErrCrashed), isInjected(err))
			if tt.caught {
				require.ErrorIs(t, u.do("syncdir"), tt.err)
			} else {
				u.all("syncdir")
			}
			u.f = u.f.Restart()
			u.all("all")
			require.Equal(t, []string{tt.left}, u.left(10))
		})
	}
}

func isInjected(err error) bool { return errors.Is(err, crashfs.ErrInjected) }

// A kill or power loss during a sync finds nothing synced.
func TestEndDuringSync(t *testing.T) {
	for _, form := range []crashfs.Form{crashfs.Kill, crashfs.PowerLoss} {
		u := newUser(t)
		u.all("create a", "syncdir", "write a 1")
		u.f.FailAt(0, nil, form)
		require.ErrorIs(t, u.do("sync a"), crashfs.ErrCrashed)
		require.Equal(t, []string{"a=", "a=\x00", "a=1"}, u.left(10))
	}
	u := newUser(t)
	u.all("create a")
	u.f.CrashAt(0)
	require.ErrorIs(t, u.do("syncdir"), crashfs.ErrCrashed)
	require.Equal(t, []string{"", "a="}, u.left(10))
}

func TestNoSpaceStays(t *testing.T) {
	u := newUser(t)
	u.all("create a", "write a 1", "create b", "all")
	u.f.FailAt(0, nil, crashfs.NoSpace)
	require.ErrorIs(t, u.do("write a 2"), syscall.ENOSPC)
	require.ErrorIs(t, u.do("write a 2"), syscall.ENOSPC)
	require.ErrorIs(t, u.do("create c"), syscall.ENOSPC)
	u.all("rename a c", "remove b", "sync a", "syncdir")
	u.f.FailAt(0, nil, crashfs.None)
	u.all("create d")
}

func TestFailAtWithAnError(t *testing.T) {
	u := newUser(t)
	u.f.FailAt(0, syscall.EROFS, crashfs.NotDone)
	err := u.do("create a")
	require.ErrorIs(t, err, syscall.EROFS)
	require.ErrorIs(t, err, crashfs.ErrInjected)
	require.EqualError(t, err, "create a: "+syscall.EROFS.Error()+" (injected)")
	var pathErr *fs.PathError
	require.ErrorAs(t, err, &pathErr)
}

func TestOps(t *testing.T) {
	u := newUser(t)
	u.all("create a", "write a 123", "rename a b")
	require.Equal(t, []crashfs.Op{
		{Kind: crashfs.KindCreate, Path: "a"},
		{Kind: crashfs.KindWrite, Path: "a", Size: 3},
		{Kind: crashfs.KindRename, Path: "a -> b"},
	}, u.f.Ops())
	require.Equal(t, "write a (3 bytes)", u.f.Ops()[1].String())
	require.Equal(t, "rename a -> b", u.f.Ops()[2].String())
	u.f.FailAt(5, nil, crashfs.None)
	require.Empty(t, u.f.Ops())
	require.True(t, crashfs.Outcome{Ops: []crashfs.Op{{Kind: crashfs.KindRename}}}.Tried(crashfs.KindRename))
	require.False(t, crashfs.Outcome{}.Tried(crashfs.KindRename))
}

func TestLock(t *testing.T) {
	f := crashfs.New()
	l, err := f.Lock("lock")
	require.NoError(t, err)
	_, err = f.Lock("./lock")
	var locked *durable.LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, os.Getpid(), locked.PID)
	other, err := f.Lock("other")
	require.NoError(t, err)
	require.NoError(t, other.Close())

	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), fs.ErrClosed)
	l, err = f.Lock("lock")
	require.NoError(t, err)
	again, err := f.Restart().Lock("lock")
	require.NoError(t, err, "a lock does not outlive its process")
	require.NoError(t, again.Close())

	f.FailAt(0, nil, crashfs.NotDone)
	require.ErrorIs(t, l.Close(), crashfs.ErrInjected)
	f.FailAt(0, nil, crashfs.ButDone)
	_, err = f.Lock("lock")
	require.ErrorIs(t, err, crashfs.ErrInjected)
	_, err = f.Lock("lock")
	require.NoError(t, err, "who got an error has no lock")
}

func TestErrors(t *testing.T) {
	f := crashfs.New()
	f.Mkdir("x/y")
	h, err := f.OpenFile("x/a", os.O_WRONLY|os.O_CREATE, 0o640)
	require.NoError(t, err)
	_, err = h.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrPermission)
	r, err := f.OpenFile("x/a", os.O_RDONLY, 0)
	require.NoError(t, err)
	_, err = r.Write([]byte("1"))
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = f.OpenFile("x", os.O_RDONLY, 0)
	require.ErrorContains(t, err, "is a directory")

	for name, got := range map[string]error{
		"open":         second(f.OpenFile("x/none", os.O_RDONLY, 0)),
		"create":       second(f.OpenFile("none/a", os.O_CREATE|os.O_WRONLY, 0o600)),
		"lstat":        second(f.Lstat("none")),
		"lstat in":     second(f.Lstat("none/none")),
		"readdir":      second(f.ReadDir("none")),
		"readdir file": second(f.ReadDir("x/a")),
		"rename":       f.Rename("x/none", "x/b"),
		"rename from":  f.Rename("none/a", "x/b"),
		"rename to":    f.Rename("x/a", "none/b"),
		"remove":       f.Remove("x/none"),
		"remove in":    f.Remove("none/a"),
		"syncdir":      f.SyncDir("none"),
		"lock":         second(f.Lock("none/lock")),
	} {
		require.ErrorIs(t, got, fs.ErrNotExist, name)
	}

	require.NoError(t, h.Close())
	_, err = h.Write([]byte("1"))
	require.ErrorIs(t, err, fs.ErrClosed)
	require.ErrorIs(t, h.Sync(), fs.ErrClosed)
	_, err = h.Stat()
	require.ErrorIs(t, err, fs.ErrClosed)
	n, err := r.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
}

func second[T any](_ T, err error) error { return err }

func TestFileInfo(t *testing.T) {
	f := crashfs.New()
	f.Mkdir(filepath.Join("x", "y"))
	h, err := f.OpenFile("x/a", os.O_RDWR|os.O_CREATE, 0o640)
	require.NoError(t, err)
	_, err = h.Write([]byte("123"))
	require.NoError(t, err)
	for _, get := range []func() (fs.FileInfo, error){h.Stat, func() (fs.FileInfo, error) { return f.Lstat("x/a") }} {
		info, err := get()
		require.NoError(t, err)
		assert.Equal(t, "a", info.Name())
		assert.EqualValues(t, 3, info.Size())
		assert.Equal(t, fs.FileMode(0o640), info.Mode())
		assert.False(t, info.IsDir())
		assert.Zero(t, info.ModTime())
		assert.Nil(t, info.Sys())
	}
	info, err := f.Lstat("x/y/")
	require.NoError(t, err)
	assert.True(t, info.IsDir())
	names, err := f.ReadDir("x")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "y"}, names)
}

// An open file goes on without its name.
func TestRemovedWhileOpen(t *testing.T) {
	f := crashfs.New()
	h, err := f.OpenFile("a", os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	require.NoError(t, err)
	require.NoError(t, f.Remove("a"))
	_, err = h.Write([]byte("123"))
	require.NoError(t, err)
	require.NoError(t, h.Sync())
	_, err = h.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, f.SyncDir("."))
	require.Empty(t, contents(t, f))
}
