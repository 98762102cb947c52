package sidecar_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

func TestNewFile(t *testing.T) {
	fsys, w := newFS(), newKEKs("a")
	_, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
	require.ErrorIs(t, err, fs.ErrNotExist)
	f := mustCreate(t, fsys, node, w)
	for range 2 {
		assert.Equal(t, uint64(node), f.Node())
		assert.Zero(t, f.Epoch(7))
		assert.Zero(t, f.Reserved(7))
		assert.Zero(t, f.Through())
		assert.Equal(t, "null", string(f.State()))
		assert.Equal(t, filepath.Join(dir, "keys.json"), f.Path())
		assert.True(t, f.FileKeyCurrent())
		require.NoError(t, f.Close())
		f = mustOpen(t, fsys, node, w)
	}
}

func TestUpdateReadsBack(t *testing.T) {
	fsys, w := newFS(), newKEKs("a")
	f := mustCreate(t, fsys, node, w)
	fill(t, f)
	for range 2 {
		assert.EqualValues(t, 3, f.Epoch(7))
		assert.EqualValues(t, 1, f.Epoch(9))
		assert.EqualValues(t, 65535, f.Epoch(10))
		assert.Zero(t, f.Epoch(8))
		assert.Equal(t, sidecar.Usage{Seals: 1 << 20, Bytes: 1 << 34}, f.Reserved(7))
		assert.Equal(t, sidecar.Usage{Bytes: 1<<64 - 1}, f.Reserved(4294967295))
		assert.Zero(t, f.Reserved(9))
		assert.EqualValues(t, 4711, f.Through())
		assert.Equal(t, `{"active":{"storage":7},"keys":[{"id":7,"container":"p0RLAg=="}],"none":[]}`, string(f.State()))
		require.NoError(t, f.Close())
		f = mustOpen(t, fsys, node, w)
	}
	names, err := fsys.ReadDir(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"keys.json", "keys.json.lock"}, names)
}

func TestStateIsACopy(t *testing.T) {
	f := mustCreate(t, newFS(), node, newKEKs("a"))
	value := []byte(`[1]`)
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetState(value) }))
	value[1] = '2'
	require.Equal(t, "[1]", string(f.State()))
	f.State()[1] = '3'
	require.Equal(t, "[1]", string(f.State()))
}

