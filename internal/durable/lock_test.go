package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/durable"
)

// lockChild says whether it got the lock, and holds it until its input ends.
func lockChild(path string) error {
	l, err := durable.OS.Lock(path)
	var locked *durable.LockedError
	switch {
	case errors.As(err, &locked):
		fmt.Println("held by", locked.PID)
	case err != nil:
		return err
	default:
		fmt.Println("locked")
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil || l == nil {
		return err
	}
	return l.Close()
}

func requireHeldBy(t *testing.T, path string, pid int) {
	t.Helper()
	l, err := durable.OS.Lock(path)
	require.Nil(t, l)
	var locked *durable.LockedError
	require.ErrorAs(t, err, &locked)
	require.Equal(t, durable.LockedError{Path: path, PID: pid}, *locked)
	require.ErrorContains(t, err, fmt.Sprintf("%s is locked by process %d", path, pid))
}

func startLock(t *testing.T, path, want string) *child {
	t.Helper()
	c := start(t, "lock", path)
	line, ok := c.line()
	require.True(t, ok)
	require.Equal(t, want, line)
	return c
}

func requireFree(t *testing.T, path string) {
	t.Helper()
	l, err := durable.OS.Lock(path)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestLockHeldByAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	c := startLock(t, path, "locked")
	requireHeldBy(t, path, c.cmd.Process.Pid)
	require.NoError(t, c.in.Close())
	require.NoError(t, c.wait())
	requireFree(t, path)
}

func TestLockHeldByThisProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := durable.OS.Lock(path)
	require.NoError(t, err)
	requireHeldBy(t, path, os.Getpid())
	c := startLock(t, path, fmt.Sprint("held by ", os.Getpid()))
	requireHeldBy(t, path, os.Getpid()) // who did not get it has not written its id
	require.NoError(t, c.in.Close())
	require.NoError(t, c.wait())

	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), fs.ErrClosed)
	requireFree(t, path)
}

func TestLockOfAKilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	c := startLock(t, path, "locked")
	c.kill(t)
	require.Error(t, c.wait())
	stale, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, durable.FormatPID(c.cmd.Process.Pid), string(stale), "the dead process has left its file")
	l, err := durable.OS.Lock(path)
	require.NoError(t, err)
	requireHeldBy(t, path, os.Getpid())
	require.NoError(t, l.Close())
	stale, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Empty(t, stale, "the id goes with the lock")
}

// A lock file that holds no process id, or nonsense, is as good as any.
func TestLockFileContent(t *testing.T) {
	for _, text := range []string{"", "\n", "1", "12345678901234567890123456789012345678901234567890\n", "-1\n", "0\n", "x\n"} {
		path := filepath.Join(t.TempDir(), "lock")
		l, err := durable.OS.Lock(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err = durable.OS.Lock(path)
		var locked *durable.LockedError
		require.ErrorAs(t, err, &locked, "%q", text)
		require.Zero(t, locked.PID)
		require.ErrorContains(t, err, "is locked by another process")
		require.NoError(t, l.Close())
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		requireFree(t, path)
	}
}

func TestLockErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := durable.OS.Lock(filepath.Join(dir, "none", "lock"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = durable.OS.Lock(dir)
	require.Error(t, err)
	var locked *durable.LockedError
	require.NotErrorAs(t, err, &locked)
}

func TestPID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pid := rapid.IntRange(1, 1<<31-1).Draw(t, "pid")
		require.Equal(t, pid, durable.ParsePID(durable.FormatPID(pid)))
	})
}

func FuzzParsePID(f *testing.F) {
	for _, text := range []string{"", "1\n", "1", "01\n", "+1\n", "-1\n", "1\n\n", "99999999999999999999\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if pid := durable.ParsePID(text); pid != 0 {
			require.Positive(t, pid)
			require.Equal(t, text, durable.FormatPID(pid))
		}
	})
}
