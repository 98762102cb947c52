package kek_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

func TestNewSet(t *testing.T) {
	many := func(n int) []kek.KEK {
		ks := make([]kek.KEK, n)
		for i := range ks {
			ks[i] = kektest.New(fmt.Sprintf("k%d", i))
		}
		return ks
	}
	s := newSet(t, many(16)[0], many(16)[1:]...)
	require.Len(t, s.IDs(), 16)
	require.Equal(t, "k0", s.IDs()[0])
	s.IDs()[0] = "changed"
	require.Equal(t, "k0", s.IDs()[0])

	for text, ks := range map[string][]kek.KEK{
		"17 KEKs, want at most 16":                 many(17),
		"KEK k0 is there twice":                    append(many(3), kektest.New("k0")),
		"number 1 is nil":                          {nil},
		"number 2 is nil":                          {kektest.New("a"), nil},
		"number 3 is nil":                          {kektest.New("a"), kektest.New("b"), (*kektest.KEK)(nil)},
		"number 1: key: not a valid":               {&kek.AES{}},
		"number 1: key: ":                          {kektest.New("")},
		"number 2: key: ":                          {kektest.New("a"), kektest.New("a b")},
		"has 256 bytes":                            {kektest.New(strings.Repeat("x", 256))},
		"KEK " + aesKEK(t, rawKEK(1)).ID() + " is": {aesKEK(t, rawKEK(1)), aesKEK(t, rawKEK(1))},
	} {
		s, err := kek.NewSet(ks[0], ks[1:]...)
		require.ErrorIs(t, err, kek.ErrConfig)
		require.ErrorContains(t, err, text)
		require.Nil(t, s)
	}
}

// What is nil or was not made by a function of the package holds no key: it is refused
// where it comes from and where it is used, and does not panic.
func TestNilAndZeroKEKs(t *testing.T) {
	wraps := append(kek.NewParams(cheap, [16]byte{}), make([]byte, 60)...) // the right length for either
	for name, k := range map[string]kek.KEK{
		"nil": nil, "nil AES": (*kek.AES)(nil), "nil Argon2id": (*kek.Argon2id)(nil), "zero AES": &kek.AES{}, "zero Argon2id": &kek.Argon2id{},
	} {
		_, err := kek.NewSet(k)
		require.ErrorIs(t, err, kek.ErrConfig, name)
		_, err = kek.NewSet(kektest.New("a"), k)
		require.ErrorIs(t, err, kek.ErrConfig, name)
		err = kek.Verify(t.Context(), k)
		require.ErrorIs(t, err, kek.ErrFaulty, name)
		s := newSet(t, kektest.New("a"))
		_, err = s.AddRecipient(t.Context(), wrapDEK(t, s, 7, key.Storage, key.NewDEK()), k)
		require.ErrorIs(t, err, kek.ErrConfig, name)
		if k == nil {
			continue
		}
		require.Empty(t, k.ID(), name)
		_, err = k.Wrap(t.Context(), rawKEK(1), nil)
		require.ErrorIs(t, err, kek.ErrBadKey, name)
		wrapped := wraps
		if _, ok := k.(*kek.AES); ok {
			wrapped = wraps[26:]
		}
		_, err = k.Unwrap(t.Context(), wrapped, nil)
		require.ErrorIs(t, err, kek.ErrBadKey, name)
	}
	_, err := new(kek.Set).WrapGeneration1(t.Context(), 7, key.NewDEK())
	require.ErrorIs(t, err, kek.ErrConfig)
}

// NewSet calls no KEK, and asks for an id once: one that changes later does no
// harm.
func TestNewSetCallsNothing(t *testing.T) {
	n := 0
	inner := kektest.New("a")
	o := &odd{KEK: inner, id: func() string { n++; return fmt.Sprintf("a%d", n) }}
	s := newSet(t, o)
	require.Zero(t, inner.Calls())
	c, err := s.WrapDEK(t.Context(), key.ClusterID{}, 1, key.Storage, key.NewDEK())
	require.NoError(t, err)
	_, _, err = s.UnwrapDEK(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, []string{"a1"}, s.IDs())
}

// outcome is one way in which a KEK can answer when it is asked to unwrap.
type outcome struct {
	name string
	kind error // nil if it opens the wrap
	text string
	do   func(k *kektest.KEK, o *odd)
}

var errUnknown = errors.New("it fell over")