func TestUpdateRefuses(t *testing.T) {
	deep := strings.Repeat("[", sidecar.MaxDepth)
	tests := []struct {
		name string
		fn   func(tx *sidecar.Tx) error
		want error
	}{
		{"an error of the function", func(*sidecar.Tx) error { return errMine }, errMine},
		{"a lower epoch", func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 2) }, sidecar.ErrEpochLowered},
		{"epoch 0", func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 0) }, sidecar.ErrEpochLowered},
		{"an epoch lower than one just set", func(tx *sidecar.Tx) error {
			return errors.Join(tx.SetEpoch(8, 5), tx.SetEpoch(8, 4))
		}, sidecar.ErrEpochLowered},
		{"key id 0, epoch", func(tx *sidecar.Tx) error { return tx.SetEpoch(0, 1) }, key.ErrReservedID},
		{"key id 0, usage", func(tx *sidecar.Tx) error { return tx.SetReserved(0, sidecar.Usage{Seals: 1}) }, key.ErrReservedID},
		{"no state", func(tx *sidecar.Tx) error { return tx.SetState(nil) }, sidecar.ErrState},
		{"not JSON", func(tx *sidecar.Tx) error { return tx.SetState([]byte("{")) }, sidecar.ErrState},
		{"two values", func(tx *sidecar.Tx) error { return tx.SetState([]byte("1 2")) }, sidecar.ErrState},
		{"not UTF-8", func(tx *sidecar.Tx) error { return tx.SetState([]byte("\"\xff\"")) }, sidecar.ErrState},
		{"too deep", func(tx *sidecar.Tx) error {
			return tx.SetState([]byte("[" + deep + strings.Repeat("]", sidecar.MaxDepth+1)))
		}, sidecar.ErrState},
		{"too large when indented", func(tx *sidecar.Tx) error {
			return tx.SetState([]byte(deep + strings.Repeat("1,", 1<<20) + "1" + strings.Repeat("]", sidecar.MaxDepth)))
		}, sidecar.ErrTooLarge},
		{"too large with the rest", func(tx *sidecar.Tx) error {
			return tx.SetState([]byte(`"` + strings.Repeat("x", sidecar.MaxSize-100) + `"`))
		}, sidecar.ErrTooLarge},
		{"an error that the function passes over", func(tx *sidecar.Tx) error {
			_ = tx.SetEpoch(7, 2)
			return nil
		}, sidecar.ErrEpochLowered},
	}
	fsys, w := newFS(), newKEKs("a")
	f := mustCreate(t, fsys, node, w)
	fill(t, f)
	before := read(t, fsys, path)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := ops(fsys, func() {
				err := f.Update(func(tx *sidecar.Tx) error {
					// What was set before the refusal does not happen either.
					require.NoError(t, tx.SetEpoch(9, 2))
					require.NoError(t, tx.SetReserved(9, sidecar.Usage{Seals: 1}))
					require.NoError(t, tx.SetThrough(4712))
					require.NoError(t, tx.SetState([]byte("0")))
					return tt.fn(tx)
				})
				require.ErrorIs(t, err, tt.want)
				if tt.want != errMine {
					require.ErrorContains(t, err, path)
				}
			})
			require.Zero(t, n)
			require.EqualValues(t, 1, f.Epoch(9))
			require.Zero(t, f.Reserved(9))
			require.EqualValues(t, 4711, f.Through())
			require.NotEqual(t, "0", string(f.State()))
			require.Equal(t, string(before), string(read(t, fsys, path)))
		})
	}
	require.NoError(t, f.Close())
	mustOpen(t, fsys, node, w)
}

func TestUpdateWithoutChangeWritesNothing(t *testing.T) {
	fsys := newFS()
	f := mustCreate(t, fsys, node, newKEKs("a"))
	fill(t, f)
	require.Zero(t, ops(fsys, func() {
		fill(t, f)
		require.NoError(t, f.Update(func(*sidecar.Tx) error { return nil }))
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetState([]byte(" " + string(f.State()) + "\n")) }))
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(8, 0) }))
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetReserved(8, sidecar.Usage{}) }))
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetThrough(4710) }))
	}))
	require.NotZero(t, ops(fsys, func() {
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 4) }))
	}))
}

// Calls of several goroutines may overtake one another; neither takes back what
// the other made durable.
func TestReservedIsNeverLowered(t *testing.T) {
	f := mustCreate(t, newFS(), node, newKEKs("a"))
	for _, tt := range []struct{ set, want sidecar.Usage }{
		{sidecar.Usage{Seals: 5, Bytes: 50}, sidecar.Usage{Seals: 5, Bytes: 50}},
		{sidecar.Usage{Seals: 4, Bytes: 60}, sidecar.Usage{Seals: 5, Bytes: 60}},
		{sidecar.Usage{Seals: 6, Bytes: 10}, sidecar.Usage{Seals: 6, Bytes: 60}},
		{sidecar.Usage{}, sidecar.Usage{Seals: 6, Bytes: 60}},
	} {
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error {
			require.NoError(t, tx.SetReserved(7, tt.set))
			require.Equal(t, tt.want, tx.Reserved(7))
			return nil
		}))
		require.Equal(t, tt.want, f.Reserved(7))
	}
}

