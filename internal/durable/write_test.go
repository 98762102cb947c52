package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

func TestWriteFileOS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, data := range []string{"", "one", "two, longer", "3"} {
		require.NoError(t, durable.WriteFile(durable.OS, path, []byte(data)))
		got, info, err := durable.ReadFile(durable.OS, path, 100)
		require.NoError(t, err)
		require.Equal(t, data, string(got))
		require.EqualValues(t, len(data), info.Size())
		names, err := durable.OS.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Equal(t, []string{"f"}, names)
	}
}

func TestProbeOS(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, durable.Probe(durable.OS, dir))
	names, err := durable.OS.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
	require.ErrorIs(t, durable.Probe(durable.OS, filepath.Join(dir, "none")), fs.ErrNotExist)
}

// Relative paths work in both file systems.
func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, fsys := range []durable.FS{durable.OS, crashfs.New()} {
		require.NoError(t, durable.WriteFile(fsys, "f", []byte("1")))
		require.NoError(t, durable.Recover(fsys, "f"))
		require.NoError(t, durable.Probe(fsys, "."))
		got, _, err := durable.ReadFile(fsys, "f", 1)
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
	}
}

func TestRenameFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "sub"), 0o700))
	err := durable.WriteFile(durable.OS, path, []byte("1"))
	require.ErrorIs(t, err, durable.ErrOutcomeUnknown)
	require.ErrorContains(t, err, "outcome of replacing "+path+" is unknown: ")
	names, err := durable.OS.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)
}

func TestReadFileLimits(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, make([]byte, 1000), 0o600))
	got, info, err := durable.ReadFile(durable.OS, path, 1000)
	require.NoError(t, err)
	require.Len(t, got, 1000)
	require.Equal(t, "f", info.Name())
	for name, want := range map[string]error{
		path:                      durable.ErrTooLarge,
		dir:                       durable.ErrNotRegular,
		filepath.Join(dir, "no"):  fs.ErrNotExist,
		filepath.Join(path, "no"): nil, // some error
	} {
		got, info, err := durable.ReadFile(durable.OS, name, 999)
		require.Error(t, err)
		if want != nil {
			require.ErrorIs(t, err, want)
		}
		require.ErrorContains(t, err, "durable: read "+name)
		require.Nil(t, got)
		require.Nil(t, info)
	}
}

// liar says that its files are empty.
type liar struct{ durable.FS }

type lyingFile struct{ durable.File }

type lyingInfo struct{ fs.FileInfo }

func (l liar) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := l.FS.OpenFile(name, flag, perm)
	return lyingFile{f}, err
}

func (l liar) Lstat(name string) (fs.FileInfo, error) {
	info, err := l.FS.Lstat(name)
	return lyingInfo{info}, err
}

func (l lyingFile) Stat() (fs.FileInfo, error) {
	info, err := l.File.Stat()
	return lyingInfo{info}, err
}

func (lyingInfo) Size() int64 { return 0 }

// The limit holds, and the file is read to its end, even if it grows meanwhile.
func TestReadFileThatGrows(t *testing.T) {
	f := crashfs.New()
	want := bytes.Repeat([]byte("0123456789"), 1000)
	require.NoError(t, durable.WriteFile(f, "f", want))
	got, _, err := durable.ReadFile(liar{f}, "f", int64(len(want)))
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, _, err = durable.ReadFile(liar{f}, "f", int64(len(want)-1))
	require.ErrorIs(t, err, durable.ErrTooLarge)
	require.Nil(t, got)
}

func TestTempNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.StringMatching(`[a-zA-Z0-9._-]{1,20}`).Draw(t, "base")
		temp := durable.TempName(base)
		require.True(t, durable.IsTempOf(temp, base))
		require.NotEqual(t, temp, durable.TempName(base))
		require.False(t, durable.IsTempOf(temp, base+"x"))
		require.False(t, durable.IsTempOf(temp+"x", base))
		require.False(t, durable.IsTempOf("x"+temp, base))
		require.False(t, durable.IsTempOf(durable.TempName(temp), base))
	})
}

// Whatever fails, and wherever the power does: the file is one that was written,
// not older than the last acknowledged one nor than what was read since.
func TestWriteFileModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := crashfs.New()
		may := []string{""} // what the file may hold; "" is a missing one
		for n := range rapid.IntRange(1, 12).Draw(t, "writes") {
			data := fmt.Sprintf("%d%0*d", n, rapid.IntRange(1, 1500).Draw(t, "size"), n)
			form := crashfs.Form(rapid.IntRange(int(crashfs.None), int(crashfs.PowerLoss)).Draw(t, "form"))
			f.FailAt(rapid.IntRange(0, 6).Draw(t, "at"), nil, form)
			err := durable.WriteFile(f, "f", []byte(data))
			ended := errors.Is(err, crashfs.ErrCrashed)
			switch {
			case err == nil:
				may = []string{data}
			case ended || errors.Is(err, durable.ErrOutcomeUnknown):
				may = append(may, data)
			}
			if ended || rapid.Bool().Draw(t, "power loss") {
				f = f.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
			}
			f.FailAt(0, nil, crashfs.None)
			if rapid.Bool().Draw(t, "reopen") {
				require.NoError(t, durable.Recover(f, "f"))
				got, err := content(f, "f")
				require.NoError(t, err)
				require.Contains(t, may, string(got))
				may = []string{string(got)}
			}
		}
	})
}

// Writers that nobody keeps apart leave one of their files, whole.
func TestConcurrentWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				if err := durable.WriteFile(durable.OS, path, version(i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_, err := readVersion(path)
	require.NoError(t, err)
	names, err := durable.OS.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)
}
