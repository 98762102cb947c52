package kektest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

var plaintext = bytes.Repeat([]byte{7}, 32)

func wrap(t require.TestingT, k *kektest.KEK) []byte {
	w, err := k.Wrap(context.Background(), plaintext, []byte("ad"))
	require.NoError(t, err)
	return w
}

func unwrap(k *kektest.KEK, w []byte) error {
	p, err := k.Unwrap(context.Background(), w, []byte("ad"))
	switch {
	case err != nil && p != nil:
		return errors.New("a key beside the error")
	case err == nil && !bytes.Equal(p, plaintext):
		return errors.New("another key")
	}
	return err
}

func TestWorks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := kektest.New("kms:a")
		p := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "plaintext")
		ad := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "ad")
		w, err := k.Wrap(t.Context(), p, ad)
		require.NoError(rt, err)
		got, err := k.Unwrap(t.Context(), w, ad)
		require.NoError(rt, err)
		require.NotNil(rt, got)
		require.Equal(rt, p, got)
		_, err = k.Unwrap(t.Context(), w, append(ad, 1))
		require.ErrorIs(rt, err, kek.ErrWrongKey)
		w[len(w)-1] ^= 1
		_, err = k.Unwrap(t.Context(), w, ad)
		require.ErrorIs(rt, err, kek.ErrWrongKey)
		_, err = k.Unwrap(t.Context(), nil, ad)
		require.ErrorIs(rt, err, kek.ErrWrongKey)
	})
	require.NoError(t, kek.Verify(t.Context(), kektest.New("kms:a")))
	require.Equal(t, "kms:a", kektest.New("kms:a").ID())
}

// One id is one key; another id is another.
func TestKeyOfID(t *testing.T) {
	w := wrap(t, kektest.New("kms:a"))
	require.NoError(t, unwrap(kektest.New("kms:a"), w))
	require.ErrorIs(t, unwrap(kektest.New("kms:b"), w), kek.ErrWrongKey)
}

func TestFailNext(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	k.FailNext(2, kek.ErrDenied)
	k.FailNext(0, io.EOF)
	k.FailNext(-1, io.EOF)
	k.FailNext(1, io.ErrUnexpectedEOF)
	_, err := k.Wrap(t.Context(), plaintext, nil)
	require.ErrorIs(t, err, kek.ErrDenied)
	require.ErrorIs(t, unwrap(k, w), kek.ErrDenied)
	require.Equal(t, io.ErrUnexpectedEOF, unwrap(k, w), "as it was given")
	require.NoError(t, unwrap(k, w))
	require.Equal(t, kektest.Calls{Wraps: 2, Unwraps: 3, Done: 2}, k.Calls())

	k.FailNext(math.MaxInt, kek.ErrUnreachable)
	for range 100 {
		require.ErrorIs(t, unwrap(k, w), kek.ErrUnreachable)
	}
	k.Heal()
	require.NoError(t, unwrap(k, w))
}

func TestNilErrors(t *testing.T) {
	require.Panics(t, func() { kektest.New("a").FailNext(1, nil) })
	require.Panics(t, func() { kektest.New("a").LoseNext(1, nil) })
}

// A lost answer is an error to the caller, and a call that was carried out.
func TestLoseNext(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	before := k.Calls()
	k.FailNext(1, kek.ErrUnreachable)
	k.LoseNext(2, io.EOF)
	require.ErrorIs(t, unwrap(k, w), kek.ErrUnreachable)
	require.Equal(t, before.Done, k.Calls().Done)
	require.ErrorIs(t, unwrap(k, w), io.EOF)
	out, err := k.Wrap(t.Context(), plaintext, nil)
	require.ErrorIs(t, err, io.EOF)
	require.Nil(t, out)
	require.Equal(t, before.Done+2, k.Calls().Done)
	require.NoError(t, unwrap(k, w))
}

func TestWrongKey(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	k.WrongKey()
	require.ErrorIs(t, unwrap(k, w), kek.ErrWrongKey)
	require.NotErrorIs(t, unwrap(k, w), kek.ErrUnreachable)
	other := wrap(t, k)
	require.NoError(t, unwrap(k, other), "it is a working KEK, with another key")
	require.NoError(t, kek.Verify(t.Context(), k))
	k.Heal()
	require.NoError(t, unwrap(k, w))
	require.ErrorIs(t, unwrap(k, other), kek.ErrWrongKey)
}

func TestGone(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	k.Gone()
	require.ErrorIs(t, unwrap(k, w), kek.ErrWrongKey)
	_, err := k.Wrap(t.Context(), plaintext, nil)
	require.ErrorIs(t, err, kek.ErrWrongKey)
	k.Heal()
	require.NoError(t, unwrap(k, w))
}

func TestContext(t *testing.T) {
	k := kektest.New("a")
	k.FailNext(1, kek.ErrDenied)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := k.Wrap(ctx, plaintext, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, err, kek.ErrUnreachable)
	require.Equal(t, kektest.Calls{Wraps: 1}, k.Calls(), "counted, not carried out")
	_, err = k.Wrap(t.Context(), plaintext, nil)
	require.ErrorIs(t, err, kek.ErrDenied, "the failure waits for a call that arrives")
}