var outcomes = []outcome{
	{"opens", nil, "", func(*kektest.KEK, *odd) {}},
	{"unreachable", kek.ErrUnreachable, "KEK unreachable", func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrUnreachable) }},
	{"unknown error", kek.ErrUnreachable, "it fell over", func(k *kektest.KEK, _ *odd) { k.FailNext(1, errUnknown) }},
	{"deadline of its own", kek.ErrUnreachable, "deadline exceeded", func(k *kektest.KEK, _ *odd) { k.FailNext(1, context.DeadlineExceeded) }},
	{"denied", kek.ErrDenied, "KEK denied access", func(k *kektest.KEK, _ *odd) { k.FailNext(1, fmt.Errorf("%w: 403", kek.ErrDenied)) }},
	{"wrong key", kek.ErrWrongKey, "wrong KEK", func(k *kektest.KEK, _ *odd) { k.WrongKey() }},
	{"gone", kek.ErrWrongKey, "the key is gone", func(k *kektest.KEK, _ *odd) { k.Gone() }},
	{"another key's bytes", kek.ErrWrongKey, "another check value", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(rawKEK(9), nil) }},
	{"too few bytes", kek.ErrWrongKey, "it answered with 31 bytes", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(rawKEK(9)[:31], nil) }},
	{"undecided", kek.ErrUnreachable, "KEK unreachable", func(k *kektest.KEK, _ *odd) {
		k.FailNext(1, errors.Join(kek.ErrWrongKey, kek.ErrDenied, kek.ErrUnreachable))
	}},
}

// With three KEKs and every outcome for each of them: the first that opens its
// wrap is the answer and nobody behind it is asked; if none does, the error is
// the most hopeful of theirs and of no other kind.
func TestUnwrapEveryCombination(t *testing.T) {
	dek := key.NewDEK()
	container, err := newSet(t, kektest.New("a"), kektest.New("b"), kektest.New("c")).
		WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Storage, dek)
	require.NoError(t, err)

	n := len(outcomes)
	for i := range n * n * n {
		combo := []outcome{outcomes[i/n/n], outcomes[i/n%n], outcomes[i%n]}
		var (
			odds []*odd
			name []string
		)
		for j, o := range combo {
			inner := kektest.New(string(rune('a' + j)))
			od := &odd{KEK: inner}
			o.do(inner, od)
			odds = append(odds, od)
			name = append(name, o.name)
		}
		s := newSet(t, odds[0], odds[1], odds[2])
		h, got, err := s.UnwrapDEK(t.Context(), container)

		opener := -1
		var kinds []error
		for j, o := range combo {
			if o.kind == nil {
				opener = j
				break
			}
			kinds = append(kinds, o.kind)
		}
		for j, od := range odds {
			asked := int64(1)
			if opener >= 0 && j > opener {
				asked = 0
			}
			require.Equal(t, asked, od.unwraps.Load(), "%v: KEK %d", name, j)
		}
		if opener >= 0 {
			require.NoError(t, err, "%v", name)
			require.Equal(t, key.ID(7), h.ID)
			require.True(t, key.EqualDEK(dek, got))
			continue
		}
		require.Zero(t, h)
		require.True(t, got.IsZero())
		want := kek.ErrWrongKey
		for _, kind := range []error{kek.ErrDenied, kek.ErrUnreachable} {
			for _, k := range kinds {
				if k == kind {
					want = kind
				}
			}
		}
		requireOnly(t, err, want)
		var ue *kek.UnwrapError
		require.ErrorAs(t, err, &ue)
		require.Equal(t, want == kek.ErrWrongKey, ue.Final(), "%v", name)
		require.Len(t, ue.Failed, 3)
		for j, o := range combo {
			require.Equal(t, string(rune('a'+j)), ue.Failed[j].KEK)
			require.Equal(t, o.kind, ue.Failed[j].Kind)
			require.ErrorContains(t, err, "KEK "+string(rune('a'+j))+": ")
			require.ErrorContains(t, err, o.text)
		}
		require.ErrorContains(t, err, "kek: no KEK opens storage DEK 7: ")
		require.Equal(t, 1, strings.Count(err.Error(), "kek: "), err.Error())
	}
	t.Logf("%d combinations", n*n*n)
}

