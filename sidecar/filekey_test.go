package sidecar_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// A wrong KEK is final, one that does not answer is not.
func TestWrongKEKAndNoAnswer(t *testing.T) {
	fsys, data := filled(t, node, newKEKs("a"))

	err := refused(t, fsys, node, newKEKs("b"))
	require.ErrorIs(t, err, sidecar.ErrFileKey)
	require.ErrorIs(t, err, kek.ErrWrongKey)

	down := newKEKs("a")
	down.down = errDown
	err = refused(t, fsys, node, down)
	require.ErrorIs(t, err, errDown)
	require.NotErrorIs(t, err, sidecar.ErrFileKey)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = sidecar.Open(ctx, dir, node, newKEKs("a"), sidecar.WithFS(fsys))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, sidecar.ErrFileKey)

	require.Equal(t, data, read(t, fsys, path))
	mustOpen(t, fsys, node, newKEKs("a"))
}

// A wrapper that breaks its contract makes no file and opens none.
type brokenWrapper struct {
	*keks
	container []byte
	noKey     bool
}

func (w brokenWrapper) WrapFileKey(context.Context, uint64, key.DEK) ([]byte, error) {
	return w.container, nil
}

func (w brokenWrapper) UnwrapFileKey(ctx context.Context, node uint64, container []byte) (key.DEK, error) {
	if w.noKey {
		return key.DEK{}, nil
	}
	return w.keks.UnwrapFileKey(ctx, node, container)
}

// otherNode wraps for another node and does not mind.
type otherNode struct{ *keks }

func (w otherNode) WrapFileKey(ctx context.Context, node uint64, k key.DEK) ([]byte, error) {
	return w.keks.WrapFileKey(ctx, node+1, k)
}

func (w otherNode) UnwrapFileKey(ctx context.Context, node uint64, container []byte) (key.DEK, error) {
	return w.keks.UnwrapFileKey(ctx, node+1, container)
}

func TestCreateNeedsAWrapThatUnwraps(t *testing.T) {
	down, other, wrong := newKEKs("a"), newKEKs("a"), newKEKs("b")
	down.down, other.other = errDown, true
	container := func(node uint64) []byte {
		c, err := newKEKs("a").WrapFileKey(t.Context(), node, key.NewDEK())
		require.NoError(t, err)
		return c
	}
	for name, w := range map[string]sidecar.KeyWrapper{
		"down":                  down,
		"another key":           other,
		"no container":          brokenWrapper{keks: newKEKs("a")},
		"a huge container":      brokenWrapper{keks: newKEKs("a"), container: make([]byte, 1<<20)},
		"another node":          brokenWrapper{keks: newKEKs("a"), container: container(node + 1)},
		"made for another node": otherNode{newKEKs("a")},
		"another KEK":           brokenWrapper{keks: wrong, container: container(node)},
		"no key, and no error":  brokenWrapper{container: container(node), noKey: true},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := newFS()
			_, err := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, "file key")
			require.NotErrorIs(t, err, sidecar.ErrFileKey, "there is no file that it could be about")
			names, err := fsys.ReadDir(dir)
			require.NoError(t, err)
			require.Equal(t, []string{"keys.json.lock"}, names)
		})
	}
}

func TestRewrap(t *testing.T) {
	w := newKEKs("a")
	fsys, before := filled(t, node, w)
	f := mustOpen(t, fsys, node, w)
	require.Zero(t, ops(fsys, func() { require.NoError(t, f.Rewrap(t.Context())) }), "nothing to do")

	w.use("ab")
	require.False(t, f.FileKeyCurrent())
	require.NoError(t, f.Rewrap(t.Context()))
	require.True(t, f.FileKeyCurrent())
	require.NotEqual(t, before, read(t, fsys, path))
	require.EqualValues(t, 3, f.Epoch(7))
	require.NoError(t, f.Close())

	for _, names := range []string{"a", "b", "ab"} {
		f := mustOpen(t, fsys, node, newKEKs(names))
		require.EqualValues(t, 3, f.Epoch(7))
		require.Equal(t, names == "ab", f.FileKeyCurrent())
		require.NoError(t, f.Close())
	}
	require.ErrorIs(t, refused(t, fsys, node, newKEKs("c")), sidecar.ErrFileKey)

	f = mustOpen(t, fsys, node, newKEKs("b"))
	require.NoError(t, f.Rewrap(t.Context()))
	require.NoError(t, f.Close())
	require.ErrorIs(t, refused(t, fsys, node, newKEKs("a")), sidecar.ErrFileKey)
}

