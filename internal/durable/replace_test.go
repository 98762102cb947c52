package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

func replace(fsys durable.FS, path string, pieces ...[]byte) error {
	r, err := durable.Replace(fsys, path)
	if err != nil {
		return err
	}
	defer r.Abort()
	for _, b := range pieces {
		if _, err := r.Write(b); err != nil {
			return err
		}
	}
	return r.Commit()
}

// A file in pieces holds to what a file in one piece does.
func TestReplaceAtEveryPoint(t *testing.T) {
	for name, old := range map[string][]byte{"replace": oldData, "create": nil} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{"other": []byte("untouched")}
			if old != nil {
				files["f"] = old
			}
			write := func(f *crashfs.FS) error { return replace(f, "d/f", newData[:500], newData[500:]) }
			report := crashfs.Explore(t, seed(files), write, func(f *crashfs.FS, o crashfs.Outcome) error {
				return errors.Join(checkOutcome(o), checkContent(f, o, old), checkTemps(f, o), checkRecover(f))
			})
			require.Equal(t, 7, report.Ops)
		})
	}
}

func TestReplaceAborted(t *testing.T) {
	f := crashfs.New()
	require.NoError(t, seed(map[string][]byte{"f": oldData})(f))
	for _, n := range []int{0, 10} {
		r, err := durable.Replace(f, "d/f")
		require.NoError(t, err)
		_, err = r.Write(make([]byte, n))
		require.NoError(t, err)
		r.Abort()
		r.Abort()
		require.EqualError(t, r.Commit(), "durable: replace d/f: abandoned")
		_, err = r.Write([]byte{1})
		require.Error(t, err)
		got, err := content(f, "d/f")
		require.NoError(t, err)
		require.Equal(t, oldData, got)
		require.NoError(t, wantNames(f, "f"))
	}
}

func TestReplaceCommitted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	r, err := durable.Replace(durable.OS, path)
	require.NoError(t, err)
	_, err = r.Write([]byte("one"))
	require.NoError(t, err)
	_, err = os.Stat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, r.Commit())
	require.NoError(t, r.Commit())
	r.Abort()
	_, err = r.Write([]byte("two"))
	require.Error(t, err)
	got, info, err := durable.ReadFile(durable.OS, path, 10)
	require.NoError(t, err)
	require.Equal(t, "one", string(got))
	require.Equal(t, fs.FileMode(0o600), info.Mode())
	names, err := durable.OS.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, []string{"f"}, names)

	_, err = durable.Replace(durable.OS, filepath.Join(path, "f"))
	require.Error(t, err)
}

// After a write that failed nothing is ever put in place, and an outcome that is
// unknown stays so.
func TestReplaceErrorsStay(t *testing.T) {
	f := crashfs.New()
	require.NoError(t, seed(map[string][]byte{"f": oldData})(f))
	r, err := durable.Replace(lazy{f}, "d/f")
	require.NoError(t, err)
	_, err = r.Write(newData)
	require.ErrorIs(t, err, io.ErrShortWrite)
	require.ErrorIs(t, r.Commit(), io.ErrShortWrite)
	require.NoError(t, wantNames(f, "f"))

	r, err = durable.Replace(f, "d/f")
	require.NoError(t, err)
	f.FailAt(2, nil, crashfs.NotDone) // the rename
	require.ErrorIs(t, r.Commit(), durable.ErrOutcomeUnknown)
	require.ErrorIs(t, r.Commit(), durable.ErrOutcomeUnknown)
	require.NoError(t, wantNames(f, "f"))

	_, err = durable.Replace(planter{f}, "d/f")
	require.ErrorIs(t, err, fs.ErrExist)
}

func TestOpenRead(t *testing.T) {
	f := crashfs.New()
	require.NoError(t, seed(map[string][]byte{"f": oldData})(f))
	file, size, err := durable.OpenRead(f, "d/f")
	require.NoError(t, err)
	require.EqualValues(t, len(oldData), size)
	got, err := io.ReadAll(file)
	require.NoError(t, err)
	require.True(t, bytes.Equal(oldData, got))
	require.NoError(t, file.Close())
	for path, want := range map[string]error{"d": durable.ErrNotRegular, "d/none": fs.ErrNotExist} {
		_, _, err := durable.OpenRead(f, path)
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, fmt.Sprintf("durable: open %s: ", path))
	}
}
