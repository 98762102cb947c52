package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/stream"
)

func readFile(t *testing.T, path string, keys stream.Keys) []byte {
	t.Helper()
	f, err := stream.OpenFile(t.Context(), path, keys, place, stream.WithWorkers(2))
	require.NoError(t, err)
	defer f.Close()
	got, err := io.ReadAll(f)
	require.NoError(t, err)
	return got
}

func TestFiles(t *testing.T) {
	keys := newStore(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, n := range []int{0, 10, 3 * seg, 3*seg + 10} {
		plaintext := text(n)
		require.NoError(t, stream.WriteFile(t.Context(), path, bytes.NewReader(plaintext), keys, place, stream.WithSegmentSize(seg)))
		require.True(t, bytes.Equal(plaintext, readFile(t, path, keys)))
		at, err := stream.OpenFileAt(t.Context(), path, keys, place)
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(io.NewSectionReader(at, 0, at.Size()), plaintext))
		require.NoError(t, at.Close())
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode())
	}

	// A file that is given up, or whose source fails, leaves the old one.
	old := readFile(t, path, keys)
	w, err := stream.CreateFile(t.Context(), path, keys, place)
	require.NoError(t, err)
	require.Equal(t, keyID, w.KeyID())
	_, err = w.Write([]byte("new"))
	require.NoError(t, err)
	w.Abort()
	require.ErrorIs(t, w.Close(), stream.ErrClosed)
	src := io.MultiReader(bytes.NewReader(text(10*seg)), iotest.ErrReader(errBroken))
	require.ErrorIs(t, stream.WriteFile(t.Context(), path, src, keys, place), errBroken)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, stream.WriteFile(canceled, path, bytes.NewReader(nil), keys, place), context.Canceled)
	require.ErrorIs(t, stream.WriteFile(t.Context(), path, bytes.NewReader(nil), keys, stream.Place{}), stream.ErrArgument)
	require.True(t, bytes.Equal(old, readFile(t, path, keys)))
	names, err := durable.OS.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)

	// Closed twice it is there once.
	w, err = stream.CreateFile(t.Context(), path, keys, place)
	require.NoError(t, err)
	_, err = w.ReadFrom(bytes.NewReader([]byte("new")))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	w.Abort()
	require.Equal(t, "new", string(readFile(t, path, keys)))

	// What a process left that died.
	left := path + ".ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp"
	require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
	require.NoError(t, stream.RecoverFile(path))
	_, err = os.Stat(left)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestOpenFileErrors(t *testing.T) {
	keys := newStore(t)
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	require.NoError(t, os.WriteFile(garbage, []byte("not a stream"), 0o600))
	for path, want := range map[string]error{
		filepath.Join(dir, "none"): fs.ErrNotExist,
		dir:                        stream.ErrNotRegular,
		garbage:                    stream.ErrFormat,
	} {
		f, err := stream.OpenFile(t.Context(), path, keys, place)
		require.ErrorIs(t, err, want)
		require.Nil(t, f)
		at, err := stream.OpenFileAt(t.Context(), path, keys, place)
		require.ErrorIs(t, err, want)
		require.Nil(t, at)
	}
	require.ErrorIs(t, stream.RecoverFile(filepath.Join(dir, "none", "f")), fs.ErrNotExist)
	_, err := stream.CreateFile(t.Context(), filepath.Join(dir, "none", "f"), keys, place)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// With every fault at every operation, and a power loss after each: the file is the
// old stream or the new one, whole.
func TestFileAtEveryPoint(t *testing.T) {
	keys := newStore(t)
	read := func(fsys durable.FS) ([]byte, error) {
		f, err := stream.OpenFileOn(t.Context(), fsys, "d/f", keys, place)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return io.ReadAll(f)
	}
	oldText, newText := text(300), text(700)
	for _, old := range [][]byte{nil, oldText} {
		setup := func(f *crashfs.FS) error {
			f.Mkdir("d")
			if old == nil {
				return nil
			}
			return stream.WriteFileOn(t.Context(), f, "d/f", bytes.NewReader(old), keys, place)
		}
		write := func(f *crashfs.FS) error {
			return stream.WriteFileOn(t.Context(), f, "d/f", bytes.NewReader(newText), keys, place)
		}
		report := crashfs.Explore(t, setup, write, func(f *crashfs.FS, o crashfs.Outcome) error {
			got, err := read(f)
			isOld, isNew := bytes.Equal(got, old), bytes.Equal(got, newText)
			unknown := errors.Is(o.Err, stream.ErrOutcomeUnknown)
			switch {
			case err != nil:
				return err
			case !isOld && !isNew:
				return fmt.Errorf("neither old nor new: %d bytes", len(got))
			case o.Acknowledged() && !isNew:
				return errors.New("an acknowledged file is lost")
			case o.Returned && (o.Err == nil) != (o.Form == crashfs.None):
				return errors.New("an error is lost or made up")
			case o.Returned && unknown != (o.Err != nil && o.Tried(crashfs.KindRename)):
				return fmt.Errorf("outcome unknown: %t", unknown)
			case o.Returned && o.Err != nil && !unknown && !isOld:
				return errors.New("a write that failed took place")
			}
			return durable.Recover(f, "d/f")
		})
		require.Equal(t, 7, report.Ops) // create, header, segment, sync, close, rename, syncdir
	}
}

// An error of a read is never an end.
func TestReadFileAtEveryPoint(t *testing.T) {
	keys := newStore(t)
	setup := func(f *crashfs.FS) error {
		return stream.WriteFileOn(t.Context(), f, "f", bytes.NewReader(text(700)), keys, place)
	}
	var got []byte
	read := func(f *crashfs.FS) error {
		r, err := stream.OpenFileOn(t.Context(), f, "f", keys, place)
		if err != nil {
			return err
		}
		got, err = io.ReadAll(r)
		return errors.Join(err, r.Close())
	}
	crashfs.Explore(t, setup, read, func(_ *crashfs.FS, o crashfs.Outcome) error {
		if o.Returned && (o.Err == nil) != (o.Form == crashfs.None) {
			return errors.New("an error is lost or made up")
		}
		if o.Err == nil && !bytes.Equal(got, text(700)) {
			return errors.New("other bytes")
		}
		return nil
	})
}

// A Close that failed before the commit once left its temporary file.
func TestCloseThatFailsRemovesTheTemporaryFile(t *testing.T) {
	keys := newStore(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	w, err := stream.CreateFile(ctx, filepath.Join(dir, "f"), keys, place)
	require.NoError(t, err)
	names, err := durable.OS.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
	cancel()
	require.ErrorIs(t, w.Close(), context.Canceled)
	names, err = durable.OS.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
	require.ErrorIs(t, w.Close(), context.Canceled)
	w.Abort()
}

// handles counts the files that are open.
type handles struct {
	durable.FS
	open int
}

func (h *handles) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := h.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	h.open++
	return &handle{f.(*os.File), h}, nil
}

type handle struct {
	*os.File
	of *handles
}

func (h *handle) Close() error {
	h.of.open--
	return h.File.Close()
}

// A file that did not open as a stream once stayed open.
func TestOpenFileThatFailsClosesTheFile(t *testing.T) {
	keys := newStore(t)
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, stream.WriteFile(t.Context(), path, bytes.NewReader(text(100)), keys, place))
	other := stream.Place{Label: "other"}
	fsys := &handles{FS: durable.OS}
	r, err := stream.OpenFileOn(t.Context(), fsys, path, keys, other)
	require.ErrorIs(t, err, stream.ErrLabel)
	require.Nil(t, r)
	require.Zero(t, fsys.open)
	at, err := stream.OpenFileAtOn(t.Context(), fsys, path, keys, other)
	require.ErrorIs(t, err, stream.ErrLabel)
	require.Nil(t, at)
	require.Zero(t, fsys.open)
	w, err := stream.CreateFileOn(t.Context(), fsys, path, keys, stream.Place{})
	require.ErrorIs(t, err, stream.ErrArgument)
	require.Nil(t, w)
	require.Zero(t, fsys.open)

	r, err = stream.OpenFileOn(t.Context(), fsys, path, keys, place)
	require.NoError(t, err)
	at, err = stream.OpenFileAtOn(t.Context(), fsys, path, keys, place)
	require.NoError(t, err)
	require.Equal(t, 2, fsys.open)
	require.NoError(t, r.Close())
	require.NoError(t, at.Close())
	require.Zero(t, fsys.open)

	// Where files cannot be read at an offset.
	mem := crashfs.New()
	require.NoError(t, stream.WriteFileOn(t.Context(), mem, "f", bytes.NewReader(text(100)), keys, place))
	_, err = stream.OpenFileAtOn(t.Context(), mem, "f", keys, place)
	require.EqualError(t, err, "stream: file cannot be read at an offset")
}

