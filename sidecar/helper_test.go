package sidecar_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/sidecar"
)

const (
	node = 0x0123_4567_89ab_cdef
	dir  = "data"
	path = dir + "/" + sidecar.FileName
)

// keks is a KeyWrapper over KEKs in memory, named by one letter each. A
// container is the node in 8 bytes and for each KEK its name and the file key
// sealed with AES-256-GCM, the node and the name being associated data.
type keks struct {
	names atomic.Value // string: those that are configured
	calls atomic.Int64
	down  error                    // what a KEK says instead of unwrapping
	nonce func(name byte) [12]byte // nil: random
	other bool                     // unwrap to another key
}

func newKEKs(names string) *keks {
	w := new(keks)
	w.names.Store(names)
	return w
}

var errDown = errors.New("the KEK does not answer")

// finalError is an error that asking again does not change.
type finalError string

func (e finalError) Error() string { return string(e) }
func (e finalError) Final() bool   { return true }

const wrapSize = 1 + 12 + 32 + 16

func (w *keks) aead(name byte) cipher.AEAD {
	k := sha256.Sum256([]byte{'k', 'e', 'k', name})
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (w *keks) WrapFileKey(ctx context.Context, node uint64, k key.DEK) ([]byte, error) {
	w.calls.Add(1)
	if w.down != nil || ctx.Err() != nil {
		return nil, errors.Join(w.down, ctx.Err())
	}
	out := binary.BigEndian.AppendUint64(nil, node)
	names, _ := w.names.Load().(string)
	for _, name := range []byte(names) {
		nonce := [12]byte(insecurekey.Bytes(key.NewDEK()))
		if w.nonce != nil {
			nonce = w.nonce(name)
		}
		ad := append(binary.BigEndian.AppendUint64(nil, node), name)
		out = append(append(out, name), nonce[:]...)
		out = w.aead(name).Seal(out, nonce[:], insecurekey.Bytes(k), ad)
	}
	return out, nil
}

func (w *keks) UnwrapFileKey(ctx context.Context, node uint64, container []byte) (key.DEK, error) {
	w.calls.Add(1)
	switch {
	case w.down != nil || ctx.Err() != nil:
		return key.DEK{}, errors.Join(w.down, ctx.Err())
	case w.other:
		return key.NewDEK(), nil
	case len(container) < 8+wrapSize || len(container)%wrapSize != 8:
		return key.DEK{}, finalError("malformed container")
	}
	if got := binary.BigEndian.Uint64(container); got != node {
		return key.DEK{}, fmt.Errorf("container: %w", finalError(fmt.Sprintf("of node %d, not %d", got, node)))
	}
	names, _ := w.names.Load().(string)
	for c := container[8:]; len(c) > 0; c = c[wrapSize:] {
		if !strings.Contains(names, string(c[:1])) {
			continue
		}
		ad := append(binary.BigEndian.AppendUint64(nil, node), c[0])
		b, err := w.aead(c[0]).Open(nil, c[1:13], c[13:wrapSize], ad)
		if err != nil {
			return key.DEK{}, finalError("authentication failed")
		}
		return insecurekey.New(b)
	}
	return key.DEK{}, finalError("no KEK of the container is configured")
}

func (w *keks) FileKeyCurrent(container []byte) bool {
	var got strings.Builder
	for c := container[8:]; len(c) > 0; c = c[wrapSize:] {
		got.WriteByte(c[0])
	}
	return got.String() == w.names.Load()
}

// newFS returns a file system in memory that has the directory.
func newFS() *crashfs.FS {
	fsys := crashfs.New()
	fsys.Mkdir(dir)
	return fsys
}

func mustCreate(t testing.TB, fsys *crashfs.FS, node uint64, w sidecar.KeyWrapper) *sidecar.File {
	t.Helper()
	f, err := sidecar.Create(t.Context(), fsys, dir, node, w)
	require.NoError(t, err)
	return f
}

func mustOpen(t testing.TB, fsys *crashfs.FS, node uint64, w sidecar.KeyWrapper) *sidecar.File {
	t.Helper()
	f, err := sidecar.Open(t.Context(), fsys, dir, node, w)
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
	f, err := sidecar.Open(t.Context(), fsys, dir, node, w)
	require.Error(t, err)
	require.Nil(t, f)
	require.Contains(t, err.Error(), path)
	return err
}