// Wrapping needs every KEK: the first that fails is the error, and nobody behind
// it is asked.
func TestWrapEveryCombination(t *testing.T) {
	bad := []outcome{
		{"wraps", nil, "", func(*kektest.KEK, *odd) {}},
		{"unreachable", kek.ErrUnreachable, "KEK unreachable; try again", func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrUnreachable) }},
		{"lost", kek.ErrUnreachable, "KEK unreachable; try again", func(k *kektest.KEK, _ *odd) { k.LoseNext(1, kek.ErrUnreachable) }},
		{"unknown error", kek.ErrUnreachable, "KEK unreachable: it fell over; try again", func(k *kektest.KEK, _ *odd) { k.FailNext(1, errUnknown) }},
		{"denied", kek.ErrDenied, "KEK denied access; check its credentials", func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrDenied) }},
		{"gone", kek.ErrWrongKey, "wrong KEK: the key is gone; configure or restore", func(k *kektest.KEK, _ *odd) { k.Gone() }},
		{"no bytes", kek.ErrFaulty, "it answered with 0 bytes, want 1 to 4096; do not use", func(_ *kektest.KEK, o *odd) { o.wrap = answer(nil, nil) }},
		{"too many bytes", kek.ErrFaulty, "it answered with 4097 bytes", func(_ *kektest.KEK, o *odd) { o.wrap = answer(make([]byte, 4097), nil) }},
	}
	for _, a := range bad {
		for _, b := range bad {
			ka, kb := kektest.New("a"), kektest.New("b")
			oa, ob := &odd{KEK: ka}, &odd{KEK: kb}
			a.do(ka, oa)
			b.do(kb, ob)
			c, err := newSet(t, oa, ob).WrapDEK(t.Context(), key.ClusterID{1}, 7, key.Raft, key.NewDEK())
			first, id := a, "a"
			if a.kind == nil {
				first, id = b, "b"
			} else {
				require.Zero(t, ob.wraps.Load())
			}
			if first.kind == nil {
				require.NoError(t, err)
				continue
			}
			require.Nil(t, c)
			requireOnly(t, err, first.kind)
			require.ErrorContains(t, err, first.text)
			require.ErrorContains(t, err, "kek: wrap raft DEK 7: KEK "+id+": ")
			var e *kek.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, id, e.KEK)
		}
	}
}

// The set's order decides who is asked first, not the container's.
func TestUnwrapOrder(t *testing.T) {
	a, b := kektest.New("a"), kektest.New("b")
	c, err := newSet(t, a, b).WrapDEK(t.Context(), key.ClusterID{}, 1, key.Storage, key.NewDEK())
	require.NoError(t, err)
	_, _, err = newSet(t, b, a).UnwrapDEK(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, 0, a.Calls().Unwraps)
	require.Equal(t, 1, b.Calls().Unwraps)
}

// A recipient of a KEK that the set does not have is skipped and named; the KEK
// that the set has and the container lacks is not asked.
func TestUnwrapForeignRecipients(t *testing.T) {
	a, b, c := kektest.New("a"), kektest.New("b"), kektest.New("c")
	container, err := newSet(t, a, b).WrapDEK(t.Context(), key.ClusterID{}, 1, key.Storage, key.NewDEK())
	require.NoError(t, err)

	_, _, err = newSet(t, c, b).UnwrapDEK(t.Context(), container)
	require.NoError(t, err)
	require.Zero(t, c.Calls())

	_, _, err = newSet(t, c).UnwrapDEK(t.Context(), container)
	requireOnly(t, err, kek.ErrWrongKey)
	require.EqualError(t, err, "kek: no KEK opens storage DEK 1: KEK a: not configured here; KEK b: not configured here; "+
		"configure or restore the KEK that wrapped the key")
	var ue *kek.UnwrapError
	require.ErrorAs(t, err, &ue)
	require.Equal(t, []string{"a", "b"}, ue.Absent)
	require.Empty(t, ue.Failed)
	require.True(t, ue.Final())

	b.FailNext(1, kek.ErrUnreachable)
	_, _, err = newSet(t, c, b).UnwrapDEK(t.Context(), container)
	requireOnly(t, err, kek.ErrUnreachable)
	require.EqualError(t, err, "kek: no KEK opens storage DEK 1: KEK b: KEK unreachable; KEK a: not configured here; try again")
}

