package guard_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/sidecar"
)

const dir = "data"

func newFS() *crashfs.FS {
	fsys := crashfs.New()
	fsys.Mkdir(dir)
	return fsys
}

// withSidecar returns a file system with the file of node 5 and its bytes.
func withSidecar(t testing.TB, w sidecar.KeyWrapper) (*crashfs.FS, []byte) {
	t.Helper()
	fsys := newFS()
	f, err := sidecar.Create(t.Context(), dir, 5, w, sidecar.WithFS(fsys))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	r, err := fsys.OpenFile(f.Path(), os.O_RDONLY, 0)
	require.NoError(t, err)
	data, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	return fsys, data
}

// with returns a file system whose keys.json has these bytes.
func with(t testing.TB, data []byte, perm fs.FileMode) *crashfs.FS {
	t.Helper()
	fsys := newFS()
	f, err := fsys.OpenFile(filepath.Join(dir, sidecar.FileName), os.O_WRONLY|os.O_CREATE, perm)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return fsys
}

func TestEncryptionOff(t *testing.T) {
	require.NoError(t, guard.EncryptionOff(newFS(), dir))
	require.NoError(t, guard.EncryptionOff(newFS(), "nowhere"), "no directory holds no keys")
	for _, data := range []string{"", "{}", "not JSON"} {
		r := refusal(t, guard.EncryptionOff(with(t, []byte(data), 0o600), dir), guard.ErrEncryptionOff)
		require.Contains(t, r.Error(), filepath.Join(dir, "keys.json"))
	}
	for _, name := range []string{"keys.json", "keys.meta.json"} {
		fsys := newFS()
		f, err := fsys.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE, 0o600)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		r := refusal(t, guard.EncryptionOff(fsys, dir), guard.ErrEncryptionOff)
		require.Contains(t, r.Error(), filepath.Join(dir, name))
	}
	fsys := newFS()
	fsys.FailAt(0, syscall.EACCES, crashfs.NotDone)
	err := guard.EncryptionOff(fsys, dir)
	require.ErrorIs(t, err, syscall.EACCES)
	require.NotErrorIs(t, err, guard.ErrEncryptionOff)

	empty := t.TempDir()
	require.NoError(t, guard.EncryptionOff(durable.OS, empty))
	if runtime.GOOS != "windows" {
		require.NoError(t, os.Symlink("nothing", filepath.Join(empty, sidecar.FileName)))
		requireRefusal(t, guard.EncryptionOff(durable.OS, empty), guard.ErrEncryptionOff)
	}
}

// Whatever the file system refuses or fails at, the start is refused, nothing is
// left behind, and the reason is the right one of two.
func TestFilesystem(t *testing.T) {
	require.NoError(t, guard.Filesystem(durable.OS, t.TempDir()))
	require.ErrorIs(t, guard.Filesystem(newFS(), "nowhere"), fs.ErrNotExist)

	clean := newFS()
	require.NoError(t, guard.Filesystem(clean, dir))
	refused := 0
	for k, op := range clean.Ops() {
		for _, cause := range []error{errors.ErrUnsupported, syscall.EINVAL, syscall.EIO, syscall.ENOSPC} {
			t.Run(fmt.Sprintf("%d %s %v", k, op.Kind, cause), func(t *testing.T) {
				fsys := newFS()
				fsys.FailAt(k, cause, crashfs.NotDone)
				err := guard.Filesystem(fsys, dir)
				names, listErr := fsys.ReadDir(dir)
				require.NoError(t, listErr)
				require.Empty(t, names)
				if err == nil {
					require.NotEqual(t, crashfs.KindSyncDir, op.Kind, "names would not be durable")
					return
				}
				require.ErrorIs(t, err, cause)
				if cause == syscall.EIO || cause == syscall.ENOSPC {
					require.NotErrorIs(t, err, guard.ErrFilesystem)
					return
				}
				requireRefusal(t, err, guard.ErrFilesystem)
				refused++
			})
		}
	}
	require.Positive(t, refused)
}

// noSyncDir is a file system on which directories cannot be synced.
type noSyncDir struct{ *crashfs.FS }

func (noSyncDir) SyncDir(name string) error {
	return &fs.PathError{Op: "fsync", Path: name, Err: syscall.EINVAL}
}

