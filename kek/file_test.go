package kek_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
)

// rawKEK returns 32 bytes that no two numbers share.
func rawKEK(n byte) []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = 0x80 + byte(i)*3 ^ n
	}
	return b
}

// write makes a file with exactly this mode.
func write(t testing.TB, path string, b []byte, mode os.FileMode) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, b, 0o600))
	require.NoError(t, os.Chmod(path, mode))
	return path
}

func kekFile(t testing.TB, b []byte) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "key"), b, 0o600)
}

// noWarning fails the test where File warns.
func noWarning(t testing.TB) kek.FileOption {
	t.Helper()
	return kek.OnWarning(func(err error) { t.Errorf("warning: %v", err) })
}

func aesKEK(t testing.TB, b []byte) *kek.AES {
	t.Helper()
	k, err := kek.NewAES("file", b)
	require.NoError(t, err)
	return k
}

// refusedFile checks that File refuses a path for a reason and says which path.
func refusedFile(t *testing.T, path string, is error, text string, opts ...kek.FileOption) {
	t.Helper()
	k, err := kek.File(path, append([]kek.FileOption{noWarning(t)}, opts...)...)
	require.Nil(t, k)
	require.ErrorIs(t, err, is)
	require.ErrorContains(t, err, text)
	var source *kek.SourceError
	require.ErrorAs(t, err, &source)
	require.Equal(t, "file", source.Source)
	require.Equal(t, path, source.Name)
	require.True(t, strings.HasPrefix(err.Error(), "kek: file "+path+": "), err.Error())
	require.Equal(t, 1, strings.Count(err.Error(), "kek: "), err.Error())
}

func TestFile(t *testing.T) {
	k, err := kek.File(kekFile(t, rawKEK(1)), noWarning(t))
	require.NoError(t, err)
	require.Equal(t, aesKEK(t, rawKEK(1)).ID(), k.ID())
	require.Regexp(t, "^file:[0-9a-f]{16}$", k.ID())
	require.NoError(t, kek.Verify(t.Context(), k))

	again, err := kek.File(kekFile(t, rawKEK(1)))
	require.NoError(t, err)
	require.Equal(t, k.ID(), again.ID(), "the id depends on the bytes alone")
	other, err := kek.File(kekFile(t, rawKEK(2)))
	require.NoError(t, err)
	require.NotEqual(t, k.ID(), other.ID())
}

func TestFileLength(t *testing.T) {
	for _, n := range []int{0, 1, 16, 31, 33, 64, 100_000} {
		refusedFile(t, kekFile(t, bytes.Repeat([]byte{0xfe}, n)), kek.ErrBadKey, "bytes, want 32")
	}
	for text, b := range map[string][]byte{
		"33 bytes, want 32: the last is a newline":                         append(rawKEK(1), '\n'),
		"64 bytes, want 32: it looks like text, want the bytes themselves": []byte(hex.EncodeToString(rawKEK(1))),
		"45 bytes, want 32: it looks like text, want the bytes themselves": []byte(base64.StdEncoding.EncodeToString(rawKEK(1)) + "\n"),
		"all bytes are zero": make([]byte, 32),
	} {
		refusedFile(t, kekFile(t, b), kek.ErrBadKey, text)
	}
}

// No error shows a byte of a file, whatever its length.
func TestFileErrorsShowNothing(t *testing.T) {
	for _, n := range []int{31, 33, 40} {
		b := append(rawKEK(1), rawKEK(2)...)[:n]
		_, err := kek.File(kekFile(t, b))
		require.Error(t, err)
		for _, form := range []string{string(b[:6]), hex.EncodeToString(b[:6]), base64.StdEncoding.EncodeToString(b[:6])} {
			require.NotContains(t, err.Error(), form)
		}
	}
}

func TestFileMissing(t *testing.T) {
	dir := t.TempDir()
	refusedFile(t, filepath.Join(dir, "key"), fs.ErrNotExist, "no such file")
	refusedFile(t, filepath.Join(dir, "no", "key"), fs.ErrNotExist, "no such file")
	_, err := kek.File(filepath.Join(dir, "key"))
	require.NotErrorIs(t, err, kek.ErrInsecure)
	_, err = kek.File("")
	require.Error(t, err)
}

func TestFileFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.Mkdir(dir, 0o700))
	refusedFile(t, dir, kek.ErrInsecure, "it is a folder, want a regular file")
}