func TestRewrapThatFails(t *testing.T) {
	w := newKEKs("a")
	fsys, before := filled(t, node, w)
	f := mustOpen(t, fsys, node, w)
	w.use("b")

	w.down = errDown
	require.ErrorIs(t, f.Rewrap(t.Context()), errDown)
	w.down, w.other = nil, true
	require.ErrorContains(t, f.Rewrap(t.Context()), "another key")
	w.other = false
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, f.Rewrap(ctx), context.Canceled)
	require.Equal(t, before, read(t, fsys, path))

	require.NoError(t, f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 4) }), "the file is still good")
	require.NoError(t, f.Rewrap(t.Context()))
}

// slowWrapper lets a test act while the KEK is asked.
type slowWrapper struct {
	*keks
	asked, answer chan struct{}
}

func (w slowWrapper) WrapFileKey(ctx context.Context, node uint64, k key.DEK) ([]byte, error) {
	w.asked <- struct{}{}
	select {
	case <-w.answer:
		return w.keks.WrapFileKey(ctx, node, k)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// running is a Rewrap that waits for the KEK.
type running struct {
	slowWrapper
	fsys   *crashfs.FS
	before []byte // the file
	f      *sidecar.File
	done   chan error
}

func startRewrap(t *testing.T) *running {
	t.Helper()
	w := slowWrapper{newKEKs("a"), make(chan struct{}), make(chan struct{})}
	fsys, before := filled(t, node, w.keks)
	r := &running{w, fsys, before, mustOpen(t, fsys, node, w), make(chan error)}
	w.use("b")
	go func() { r.done <- r.f.Rewrap(t.Context()) }()
	<-w.asked
	return r
}

func TestUpdatesDoNotWaitForARewrap(t *testing.T) {
	r := startRewrap(t)
	require.NoError(t, r.f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 4) }))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.f.Rewrap(ctx), context.Canceled, "a second Rewrap waits no longer than its context")

	close(r.answer)
	require.NoError(t, <-r.done)
	require.EqualValues(t, 4, r.f.Epoch(7), "and the update is still there")
	require.NoError(t, r.f.Close())
	require.EqualValues(t, 4, mustOpen(t, r.fsys, node, r.keks).Epoch(7))
}

func TestCloseDuringARewrap(t *testing.T) {
	r := startRewrap(t)
	require.NoError(t, r.f.Close())
	close(r.answer)
	require.ErrorIs(t, <-r.done, sidecar.ErrClosed)
	require.Equal(t, r.before, read(t, r.fsys, path), "nothing is written without the lock")
}

// Errors that are final say so wherever they are in the chain, and only then.
type maybeFinal bool

func (maybeFinal) Error() string { return "an error" }
func (e maybeFinal) Final() bool { return bool(e) }

func TestFinalErrors(t *testing.T) {
	fsys, _ := filled(t, node, newKEKs("a"))
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{errors.New("an error"), false},
		{maybeFinal(false), false},
		{maybeFinal(true), true},
		{errors.Join(errors.New("one"), maybeFinal(true)), true},
	} {
		w := newKEKs("a")
		w.down = tt.err
		err := refused(t, fsys, node, w)
		require.ErrorIs(t, err, tt.err)
		require.Equal(t, tt.want, errors.Is(err, sidecar.ErrFileKey))
	}
}
