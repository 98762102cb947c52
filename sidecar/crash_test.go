package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/sidecar"
)

// told is what an operation under test knew when it ended.
type told struct {
	epoch   uint16 // the highest that was returned as durable
	tried   uint16 // the highest that may be in the file
	updates int    // that returned nil
	unsure  bool   // an outcome was said to be unknown
}

// stateOf is the state that goes with an epoch, so that a mixture of two updates
// shows.
func stateOf(epoch uint16) string {
	return fmt.Sprintf(`{"epoch":%d,"padding":%q}`, epoch, strings.Repeat(fmt.Sprint(epoch), 40))
}

func setAll(tx *sidecar.Tx, epoch uint16) error {
	return errors.Join(
		tx.SetEpoch(7, epoch), tx.SetReserved(7, sidecar.Usage{Seals: uint64(epoch), Bytes: uint64(epoch) << 20}),
		tx.SetThrough(uint64(epoch)), tx.SetState([]byte(stateOf(epoch))),
	)
}

// whole reports the one epoch that all of the file is of.
func whole(f *sidecar.File) (uint16, error) {
	epoch := f.Epoch(7)
	want := stateOf(epoch)
	if epoch == 0 {
		want = "null"
	}
	if got := f.Reserved(7); string(f.State()) != want || f.Through() != uint64(epoch) || got != (sidecar.Usage{Seals: uint64(epoch), Bytes: uint64(epoch) << 20}) {
		return 0, fmt.Errorf("neither old nor new: epoch %d, usage %v, through %d, state %.40s", epoch, got, f.Through(), f.State())
	}
	return epoch, nil
}

// update takes an epoch and keeps account of it in t.
func (t *told) update(f *sidecar.File, epoch uint16) error {
	before := f.Epoch(7)
	err := f.Update(func(tx *sidecar.Tx) error { return setAll(tx, epoch) })
	switch seen := f.Epoch(7); {
	case err == nil:
		t.epoch, t.tried, t.updates = epoch, epoch, t.updates+1
		return nil
	case seen != before:
		return fmt.Errorf("readers see %d after an update that failed with %w", seen, err)
	case errors.Is(err, sidecar.ErrPoisoned) && !t.unsure:
		t.tried, t.unsure = epoch, true
	}
	return err
}

// checkAfter opens what is left and holds it to what the operation was told.
func checkAfter(ctx context.Context, fsys *crashfs.FS, o crashfs.Outcome, t told, w *keks) error {
	f, err := sidecar.Open(ctx, dir, node, w, sidecar.WithFS(fsys))
	if err != nil {
		return err
	}
	epoch, err := whole(f)
	if err != nil {
		return err
	}
	tried := t.tried
	if !o.Returned {
		tried = max(tried, t.epoch+1) // whatever was under way
	}
	if epoch < t.epoch || epoch > tried {
		return fmt.Errorf("got epoch %d, want %d to %d", epoch, t.epoch, tried)
	}
	if names, err := fsys.ReadDir(dir); err != nil || !slices.Equal(names, []string{"keys.json", "keys.json.lock"}) {
		return fmt.Errorf("files %q, %w", names, err)
	}
	// What was read stays, and the file goes on working.
	for loss, later := range fsys.PowerLosses(64, 0) {
		f, err := sidecar.Open(ctx, dir, node, w, sidecar.WithFS(later))
		if err != nil || f.Epoch(7) != epoch {
			return fmt.Errorf("epoch %d was read and then lost (%s): %w", epoch, loss, err)
		}
	}
	if err := f.Update(func(tx *sidecar.Tx) error { return setAll(tx, epoch+1) }); err != nil {
		return err
	}
	return f.Close()
}

func TestCrashesDuringCreate(t *testing.T) {
	w := newKEKs("a")
	var said told
	crashfs.Explore(t,
		func(fsys *crashfs.FS) error { said = told{}; fsys.Mkdir(dir); return nil },
		func(fsys *crashfs.FS) error {
			f, err := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			if err != nil {
				said.unsure = errors.Is(err, sidecar.ErrPoisoned)
				return err
			}
			said.updates = 1
			return f.Close()
		},
		func(fsys *crashfs.FS, o crashfs.Outcome) error {
			err := checkAfter(t.Context(), fsys, o, told{}, w)
			if !errors.Is(err, fs.ErrNotExist) {
				if err == nil && o.Returned && said.updates == 0 && !said.unsure {
					return errors.New("Create failed and left a file")
				}
				return err
			}
			if said.updates > 0 {
				return fmt.Errorf("a file that was created is lost: %w", err)
			}
			f, err := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			if err != nil {
				return err
			}
			return f.Close()
		})
}

// Open, two updates, of which the second goes on after a failure of the first
// if it may, and Close. A stale temporary file lies about.
func TestCrashesDuringUpdates(t *testing.T) {
	w := newKEKs("a")
	var said told
	report := crashfs.Explore(t,
		func(fsys *crashfs.FS) error {
			said = told{epoch: 1, tried: 1}
			fsys.Mkdir(dir)
			f, err := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			if err != nil {
				return err
			}
			write(t, fsys, path+"."+strings.Repeat("A", 26)+".tmp", []byte("stale"))
			return errors.Join(f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 1) }), f.Close())
		},
		func(fsys *crashfs.FS) error {
			f, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			if err != nil {
				return err
			}
			first := said.update(f, 2)
			second := said.update(f, 3)
			if errors.Is(first, sidecar.ErrPoisoned) && !errors.Is(second, sidecar.ErrPoisoned) {
				return fmt.Errorf("update after an unknown outcome: %w", second)
			}
			return errors.Join(first, second, f.Close())
		},
		func(fsys *crashfs.FS, o crashfs.Outcome) error { return checkAfter(t.Context(), fsys, o, said, w) })
	require.Greater(t, report.Ops, 20)
}

