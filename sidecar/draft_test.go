package sidecar_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/sidecar"
)

func draft(t *testing.T, f *crashfs.FS, w *keks, epoch uint16) (*sidecar.File, error) {
	t.Helper()
	return sidecar.Draft(t.Context(), dir, node, w, func(tx *sidecar.Tx) error { return setAll(tx, epoch) }, sidecar.WithFS(f))
}

// A draft is read and updated as any other file, and is on no disk until it is
// published.
func TestDraft(t *testing.T) {
	disk, w := crashfs.New(), newKEKs("a")
	disk.Mkdir(dir)
	f, err := draft(t, disk, w, 3)
	require.NoError(t, err)
	_, err = draft(t, disk, w, 3)
	require.ErrorAs(t, err, new(*sidecar.LockedError))
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 4) }))
	epoch, err := whole(f)
	require.NoError(t, err)
	require.EqualValues(t, 4, epoch)
	_, err = disk.Lstat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, f.Close())
	_, err = disk.Lstat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, f.Publish(), sidecar.ErrClosed)

	f, err = draft(t, disk, w, 5)
	require.NoError(t, err)
	require.NoError(t, f.Publish())
	require.NoError(t, f.Publish(), "once more")
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 6) }))
	require.NoError(t, f.Close())
	f, err = sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(disk))
	require.NoError(t, err)
	epoch, err = whole(f)
	require.NoError(t, err)
	require.EqualValues(t, 6, epoch)
	require.NoError(t, f.Close())
}

// Whatever fails while it is published: it is there whole, or not at all, it is there if
// Publish said so, and an attempt that failed for certain can be made again.
func TestDraftAtEveryPoint(t *testing.T) {
	w := newKEKs("a")
	var f *sidecar.File
	crashfs.Explore(t, func(disk *crashfs.FS) (err error) {
		disk.Mkdir(dir)
		f, err = draft(t, disk, w, 3)
		return err
	}, func(*crashfs.FS) error {
		err := f.Publish()
		if err != nil && !errors.Is(err, sidecar.ErrPoisoned) && f.Publish() == nil {
			err = nil
		}
		return errors.Join(err, f.Close())
	}, func(disk *crashfs.FS, o crashfs.Outcome) error {
		again, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(disk))
		if errors.Is(err, fs.ErrNotExist) && !o.Acknowledged() {
			return nil
		}
		if err != nil {
			return err
		}
		defer again.Close()
		if epoch, err := whole(again); err != nil || epoch != 3 {
			return fmt.Errorf("epoch %d, %w", epoch, err)
		}
		return nil
	})
}
