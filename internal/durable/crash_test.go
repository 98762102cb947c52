package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

// Each spans two blocks of crashfs, so that a torn file is neither.
var (
	oldData = bytes.Repeat([]byte("old "), 200)
	newData = bytes.Repeat([]byte("NEW!"), 210)
)

// content returns nil for a missing file.
func content(fsys durable.FS, path string) ([]byte, error) {
	data, _, err := durable.ReadFile(fsys, path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// seed is a setup that makes files in the directory d.
func seed(files map[string][]byte) func(*crashfs.FS) error {
	return func(f *crashfs.FS) error {
		f.Mkdir("d")
		for name, data := range files {
			if err := durable.WriteFile(f, "d/"+name, data); err != nil {
				return err
			}
		}
		return nil
	}
}

func wantNames(f *crashfs.FS, want ...string) error {
	names, err := f.ReadDir("d")
	if err == nil && !slices.Equal(names, want) {
		err = fmt.Errorf("the directory holds %q, want %q", names, want)
	}
	return err
}

func TestWriteFileAtEveryPoint(t *testing.T) {
	for name, old := range map[string][]byte{"replace": oldData, "create": nil} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{"other": []byte("untouched")}
			if old != nil {
				files["f"] = old
			}
			write := func(f *crashfs.FS) error { return durable.WriteFile(f, "d/f", newData) }
			report := crashfs.Explore(t, seed(files), write, func(f *crashfs.FS, o crashfs.Outcome) error {
				return errors.Join(checkOutcome(o), checkContent(f, o, old), checkTemps(f, o), checkRecover(f))
			})
			require.Equal(t, 6, report.Ops)
		})
	}
}

// checkOutcome: every error is told, and called unknown if, and only if, the
// rename was tried.
func checkOutcome(o crashfs.Outcome) error {
	if !o.Returned {
		return nil
	}
	if (o.Err == nil) != (o.Form == crashfs.None) {
		return errors.New("an error is lost or made up")
	}
	if o.Op.Kind != crashfs.KindCreate && !o.Tried(crashfs.KindClose) {
		return errors.New("a file stays open")
	}
	if o.Err == nil {
		return nil
	}
	unknown := errors.Is(o.Err, durable.ErrOutcomeUnknown)
	var typed *durable.UnknownOutcomeError
	if unknown != errors.As(o.Err, &typed) {
		return errors.New("the sentinel and the type disagree")
	}
	if unknown != o.Tried(crashfs.KindRename) {
		return fmt.Errorf("outcome unknown: %t, rename tried: %t", unknown, !unknown)
	}
	if !errors.Is(o.Err, crashfs.ErrInjected) {
		return errors.New("the cause is lost")
	}
	return nil
}

func checkContent(f *crashfs.FS, o crashfs.Outcome, old []byte) error {
	got, err := content(f, "d/f")
	if err != nil {
		return err
	}
	isOld, isNew := bytes.Equal(got, old), bytes.Equal(got, newData)
	switch {
	case !isOld && !isNew:
		return fmt.Errorf("neither old nor new: %d bytes", len(got))
	case o.Acknowledged() && !isNew:
		return errors.New("an acknowledged write is lost")
	case o.Returned && o.Err != nil && !errors.Is(o.Err, durable.ErrOutcomeUnknown) && !isOld:
		return errors.New("a write that failed took place")
	}
	if other, err := content(f, "d/other"); err != nil || string(other) != "untouched" {
		return fmt.Errorf("another file changed: %q, %w", other, err)
	}
	if info, err := f.Lstat("d/f"); err == nil && info.Mode() != 0o600 {
		return fmt.Errorf("mode %v", info.Mode())
	}
	return nil
}

// checkTemps: none is left by a process that lived on, with a disk that did.
func checkTemps(f *crashfs.FS, o crashfs.Outcome) error {
	ordinary := o.Returned && o.Form != crashfs.Broken && o.Loss == ""
	if !ordinary && !o.Acknowledged() {
		return nil
	}
	names, err := f.ReadDir("d")
	if err != nil {
		return err
	}
	if slices.ContainsFunc(names, func(name string) bool { return durable.IsTempOf(name, "f") }) {
		return fmt.Errorf("a temporary file is left: %q", names)
	}
	return nil
}