func TestFilesystemWithoutSyncOfDirectories(t *testing.T) {
	fsys := noSyncDir{newFS()}
	r := refusal(t, guard.Filesystem(fsys, dir), guard.ErrFilesystem)
	require.ErrorIs(t, r, durable.ErrUnsupportedFS)
	names, err := fsys.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
}

// sidecarErrs are errors of real files, by name.
func sidecarErrs(t testing.TB) map[string]error {
	t.Helper()
	var (
		fake    = kektest.New("kms:a")
		w       = newSet(t, fake)
		out     = map[string]error{}
		fsys, b = withSidecar(t, w)
		open    = func(name string, fsys *crashfs.FS, node uint64, w sidecar.KeyWrapper) {
			f, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			require.Error(t, err, name)
			require.Nil(t, f)
			out[name] = err
		}
		changed = func(old, repl string) *crashfs.FS {
			require.Contains(t, string(b), old)
			return with(t, bytes.Replace(b, []byte(old), []byte(repl), 1), 0o600)
		}
	)
	held, err := sidecar.Open(t.Context(), dir, 5, w, sidecar.WithFS(fsys))
	require.NoError(t, err)
	open("in use", fsys, 5, w)
	require.NoError(t, held.Close())
	open("other node", fsys, 6, w)
	open("file key", fsys, 5, newSet(t, kektest.New("kms:b")))
	open("version", changed(`"version": 3`, `"version": 4`), 5, w)
	open("malformed", with(t, b[:100], 0o600), 5, w)
	open("MAC", changed(`"through": 0`, `"through": 1`), 5, w)
	if runtime.GOOS != "windows" {
		open("mode", with(t, b, 0o644), 5, w)
	}
	open("too large", with(t, make([]byte, sidecar.MaxSize+1), 0o600), 5, w)
	broken := newFS()
	broken.Mkdir(filepath.Join(dir, sidecar.FileName))
	open("not a file", broken, 5, w)
	fake.FailNext(1, kek.ErrUnreachable)
	open("unreachable", fsys, 5, w)
	fake.FailNext(1, kek.ErrDenied)
	open("denied", fsys, 5, w)
	return out
}

var sidecarReasons = map[string]error{
	"in use": guard.ErrInUse, "other node": guard.ErrOtherNode, "file key": guard.ErrKEKMismatch,
	"version": guard.ErrTampered, "malformed": guard.ErrTampered, "MAC": guard.ErrTampered, "mode": guard.ErrTampered,
	"too large": guard.ErrTampered, "not a file": guard.ErrTampered,
	"unreachable": guard.ErrKEKUnreachable, "denied": guard.ErrKEKUnreachable,
}

func TestSidecar(t *testing.T) {
	for name, err := range sidecarErrs(t) {
		t.Run(name, func(t *testing.T) {
			r := refusal(t, guard.Sidecar(err), sidecarReasons[name])
			require.Equal(t, err, r.Err)
			require.ErrorIs(t, r, err)
		})
	}
	require.NoError(t, guard.Sidecar(nil))
	for _, err := range []error{fs.ErrNotExist, fs.ErrExist, sidecar.ErrPoisoned, sidecar.ErrState, syscall.EIO} {
		require.Equal(t, err, guard.Sidecar(err), "no refusal")
	}
	_, missing := sidecar.Open(t.Context(), dir, 5, newSet(t, kektest.New("kms:a")), sidecar.WithFS(newFS()))
	require.Equal(t, missing, guard.Sidecar(missing))
}

// Where an error has several causes, the one that says most comes first.
func TestSidecarPrecedence(t *testing.T) {
	for _, tt := range []struct{ err, want error }{
		{errors.Join(sidecar.ErrMAC, sidecar.ErrOtherNode), guard.ErrOtherNode},
		{errors.Join(kek.ErrWrongKey, kek.ErrUnreachable, sidecar.ErrFileKey), guard.ErrKEKMismatch},
		{errors.Join(sidecar.ErrMAC, sidecar.ErrFileKey), guard.ErrKEKMismatch},
		{errors.Join(kek.ErrDenied, sidecar.ErrMalformed), guard.ErrTampered},
		{errors.Join(kek.ErrDenied, kek.ErrUnreachable), guard.ErrKEKUnreachable},
	} {
		requireRefusal(t, guard.Sidecar(tt.err), tt.want)
	}
}