func TestSetContext(t *testing.T) {
	a, b := kektest.New("a"), kektest.New("b")
	s := newSet(t, a, b)
	container, err := s.WrapDEK(t.Context(), key.ClusterID{}, 1, key.Storage, key.NewDEK())
	require.NoError(t, err)
	file, err := s.WrapFileKey(t.Context(), 1, key.NewDEK())
	require.NoError(t, err)
	before := [2]kektest.Calls{a.Calls(), b.Calls()}

	ctx := cancelled(t)
	_, errWrap := s.WrapDEK(ctx, key.ClusterID{}, 1, key.Storage, key.NewDEK())
	_, _, errUnwrap := s.UnwrapDEK(ctx, container)
	_, errRewrap := s.RewrapDEK(ctx, container)
	_, errWrapFile := s.WrapFileKey(ctx, 1, key.NewDEK())
	_, errUnwrapFile := s.UnwrapFileKey(ctx, 1, file)
	for _, err := range []error{errWrap, errUnwrap, errRewrap, errWrapFile, errUnwrapFile} {
		require.ErrorIs(t, err, context.Canceled)
		requireOnly(t, err, kek.ErrUnreachable)
	}
	require.Equal(t, before[0], a.Calls(), "no KEK is asked in vain")
	require.Equal(t, before[1], b.Calls())
}

// A context that ends while a KEK is asked ends the whole, also where KEKs are
// left.
func TestSetContextEndsDuringCall(t *testing.T) {
	a, b := kektest.New("a"), kektest.New("b")
	s := newSet(t, a, b)
	container, err := s.WrapDEK(t.Context(), key.ClusterID{}, 1, key.Storage, key.NewDEK())
	require.NoError(t, err)
	arrived, release := a.Hold()
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := s.UnwrapDEK(ctx, container)
		done <- err
	}()
	require.Equal(t, "unwrap", <-arrived)
	cancel()
	err = <-done
	require.ErrorIs(t, err, context.Canceled)
	requireOnly(t, err, kek.ErrUnreachable)
	require.Zero(t, b.Calls().Unwraps)
}

// A KEK that never answers takes its share of the time until the deadline, so
// that one behind it still opens the container.
func TestHangingKEKLeavesTimeForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := kektest.New("a"), kektest.New("b"), kektest.New("c")
		s := newSet(t, a, b, c)
		container, err := s.WrapDEK(t.Context(), key.ClusterID{}, 1, key.Storage, key.NewDEK())
		require.NoError(t, err)
		_, releaseA := a.Hold()
		defer releaseA()
		_, releaseB := b.Hold()
		defer releaseB()

		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, _, err = s.UnwrapDEK(ctx, container)
		require.NoError(t, err)
		require.Equal(t, 20*time.Second, time.Since(start), "10 s for a, half of the rest for b")

		// The last one has all the time that is left.
		_, releaseC := c.Hold()
		defer releaseC()
		start = time.Now()
		ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, _, err = s.UnwrapDEK(ctx, container)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireOnly(t, err, kek.ErrUnreachable)
		require.Equal(t, 30*time.Second, time.Since(start))
	})
}

// Many goroutines on one set, while KEKs fail and recover: no answer is wrong.
func TestSetConcurrently(t *testing.T) {
	a, b := kektest.New("a"), kektest.New("b")
	s := newSet(t, a, b)
	const n = 8
	done := make(chan error, n)
	for i := range n {
		go func() {
			done <- func() error {
				for j := range 50 {
					id := key.ID(i*1000 + j + 1)
					dek := key.NewDEK()
					c, err := s.WrapDEK(t.Context(), key.ClusterID{}, id, key.Storage, dek)
					if err != nil {
						return err
					}
					h, got, err := s.UnwrapDEK(t.Context(), c)
					if err != nil || h.ID != id || !key.EqualDEK(got, dek) {
						return fmt.Errorf("key %s: got key %s: %w", id, h.ID, err)
					}
				}
				return nil
			}()
		}()
	}
	for range n {
		require.NoError(t, <-done)
	}
	require.Equal(t, kektest.Calls{Wraps: n * 50, Unwraps: n * 50, Done: n * 100}, a.Calls())
	require.Zero(t, b.Calls().Unwraps)
}

// A set does not make its callers wait for each other: 1,000 keys over a KEK that
// takes 50 ms a call are loaded by 16 goroutines in 63 rounds.
func TestSetDoesNotSerialise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := kektest.New("a")
		c := wrapDEK(t, newSet(t, inner), 1, key.Storage, key.NewDEK())
		s := newSet(t, &odd{KEK: inner, unwrap: func(ctx context.Context, w, ad []byte) ([]byte, error) {
			<-time.After(50 * time.Millisecond)
			return inner.Unwrap(ctx, w, ad)
		}})
		start := time.Now()
		var (
			wg   sync.WaitGroup
			left atomic.Int64
		)
		left.Store(1000)
		for range 16 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if _, _, err := s.UnwrapDEK(t.Context(), c); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, 63*50*time.Millisecond, time.Since(start))
	})
}