func TestCrashesDuringRewrap(t *testing.T) {
	before, after, both := newKEKs("a"), newKEKs("b"), newKEKs("ab")
	w := newKEKs("a")
	crashfs.Explore(t,
		func(fsys *crashfs.FS) error {
			w.use("a")
			fsys.Mkdir(dir)
			f, err := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			if err != nil {
				return err
			}
			return errors.Join(f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 1) }), f.Close())
		},
		func(fsys *crashfs.FS) error {
			f, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			if err != nil {
				return err
			}
			w.use("b")
			return errors.Join(f.Rewrap(t.Context()), f.Close())
		},
		func(fsys *crashfs.FS, o crashfs.Outcome) error {
			// One of the two opens it, and only one.
			open := func(w *keks) error {
				f, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
				if err != nil {
					return err
				}
				return f.Close()
			}
			a, b := open(before), open(after)
			if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), sidecar.ErrFileKey) {
				return fmt.Errorf("old KEK: %v, new KEK: %w", a, b)
			}
			if o.Acknowledged() && b != nil {
				return b
			}
			return checkAfter(t.Context(), fsys, o, told{epoch: 1, tried: 1}, both)
		})
}

// What an update with an unknown outcome leaves behind: nothing can be written
// any more, reading gives what was last known to be durable, and the next
// opening says which it was.
func TestUnknownOutcomePoisons(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind crashfs.Kind
		form crashfs.Form
		want uint16 // after opening again
	}{
		{"rename, not done", crashfs.KindRename, crashfs.NotDone, 1},
		{"rename, done", crashfs.KindRename, crashfs.ButDone, 2},
		{"sync of the directory, not done", crashfs.KindSyncDir, crashfs.NotDone, 2},
		{"sync of the directory, done", crashfs.KindSyncDir, crashfs.ButDone, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys, w := newFS(), newKEKs("a")
			f := mustCreate(t, fsys, node, w)
			require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 1) }))
			at := slices.IndexFunc(recorded(t), func(op crashfs.Op) bool { return op.Kind == tt.kind })
			require.NotEqual(t, -1, at)
			fsys.FailAt(at, nil, tt.form)
			err := f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 2) })
			require.ErrorIs(t, err, sidecar.ErrPoisoned)
			require.ErrorIs(t, err, syscall.EIO)
			require.True(t, fsys.Fired())

			w.use("b")
			calls := w.calls.Load()
			require.Zero(t, ops(fsys, func() {
				err := f.Update(func(*sidecar.Tx) error { t.Error("called"); return nil })
				require.ErrorIs(t, err, sidecar.ErrPoisoned)
				require.ErrorIs(t, err, syscall.EIO, "later errors still say what happened")
				require.ErrorIs(t, f.Rewrap(t.Context()), sidecar.ErrPoisoned)
				epoch, err := whole(f)
				require.NoError(t, err)
				require.EqualValues(t, 1, epoch)
			}))
			require.Equal(t, calls, w.calls.Load(), "no KEK is asked")

			w.use("a")
			require.NoError(t, f.Close())
			require.ErrorIs(t, f.Update(func(*sidecar.Tx) error { return nil }), sidecar.ErrClosed)
			f = mustOpen(t, fsys, node, w)
			epoch, err := whole(f)
			require.NoError(t, err)
			require.Equal(t, tt.want, epoch)
			require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 3) }))
		})
	}
}

// recorded returns the operations of one update.
func recorded(t *testing.T) []crashfs.Op {
	t.Helper()
	fsys := newFS()
	f := mustCreate(t, fsys, node, newKEKs("a"))
	fsys.FailAt(0, nil, crashfs.None)
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 1) }))
	return fsys.Ops()
}

// Failures before the rename leave the File as good as it was.
func TestKnownFailureDoesNotPoison(t *testing.T) {
	for at, op := range recorded(t) {
		if op.Kind == crashfs.KindRename {
			return
		}
		t.Run(op.Kind.String(), func(t *testing.T) {
			fsys, w := newFS(), newKEKs("a")
			f := mustCreate(t, fsys, node, w)
			require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 1) }))
			fsys.FailAt(at, nil, crashfs.NoSpace)
			err := f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 2) })
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NotErrorIs(t, err, sidecar.ErrPoisoned)
			require.ErrorContains(t, err, path)
			fsys.FailAt(0, nil, crashfs.None)
			epoch, err := whole(f)
			require.NoError(t, err)
			require.EqualValues(t, 1, epoch)
			require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return setAll(tx, 2) }))
			require.NoError(t, f.Close())
			epoch, err = whole(mustOpen(t, fsys, node, w))
			require.NoError(t, err)
			require.EqualValues(t, 2, epoch)
		})
	}
	t.Fatal("no rename")
}