func TestFileSymlink(t *testing.T) {
	target := kekFile(t, rawKEK(1))
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(target, link))
	second := filepath.Join(dir, "second")
	require.NoError(t, os.Symlink("link", second))

	for _, path := range []string{link, second} {
		refusedFile(t, path, kek.ErrInsecure, "it is a symbolic link, want a regular file")
		k, err := kek.File(path, kek.AllowSymlink(), noWarning(t))
		require.NoError(t, err)
		require.Equal(t, aesKEK(t, rawKEK(1)).ID(), k.ID())
	}

	// A folder on the way may be a link: only the file itself must not be one.
	linkedDir := filepath.Join(dir, "dir")
	require.NoError(t, os.Symlink(filepath.Dir(target), linkedDir))
	_, err := kek.File(filepath.Join(linkedDir, "key"), noWarning(t))
	require.NoError(t, err)

	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(dir, "nothing"), dangling))
	refusedFile(t, dangling, kek.ErrInsecure, "it is a symbolic link")
	refusedFile(t, dangling, fs.ErrNotExist, "no such file", kek.AllowSymlink())

	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink("loop", loop))
	refusedFile(t, loop, kek.ErrInsecure, "it is a symbolic link")
	_, err = kek.File(loop, kek.AllowSymlink())
	require.Error(t, err)

	// What a link leads to is checked like any file.
	toDir := filepath.Join(dir, "toDir")
	require.NoError(t, os.Symlink(dir, toDir))
	refusedFile(t, toDir, kek.ErrInsecure, "it is a folder", kek.AllowSymlink())
}

// The id and the checks are those of the file that was opened, though another
// lies at the path before they are made.
func TestFileReplacedAfterOpening(t *testing.T) {
	path := kekFile(t, rawKEK(1))
	k, err := kek.File(path, kek.Opened(func(*os.File) {
		require.NoError(t, os.Rename(write(t, path+".new", rawKEK(2), 0o644), path))
	}))
	require.NoError(t, err)
	require.Equal(t, aesKEK(t, rawKEK(1)).ID(), k.ID())

	// A good file in the place of a bad one changes nothing either.
	path = kekFile(t, rawKEK(1)[:31])
	_, err = kek.File(path, kek.Opened(func(*os.File) {
		require.NoError(t, os.Rename(write(t, path+".new", rawKEK(2), 0o600), path))
	}))
	require.ErrorIs(t, err, kek.ErrBadKey)
}

// A file that grows or shrinks while it is read is judged by what is read.
func TestFileChangedAfterOpening(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		path := kekFile(t, rawKEK(1))
		_, err := kek.File(path, kek.Opened(func(*os.File) { write(t, path, make([]byte, n), 0o600) }))
		require.ErrorIs(t, err, kek.ErrBadKey, "%d bytes", n)
	}
}

// An error in reading is passed on.
func TestFileReadError(t *testing.T) {
	refusedFile(t, kekFile(t, rawKEK(1)), os.ErrClosed, "file already closed", kek.Opened(func(f *os.File) { require.NoError(t, f.Close()) }))
}

func TestFileAnyKey(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(rt, "bytes")
		k, err := kek.File(write(t, filepath.Join(dir, "key"), b, 0o600))
		if len(b) != 32 || bytes.Equal(b, make([]byte, 32)) {
			require.ErrorIs(rt, err, kek.ErrBadKey)
			require.Nil(rt, k)
			return
		}
		require.NoError(rt, err)
		require.Equal(rt, aesKEK(t, b).ID(), k.ID())
	})
}

// Without a callback a warning goes to the default logger; nil drops it.
func TestWarningsGoToSlog(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))

	// The folder is gone when it is to be checked.
	vanish := func() (string, kek.FileOption) {
		path := kekFile(t, rawKEK(1))
		return path, kek.Opened(func(*os.File) { require.NoError(t, os.RemoveAll(filepath.Dir(path))) })
	}
	path, opt := vanish()
	_, err := kek.File(path, opt)
	require.NoError(t, err)
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), path)
	require.Contains(t, log.String(), "cannot check its folder")

	log.Reset()
	path, opt = vanish()
	_, err = kek.File(path, opt, kek.OnWarning(nil))
	require.NoError(t, err)
	require.Empty(t, log.String())

	var got []error
	path, opt = vanish()
	_, err = kek.File(path, opt, kek.OnWarning(func(err error) { got = append(got, err) }))
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.ErrorIs(t, got[0], fs.ErrNotExist)
	var source *kek.SourceError
	require.ErrorAs(t, got[0], &source)
	require.Empty(t, log.String())
}
