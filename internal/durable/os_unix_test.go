//go:build unix

package durable_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/durable"
)

func TestModeIsPrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o666))
	require.NoError(t, durable.WriteFile(durable.OS, path, []byte("new")))
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	l, err := durable.OS.Lock(path + ".lock")
	require.NoError(t, err)
	defer l.Close()
	info, err = os.Lstat(path + ".lock")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
}

// The names that a simpler writer would use for its temporary file hold a file
// that everybody can write, or a link to one: neither is touched or used.
func TestPlantedFiles(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "f"), filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("victim"), 0o600))
	require.NoError(t, os.WriteFile(path+".tmp", []byte("planted"), 0o666))
	require.NoError(t, os.Symlink(victim, path+".ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp"))
	require.NoError(t, durable.WriteFile(durable.OS, path, []byte("new")))
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	for name, want := range map[string]string{path: "new", victim: "victim", path + ".tmp": "planted"} {
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	require.NoError(t, durable.Recover(durable.OS, path))
	names, err := durable.OS.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"f", "f.tmp", "victim"}, names, "the link is gone, not what it named")
}

// A link in the file's place is replaced, and what it named stays.
func TestWriteFileReplacesALink(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "f"), filepath.Join(dir, "victim")
	require.NoError(t, os.WriteFile(victim, []byte("victim"), 0o600))
	require.NoError(t, os.Symlink(victim, path))
	_, _, err := durable.ReadFile(durable.OS, path, 100)
	require.ErrorIs(t, err, durable.ErrNotRegular)
	require.NoError(t, durable.WriteFile(durable.OS, path, []byte("new")))
	got, _, err := durable.ReadFile(durable.OS, path, 100)
	require.NoError(t, err)
	require.Equal(t, "new", string(got))
	got, err = os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "victim", string(got))
}

func TestOpenFollowsNoLinkAndWaitsForNobody(t *testing.T) {
	dir := t.TempDir()
	victim, link, pipe := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	require.NoError(t, os.WriteFile(victim, []byte("victim"), 0o600))
	require.NoError(t, os.Symlink(victim, link))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))

	_, err := durable.OS.OpenFile(link, os.O_RDONLY, 0)
	require.Error(t, err)
	_, err = durable.OS.Lock(link)
	require.Error(t, err)
	got, err := os.ReadFile(victim)
	require.NoError(t, err)
	require.Equal(t, "victim", string(got), "no process id")

	f, err := durable.OS.OpenFile(pipe, os.O_RDONLY, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, _, err = durable.ReadFile(durable.OS, pipe, 100)
	require.ErrorIs(t, err, durable.ErrNotRegular)
	_, err = durable.OS.Lock(pipe)
	require.ErrorIs(t, err, durable.ErrNotRegular)
}

// swapped shows a regular file to Lstat and opens something else.
type swapped struct {
	durable.FS
	other string
}

func (s swapped) OpenFile(_ string, flag int, perm fs.FileMode) (durable.File, error) {
	return s.FS.OpenFile(s.other, flag, perm)
}

func TestReadFileLooksAtWhatItOpened(t *testing.T) {
	dir := t.TempDir()
	path, pipe, long := filepath.Join(dir, "f"), filepath.Join(dir, "pipe"), filepath.Join(dir, "long")
	require.NoError(t, os.WriteFile(path, []byte("1"), 0o600))
	require.NoError(t, os.WriteFile(long, make([]byte, 101), 0o600))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for other, want := range map[string]error{pipe: durable.ErrNotRegular, dir: durable.ErrNotRegular, long: durable.ErrTooLarge} {
		data, info, err := durable.ReadFile(swapped{durable.OS, other}, path, 100)
		require.ErrorIs(t, err, want)
		require.Nil(t, data)
		require.Nil(t, info)
	}
}

func TestNothingStaysOpen(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc/self/fd on this system to count open files in")
	}
	path := filepath.Join(t.TempDir(), "f")
	l, err := durable.OS.Lock(path + ".lock")
	require.NoError(t, err)
	defer l.Close()
	open := func() int {
		names, err := durable.OS.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(names)
	}
	before := open()
	for range 20 {
		_, err := durable.OS.Lock(path + ".lock")
		require.Error(t, err)
		require.NoError(t, durable.Recover(durable.OS, path))
		require.NoError(t, durable.WriteFile(durable.OS, path, []byte("1")))
		_, _, err = durable.ReadFile(durable.OS, path, 1)
		require.NoError(t, err)
		_, _, err = durable.ReadFile(durable.OS, path, 0)
		require.Error(t, err)
		require.NoError(t, durable.Probe(durable.OS, filepath.Dir(path)))
	}
	require.Less(t, open(), before+10)
}

// The kernel's process directory cannot be synced: EINVAL.
func TestSyncDirFails(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("no /proc on this system")
	}
	require.ErrorIs(t, durable.OS.SyncDir("/proc"), syscall.EINVAL)
	require.ErrorIs(t, durable.OS.SyncDir(filepath.Join(t.TempDir(), "none")), fs.ErrNotExist)
}
