//go:build unix

package kek_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
)

// Every mode: one that gives anything to group or others is refused.
func TestFileModes(t *testing.T) {
	path := kekFile(t, rawKEK(1))
	for mode := range os.FileMode(0o1000) {
		require.NoError(t, os.Chmod(path, mode))
		if mode&0o077 != 0 && (mode&0o400 != 0 || os.Geteuid() == 0) {
			refusedFile(t, path, kek.ErrInsecure, fmt.Sprintf("mode %#o gives access to group or others, want 0600", mode))
			continue
		}
		_, err := kek.File(path, noWarning(t))
		if mode&0o400 == 0 && os.Geteuid() != 0 {
			require.ErrorIs(t, err, os.ErrPermission)
		} else {
			require.NoError(t, err, "%#o", mode)
		}
	}
}

// Through a link it is the mode of the file that counts.
func TestFileModeBehindSymlink(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "key"), rawKEK(1), 0o644)
	link := path + ".link"
	require.NoError(t, os.Symlink(path, link))
	refusedFile(t, link, kek.ErrInsecure, "mode 0644", kek.AllowSymlink())
}

// Whoever runs the tests owns the files they make, so the owner is wrong for
// another user, unless it is root.
func TestFileOwner(t *testing.T) {
	path, us := kekFile(t, rawKEK(1)), os.Geteuid()
	_, err := kek.File(path, kek.AsUser(us), noWarning(t))
	require.NoError(t, err)
	if us != 0 {
		refusedFile(t, path, kek.ErrInsecure, fmt.Sprintf("belongs to user %d, want root or this process's user %d", us, us+1), kek.AsUser(us+1))
		return
	}
	_, err = kek.File(path, kek.AsUser(65534), noWarning(t))
	require.NoError(t, err, "root's file is good for everybody who can read it")

	require.NoError(t, os.Chown(path, 65534, 65534))
	refusedFile(t, path, kek.ErrInsecure, "belongs to user 65534, want root or this process's user 0")
	refusedFile(t, path, kek.ErrInsecure, "belongs to user 65534", kek.AsUser(1000))
	_, err = kek.File(path, kek.AsUser(65534), noWarning(t))
	require.NoError(t, err)
}

// A pipe that nobody writes to would keep a plain open waiting for ever.
func TestFilePipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	refusedFile(t, path, kek.ErrInsecure, "it is a named pipe, want a regular file")

	// With a writer that has a whole key ready, too.
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer w.Close()
	_, err = w.Write(rawKEK(1))
	require.NoError(t, err)
	refusedFile(t, path, kek.ErrInsecure, "it is a named pipe")

	link := path + ".link"
	require.NoError(t, os.Symlink(path, link))
	refusedFile(t, link, kek.ErrInsecure, "it is a symbolic link")
	refusedFile(t, link, kek.ErrInsecure, "it is a named pipe", kek.AllowSymlink())
}

func TestFileDevice(t *testing.T) {
	for _, path := range []string{"/dev/zero", "/dev/null", "/dev/urandom"} {
		refusedFile(t, path, kek.ErrInsecure, "it is a device, want a regular file")
	}
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink("/dev/urandom", link))
	refusedFile(t, link, kek.ErrInsecure, "it is a device", kek.AllowSymlink())
}

func TestFileSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") //nolint:usetesting // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path) //nolint:noctx // listening does not wait
	require.NoError(t, err)
	defer l.Close()
	refusedFile(t, path, kek.ErrInsecure, "it is a socket, want a regular file")
}

func TestFileWarnsOfFolder(t *testing.T) {
	tests := []struct {
		mode os.FileMode
		warn bool
	}{
		{0o700, false},
		{0o755, false},
		{0o775, false},
		{0o777, true},
		{0o703, true},
		{0o777 | os.ModeSticky, false},
	}
	for _, tt := range tests {
		t.Run(tt.mode.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			require.NoError(t, os.Mkdir(dir, 0o700))
			path := write(t, filepath.Join(dir, "key"), rawKEK(1), 0o600)
			link := filepath.Join(t.TempDir(), "link")
			require.NoError(t, os.Symlink(path, link))
			require.NoError(t, os.Chmod(dir, tt.mode))
			// Directly, and where a link in a good folder leads.
			for _, name := range []string{path, link} {
				var got []error
				_, err := kek.File(name, kek.AllowSymlink(), kek.OnWarning(func(err error) { got = append(got, err) }))
				require.NoError(t, err, "a warning is no refusal")
				if !tt.warn {
					require.Empty(t, got)
					continue
				}
				require.Len(t, got, 1)
				require.ErrorIs(t, got[0], kek.ErrInsecure)
				require.ErrorContains(t, got[0], "anybody may replace it: folder "+dir)
			}
		})
	}
}

// While a good and a bad file change places, File gives the good key or refuses;
// never the bad file's key.
func TestFileRace(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "key"), rawKEK(1), 0o600)
	good, stop := aesKEK(t, rawKEK(1)).ID(), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			tmp := filepath.Join(dir, "tmp")
			var err error
			switch i % 4 {
			case 0:
				err = os.WriteFile(tmp, rawKEK(2), 0o644)
			case 1, 3:
				err = os.WriteFile(tmp, rawKEK(1), 0o600)
			case 2:
				err = os.Symlink("elsewhere", tmp)
			}
			if err := errors.Join(err, os.Rename(tmp, path)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	seen := map[bool]int{}
	for range 2000 {
		k, err := kek.File(path, noWarning(t))
		if err != nil {
			require.ErrorIs(t, err, kek.ErrInsecure)
		} else {
			require.Equal(t, good, k.ID())
		}
		seen[err == nil]++
	}
	t.Logf("read %d times, refused %d times", seen[true], seen[false])
}