// checkRecover: what is read after Recover is there to stay, and nothing else.
func checkRecover(f *crashfs.FS) error {
	before, err := content(f, "d/f")
	if err != nil {
		return err
	}
	want := []string{"f", "other"}
	if before == nil {
		want = want[1:]
	}
	if err := durable.Recover(f, "d/f"); err != nil {
		return err
	}
	for _, after := range f.PowerLosses(100, 0) {
		got, err := content(after, "d/f")
		if err != nil || !bytes.Equal(got, before) {
			return fmt.Errorf("after Recover, a power loss changed the file: %d bytes, %w", len(got), err)
		}
		if err := wantNames(after, want...); err != nil {
			return fmt.Errorf("after Recover: %w", err)
		}
	}
	return nil
}

// A process that goes on after an unknown outcome may rely on what it reads
// once Recover has returned nil.
func TestRecoverAfterUnknownOutcome(t *testing.T) {
	var read []byte
	recovered := 0
	op := func(f *crashfs.FS) error {
		read = nil
		err := durable.WriteFile(f, "d/f", newData)
		if err == nil || durable.Recover(f, "d/f") != nil {
			return err
		}
		read, _ = content(f, "d/f")
		return err
	}
	crashfs.Explore(t, seed(map[string][]byte{"f": oldData}), op, func(f *crashfs.FS, o crashfs.Outcome) error {
		if !o.Returned || read == nil {
			return nil
		}
		recovered++
		if got, err := content(f, "d/f"); err != nil || !bytes.Equal(got, read) {
			return fmt.Errorf("read %.4q, now it is %.4q, %w", read, got, err)
		}
		return nil
	})
	require.Positive(t, recovered)
}

func TestRecoverAtEveryPoint(t *testing.T) {
	files := map[string][]byte{
		"f": oldData, "f.tmp": nil, "f.AAAA.tmp": nil, "g.ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp": nil, "f.abcdefghijklmnopqrstuvwxyz.tmp": nil,
	}
	kept := []string{"f", "f.AAAA.tmp", "f.abcdefghijklmnopqrstuvwxyz.tmp", "f.tmp", "g.ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp"}
	setup := func(f *crashfs.FS) error {
		for _, temp := range []string{"d/f.ABCDEFGHIJKLMNOPQRSTUVWXYZ.tmp", durable.TempName("d/f")} {
			f.Mkdir("d")
			if _, err := f.OpenFile(temp, os.O_WRONLY|os.O_CREATE, 0o666); err != nil {
				return err
			}
		}
		return seed(files)(f)
	}
	op := func(f *crashfs.FS) error { return durable.Recover(f, "d/f") }
	report := crashfs.Explore(t, setup, op, func(f *crashfs.FS, o crashfs.Outcome) error {
		if o.Acknowledged() {
			return wantNames(f, kept...)
		}
		for name, want := range files {
			if got, err := content(f, "d/"+name); err != nil || !bytes.Equal(got, want) {
				return fmt.Errorf("%s changed: %w", name, err)
			}
		}
		return nil
	})
	require.Equal(t, 4, report.Ops) // readdir, two removals, syncdir
}

func TestReadFileAtEveryPoint(t *testing.T) {
	var got []byte
	read := func(f *crashfs.FS) (err error) {
		got, _, err = durable.ReadFile(f, "d/f", int64(len(oldData)))
		return err
	}
	crashfs.Explore(t, seed(map[string][]byte{"f": oldData}), read, func(f *crashfs.FS, o crashfs.Outcome) error {
		if closed := o.Op.Kind == crashfs.KindClose; (o.Err == nil) != (o.Form == crashfs.None || closed) {
			return errors.New("an error is lost or made up")
		}
		if want := oldData; o.Err == nil && !bytes.Equal(got, want) || o.Err != nil && got != nil {
			return fmt.Errorf("read %d bytes", len(got))
		}
		return wantNames(f, "f")
	})
}

