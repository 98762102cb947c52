package sidecar_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

const (
	node = 0x0123_4567_89ab_cdef
	dir  = "data"
	path = dir + "/" + sidecar.FileName
)

// keks is a KeyWrapper over KEKs that are named by one letter each.
type keks struct {
	set   atomic.Pointer[kek.Set]
	calls atomic.Int64
	down  error // the answer to everything
	other bool  // unwrap to another key
}

func newKEKs(names string) *keks {
	w := new(keks)
	w.use(names)
	return w
}

// use configures other KEKs.
func (w *keks) use(names string) {
	var all []kek.KEK
	for _, name := range names {
		all = append(all, kektest.New(string(name)))
	}
	set, err := kek.NewSet(all[0], all[1:]...)
	if err != nil {
		panic(err)
	}
	w.set.Store(set)
}

var errDown = errors.New("the KEK does not answer")

func (w *keks) WrapFileKey(ctx context.Context, node uint64, k key.DEK) ([]byte, error) {
	w.calls.Add(1)
	if w.down != nil {
		return nil, w.down
	}
	return w.set.Load().WrapFileKey(ctx, node, k)
}

func (w *keks) UnwrapFileKey(ctx context.Context, node uint64, container []byte) (key.DEK, error) {
	w.calls.Add(1)
	switch {
	case w.down != nil:
		return key.DEK{}, w.down
	case w.other:
		return key.NewDEK(), nil
	}
	return w.set.Load().UnwrapFileKey(ctx, node, container)
}

func (w *keks) FileKeyCurrent(container []byte) bool { return w.set.Load().FileKeyCurrent(container) }

// newFS returns a file system in memory that has the directory.
func newFS() *crashfs.FS {
	fsys := crashfs.New()
	fsys.Mkdir(dir)
	return fsys
}

func mustCreate(t testing.TB, fsys *crashfs.FS, node uint64, w sidecar.KeyWrapper) *sidecar.File {
	t.Helper()
	f, err := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
	require.NoError(t, err)
	return f
}

func mustOpen(t testing.TB, fsys *crashfs.FS, node uint64, w sidecar.KeyWrapper) *sidecar.File {
	t.Helper()
	f, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
	require.NoError(t, err)
	return f
}

// fill gives a file one of everything.
func fill(t testing.TB, f *sidecar.File) {
	t.Helper()
	require.NoError(t, f.Update(func(tx *sidecar.Tx) error {
		return errors.Join(
			tx.SetEpoch(7, 3), tx.SetEpoch(10, 65535), tx.SetEpoch(9, 1),
			tx.SetReserved(7, sidecar.Usage{Seals: 1 << 20, Bytes: 1 << 34}),
			tx.SetReserved(4294967295, sidecar.Usage{Bytes: 1<<64 - 1}),
			tx.SetThrough(4711),
			tx.SetState([]byte(`{"active":{"storage":7},"keys":[{"id":7,"container":"p0RLAg=="}],"none":[]}`)),
		)
	}))
}

// filled returns a file system with the file of a node, closed, and its bytes.
func filled(t testing.TB, node uint64, w sidecar.KeyWrapper) (*crashfs.FS, []byte) {
	t.Helper()
	fsys := newFS()
	f := mustCreate(t, fsys, node, w)
	fill(t, f)
	require.NoError(t, f.Close())
	return fsys, read(t, fsys, path)
}

func read(t testing.TB, fsys *crashfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	require.NoError(t, err)
	data, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return data
}

// with returns a file system that has a file of these bytes.
func with(t testing.TB, data []byte) *crashfs.FS {
	t.Helper()
	fsys := newFS()
	write(t, fsys, path, data)
	return fsys
}

func write(t testing.TB, fsys *crashfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// ops returns how many operations fn asks of a file system.
func ops(fsys *crashfs.FS, fn func()) int {
	fsys.FailAt(0, nil, crashfs.None)
	fn()
	return len(fsys.Ops())
}

// refused opens the file of node and expects an error and nothing else.
func refused(t testing.TB, fsys *crashfs.FS, node uint64, w sidecar.KeyWrapper) error {
	t.Helper()
	f, err := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
	require.Error(t, err)
	require.Nil(t, f)
	require.Contains(t, err.Error(), path)
	return err
}

// containerOf returns the wrapped file key of a file.
func containerOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var v struct {
		FileKey []byte `json:"file_key"`
	}
	require.NoError(t, json.Unmarshal(data, &v))
	return v.FileKey
}

// withContainer returns the file with another wrapped file key.
func withContainer(data, container []byte) []byte {
	text := `"file_key": "` + base64.StdEncoding.EncodeToString(container) + `"`
	return fileKeyField.ReplaceAllLiteral(data, []byte(text))
}

func dekContainer(t testing.TB) []byte {
	t.Helper()
	c, err := newKEKs("a").set.Load().WrapDEK(t.Context(), key.NewClusterID(), 7, key.Storage, key.NewDEK())
	require.NoError(t, err)
	return c
}