func TestHold(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	arrived, release := k.Hold()
	errs := make(chan error)
	go func() { errs <- unwrap(k, w) }()
	go func() {
		_, err := k.Wrap(t.Context(), plaintext, nil)
		errs <- err
	}()
	require.ElementsMatch(t, []string{"wrap", "unwrap"}, []string{<-arrived, <-arrived})
	require.Equal(t, kektest.Calls{Wraps: 2, Unwraps: 1, Done: 1}, k.Calls(), "two of them wait")
	select {
	case err := <-errs:
		t.Fatal("released by nobody:", err)
	default:
	}
	k.FailNext(1, io.EOF) // decided when released
	release()
	release()
	got := []error{<-errs, <-errs}
	require.Contains(t, got, io.EOF)
	require.Contains(t, got, error(nil))
	require.NoError(t, unwrap(k, w), "nothing waits any more")
}

// A held call needs nobody who watches it arrive.
func TestHoldUnwatched(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	_, release := k.Hold()
	errs := make(chan error)
	for range 5 {
		go func() { errs <- unwrap(k, w) }()
	}
	release()
	for range 5 {
		require.NoError(t, <-errs)
	}
}

func TestHoldEndsWithContext(t *testing.T) {
	k := kektest.New("a")
	for _, watched := range []bool{true, false} {
		arrived, release := k.Hold()
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error)
		go func() {
			_, err := k.Wrap(ctx, plaintext, nil)
			errs <- err
		}()
		if watched {
			require.Equal(t, "wrap", <-arrived)
		}
		cancel()
		err := <-errs
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, kek.ErrUnreachable)
		release()
	}
	require.Equal(t, kektest.Calls{Wraps: 2}, k.Calls())
}

// A second Hold is for later calls; the first keeps those that it holds, and its
// end does not end the second.
func TestHoldTwice(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	errs := make(chan error)
	call := func() { errs <- unwrap(k, w) }
	arrived1, release1 := k.Hold()
	go call()
	<-arrived1
	arrived2, release2 := k.Hold()
	go call()
	<-arrived2
	release1()
	require.NoError(t, <-errs)
	go call()
	require.Equal(t, "unwrap", <-arrived2, "still held")
	release2()
	require.NoError(t, <-errs)
	require.NoError(t, <-errs)
	require.NoError(t, unwrap(k, w))
}

// Every failure that was asked for happens once, whoever calls, and the counts
// add up.
func TestConcurrently(t *testing.T) {
	k := kektest.New("a")
	w := wrap(t, k)
	const callers, each, failing, lost = 8, 100, 150, 50
	k.FailNext(failing, kek.ErrUnreachable)
	k.LoseNext(lost, kek.ErrDenied)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		counts = map[error]int{}
	)
	for range callers {
		wg.Go(func() {
			for range each {
				err := unwrap(k, w)
				mu.Lock()
				counts[err]++
				mu.Unlock()
				k.Calls()
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			_, release := k.Hold()
			release()
		})
	}
	wg.Wait()
	require.Equal(t, map[error]int{kek.ErrUnreachable: failing, kek.ErrDenied: lost, nil: callers*each - failing - lost}, counts)
	require.Equal(t, kektest.Calls{Wraps: 1, Unwraps: callers * each, Done: 1 + callers*each - failing}, k.Calls())
}

// store stands for a host: what it does when its key service is away.
type store struct{ keks *kek.Set }

func (s store) load(ctx context.Context, container []byte) (key.ID, error) {
	for {
		h, _, err := s.keks.UnwrapDEK(ctx, container)
		if err == nil || !errors.Is(err, kek.ErrUnreachable) || ctx.Err() != nil {
			return h.ID, err
		}
	}
}

func Example() {
	ctx := context.Background()
	k := kektest.New("kms:a")
	keks, err := kek.NewSet(k)
	if err != nil {
		panic(err)
	}
	container, err := keks.WrapDEK(ctx, key.NewClusterID(), 7, key.Storage, key.NewDEK())
	if err != nil {
		panic(err)
	}
	db := store{keks}

	k.FailNext(2, kek.ErrUnreachable) // an outage: the host tries again
	id, err := db.load(ctx, container)
	fmt.Println(id, err, k.Calls().Unwraps)

	k.WrongKey() // final: it must not try for ever
	_, err = db.load(ctx, container)
	fmt.Println(errors.Is(err, kek.ErrWrongKey), k.Calls().Unwraps)
	// Output:
	// 7 <nil> 3
	// true 4
}

// A slow key service, without a clock: the host's own time limit ends the call.
func ExampleKEK_Hold() {
	k := kektest.New("kms:a")
	arrived, release := k.Hold()
	defer release()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		fmt.Println("the service is asked to", <-arrived)
		cancel()
	}()
	err := kek.Verify(ctx, k)
	fmt.Println(errors.Is(err, kek.ErrUnreachable), errors.Is(err, context.Canceled))
	// Output:
	// the service is asked to wrap
	// true true
}