func TestProbeAtEveryPoint(t *testing.T) {
	probe := func(f *crashfs.FS) error { return durable.Probe(f, "d") }
	crashfs.Explore(t, seed(map[string][]byte{"f": oldData}), probe, func(f *crashfs.FS, o crashfs.Outcome) error {
		ordinary := o.Returned && o.Form != crashfs.Broken && o.Loss == ""
		if ordinary || o.Acknowledged() {
			if err := wantNames(f, "f"); err != nil {
				return err
			}
		}
		if errors.Is(o.Err, durable.ErrUnsupportedFS) {
			return errors.New("a failing file system is not an unsuitable one")
		}
		// Whatever a probe leaves that was cut short, the next one removes.
		if err := durable.Probe(f, "d"); err != nil {
			return err
		}
		for _, after := range f.PowerLosses(100, 0) {
			if err := wantNames(after, "f"); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestProbeUnsupported(t *testing.T) {
	kinds := map[crashfs.Kind]bool{}
	var ops []crashfs.Op
	run := func(k int, err error, form crashfs.Form) (*crashfs.FS, error) {
		f := crashfs.New()
		require.NoError(t, seed(nil)(f))
		f.FailAt(k, err, form)
		got := durable.Probe(f, "d")
		if form == crashfs.None {
			ops = f.Ops()
		}
		return f, got
	}
	_, err := run(0, nil, crashfs.None)
	require.NoError(t, err)
	for k, op := range ops {
		switch op.Kind {
		case crashfs.KindSync, crashfs.KindSyncDir, crashfs.KindRename:
		default:
			continue
		}
		kinds[op.Kind] = true
		for _, errno := range []error{syscall.EINVAL, syscall.ENOTSUP, syscall.ENOSYS} {
			f, err := run(k, errno, crashfs.NotDone)
			require.ErrorIs(t, err, durable.ErrUnsupportedFS, "%v at %v", errno, op)
			require.ErrorIs(t, err, errno)
			require.NoError(t, wantNames(f))
		}
		_, err := run(k, syscall.EROFS, crashfs.NotDone)
		require.Error(t, err)
		require.NotErrorIs(t, err, durable.ErrUnsupportedFS)
		require.ErrorIs(t, err, syscall.EROFS)
	}
	require.Len(t, kinds, 3)
}

// stubborn does not replace files.
type stubborn struct{ durable.FS }

func (s stubborn) Rename(a, b string) error {
	if _, err := s.Lstat(b); err == nil {
		return s.Remove(a)
	}
	return s.FS.Rename(a, b)
}

func TestProbeReadsBack(t *testing.T) {
	f := crashfs.New()
	require.ErrorIs(t, durable.Probe(stubborn{f}, "."), durable.ErrUnsupportedFS)
	names, err := f.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, names)
}

func TestProbeMissingDirectory(t *testing.T) {
	err := durable.Probe(crashfs.New(), "none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, durable.ErrUnsupportedFS)
}

// lazy writes less than it was given and says nothing.
type lazy struct{ durable.FS }

type lazyFile struct{ durable.File }

func (l lazy) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := l.FS.OpenFile(name, flag, perm)
	return lazyFile{f}, err
}

func (l lazyFile) Write(b []byte) (int, error) { return l.File.Write(b[:len(b)-1]) }

func TestShortWriteWithoutError(t *testing.T) {
	f := crashfs.New()
	require.NoError(t, durable.WriteFile(f, "f", oldData))
	err := durable.WriteFile(lazy{f}, "f", newData)
	require.ErrorContains(t, err, "short write")
	got, err := content(f, "f")
	require.NoError(t, err)
	require.Equal(t, oldData, got)
}

// planter makes a file under each name just before it is to be created.
type planter struct{ durable.FS }

func (p planter) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	if flag&os.O_CREATE != 0 {
		f, err := p.FS.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write([]byte("planted")); err != nil {
			return nil, err
		}
	}
	return p.FS.OpenFile(name, flag, perm)
}

// Even a guessed name does not get a planted file into place.
func TestPlantedTemporaryFile(t *testing.T) {
	f := crashfs.New()
	require.NoError(t, durable.WriteFile(f, "f", oldData))
	err := durable.WriteFile(planter{f}, "f", newData)
	require.ErrorIs(t, err, fs.ErrExist)
	require.NotErrorIs(t, err, durable.ErrOutcomeUnknown)
	got, err := content(f, "f")
	require.NoError(t, err)
	require.Equal(t, oldData, got)
	names, err := f.ReadDir(".")
	require.NoError(t, err)
	require.Len(t, names, 2, "what is not ours stays")
}