// A link is never followed: it is refused where a file is read, and replaced where
// one is written.
func TestSymbolicLink(t *testing.T) {
	keys := newStore(t)
	dir := t.TempDir()
	path, target := filepath.Join(dir, "link"), filepath.Join(dir, "target")
	require.NoError(t, stream.WriteFile(t.Context(), target, bytes.NewReader(text(100)), keys, place))
	if err := os.Symlink(target, path); err != nil {
		t.Skip("links cannot be made here: ", err)
	}
	_, err := stream.OpenFile(t.Context(), path, keys, place)
	require.ErrorIs(t, err, stream.ErrNotRegular)
	require.ErrorContains(t, err, "stream: open "+path+": ")
	_, err = stream.OpenFileAt(t.Context(), path, keys, place)
	require.ErrorIs(t, err, stream.ErrNotRegular)

	require.NoError(t, stream.WriteFile(t.Context(), path, bytes.NewReader(text(200)), keys, place))
	require.Equal(t, text(200), readFile(t, path, keys))
	require.Equal(t, text(100), readFile(t, target, keys))
}

// Texts that name the operation and the path once.
func TestTextsOfFileErrors(t *testing.T) {
	keys := newStore(t)
	path := filepath.Join(t.TempDir(), "none", "f")
	_, err := stream.OpenFile(t.Context(), path, keys, place)
	require.ErrorContains(t, err, "stream: open "+path+": ")
	require.NotContains(t, err.Error(), "durable")
	_, err = stream.CreateFile(t.Context(), path, keys, place)
	require.ErrorContains(t, err, "stream: replace "+path+": ")
	require.NotContains(t, err.Error(), "durable")
	err = stream.RecoverFile(path)
	require.ErrorContains(t, err, "stream: recover "+path+": ")
	require.NotContains(t, err.Error(), "durable")
}