func TestThroughIsNeverLowered(t *testing.T) {
	fsys, w := newFS(), newKEKs("a")
	f := mustCreate(t, fsys, node, w)
	for _, tt := range []struct{ set, want uint64 }{
		{0, 0}, {5, 5}, {4, 5}, {6, 6}, {0, 6}, {1<<64 - 1, 1<<64 - 1}, {1, 1<<64 - 1},
	} {
		before := f.Through()
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error {
			require.NoError(t, tx.SetThrough(tt.set))
			require.Equal(t, tt.want, tx.Through())
			require.Equal(t, before, f.Through(), "not durable yet")
			return nil
		}))
		require.Equal(t, tt.want, f.Through())
		require.NoError(t, f.Close())
		f = mustOpen(t, fsys, node, w)
		require.Equal(t, tt.want, f.Through())
	}
}

func TestTxSeesItselfAndReadersDoNot(t *testing.T) {
	f := mustCreate(t, newFS(), node, newKEKs("a"))
	fill(t, f)
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error {
		require.EqualValues(t, 3, tx.Epoch(7))
		require.NoError(t, tx.SetEpoch(7, tx.Epoch(7)+1))
		require.EqualValues(t, 4, tx.Epoch(7))
		require.EqualValues(t, 3, f.Epoch(7))
		return nil
	}))
	require.EqualValues(t, 4, f.Epoch(7))
}

func TestTxEndsWithUpdate(t *testing.T) {
	f := mustCreate(t, newFS(), node, newKEKs("a"))
	for i, set := range []func(tx *sidecar.Tx) error{
		func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 9) },
		func(tx *sidecar.Tx) error { return tx.SetReserved(7, sidecar.Usage{Seals: 1}) },
		func(tx *sidecar.Tx) error { return tx.SetThrough(1) },
		func(tx *sidecar.Tx) error { return tx.SetState([]byte("1")) },
	} {
		var kept *sidecar.Tx
		require.NoError(t, f.Update(func(tx *sidecar.Tx) error { kept = tx; return nil }))
		require.ErrorIs(t, set(kept), sidecar.ErrClosed, i)
	}
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 1) }))
	require.Zero(t, f.Reserved(7))
	require.Zero(t, f.Through())
	require.Equal(t, "null", string(f.State()))
	require.PanicsWithValue(t, "mine", func() { _ = f.Update(func(*sidecar.Tx) error { panic("mine") }) })
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 2) }), "a panic leaves nothing locked")
}

func TestClose(t *testing.T) {
	fsys, w := newFS(), newKEKs("a")
	f := mustCreate(t, fsys, node, w)
	fill(t, f)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	require.EqualValues(t, 3, f.Epoch(7))
	require.ErrorIs(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 9) }), sidecar.ErrClosed)
	w.use("b")
	calls := w.calls.Load()
	require.ErrorIs(t, f.Rewrap(t.Context()), sidecar.ErrClosed)
	require.Equal(t, calls, w.calls.Load())
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	fsys, data := filled(t, node, newKEKs("a"))
	_, err := sidecar.Create(t.Context(), dir, node, newKEKs("a"), sidecar.WithFS(fsys))
	require.ErrorIs(t, err, fs.ErrExist)
	require.Equal(t, data, read(t, fsys, path))
	for _, other := range []string{"", "not ours"} {
		fsys := with(t, []byte(other))
		_, err := sidecar.Create(t.Context(), dir, node, newKEKs("a"), sidecar.WithFS(fsys))
		require.ErrorIs(t, err, fs.ErrExist)
		require.Equal(t, other, string(read(t, fsys, path)))
	}
}

func TestStaleTemporaryFilesGo(t *testing.T) {
	w := newKEKs("a")
	stale := path + "." + strings.Repeat("A", 26) + ".tmp"
	open := map[string]func(*crashfs.FS) (*sidecar.File, error){
		"Create": func(f *crashfs.FS) (*sidecar.File, error) {
			return sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(f))
		},
		"Open": func(f *crashfs.FS) (*sidecar.File, error) {
			return sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(f))
		},
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			fsys := newFS()
			if name == "Open" {
				fsys, _ = filled(t, node, w)
			}
			write(t, fsys, stale, []byte("half of a f"))
			write(t, fsys, path+".mine.tmp", nil)
			_, err := open(fsys)
			require.NoError(t, err)
			names, err := fsys.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, []string{"keys.json", "keys.json.lock", "keys.json.mine.tmp"}, names)
		})
	}
}

func TestArguments(t *testing.T) {
	for name, open := range map[string]func(context.Context, string, uint64, sidecar.KeyWrapper, ...sidecar.Option) (*sidecar.File, error){
		"Create": sidecar.Create, "Open": sidecar.Open,
	} {
		t.Run(name, func(t *testing.T) {
			fsys := newFS()
			_, err := open(t.Context(), dir, 0, newKEKs("a"), sidecar.WithFS(fsys))
			require.ErrorContains(t, err, "node id")
			_, err = open(t.Context(), dir, node, nil, sidecar.WithFS(fsys))
			require.ErrorContains(t, err, "KeyWrapper")
			_, err = open(t.Context(), "elsewhere", node, newKEKs("a"), sidecar.WithFS(fsys))
			require.ErrorIs(t, err, fs.ErrNotExist)
			names, err := fsys.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, names)
		})
	}
}

func TestOperatingSystem(t *testing.T) {
	dir, w := t.TempDir(), newKEKs("a")
	f, err := sidecar.Create(t.Context(), dir, node, w)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	info, err := os.Stat(filepath.Join(dir, sidecar.FileName))
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	f, err = sidecar.Open(t.Context(), dir, node, w)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestSecondOpeningInTheProcess(t *testing.T) {
	fsys, w := newFS(), newKEKs("a")
	f := mustCreate(t, fsys, node, w)
	for _, open := range []func(context.Context, string, uint64, sidecar.KeyWrapper, ...sidecar.Option) (*sidecar.File, error){
		sidecar.Create, sidecar.Open,
	} {
		_, err := open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
		var locked *sidecar.LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, path, locked.Path)
		require.Equal(t, os.Getpid(), locked.PID)
		var lower *durable.LockedError
		require.ErrorAs(t, err, &lower)
	}
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 1) }))
	require.NoError(t, f.Close())
	mustOpen(t, fsys, node, w)
}

// A refused file is not locked for good.
func TestRefusalReleasesTheLock(t *testing.T) {
	fsys, _ := filled(t, node, newKEKs("a"))
	require.ErrorIs(t, refused(t, fsys, node, newKEKs("b")), sidecar.ErrFileKey)
	_, err := sidecar.Create(t.Context(), dir, node, newKEKs("a"), sidecar.WithFS(fsys))
	require.ErrorIs(t, err, fs.ErrExist)
	mustOpen(t, fsys, node, newKEKs("a"))
}

func TestReadersAndWritersAtOnce(t *testing.T) {
	fsys, w := newFS(), newKEKs("a")
	f := mustCreate(t, fsys, node, w)
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetState([]byte("0")) }))
	const writers, updates = 4, 50
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		reading.Go(func() {
			for last := uint16(0); ; {
				var state uint16
				epoch := f.Epoch(7)
				assert.NoError(t, json.Unmarshal(f.State(), &state))
				assert.GreaterOrEqual(t, epoch, last)
				assert.GreaterOrEqual(t, state, epoch, "read after the epoch")
				last = epoch
				_ = f.FileKeyCurrent()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range writers {
		writing.Go(func() {
			for range updates {
				assert.NoError(t, f.Update(func(tx *sidecar.Tx) error {
					epoch := tx.Epoch(7) + 1
					return errors.Join(tx.SetEpoch(7, epoch), tx.SetState(fmt.Append(nil, epoch)))
				}))
			}
		})
	}
	writing.Go(func() {
		for i := range 20 {
			w.use([]string{"a", "ab"}[i%2])
			assert.NoError(t, f.Rewrap(t.Context()))
		}
	})
	writing.Wait()
	close(done)
	reading.Wait()
	require.EqualValues(t, writers*updates, f.Epoch(7))
	require.NoError(t, f.Close())
	require.EqualValues(t, writers*updates, mustOpen(t, fsys, node, w).Epoch(7))
}
