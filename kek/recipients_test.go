package kek_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

const testNode = 5

// bothKinds are one key in a container of each kind, and what opens them.
func bothKinds(t require.TestingT, s *kek.Set, k key.DEK) map[string][]byte {
	file, err := s.WrapFileKey(context.Background(), testNode, k)
	require.NoError(t, err)
	return map[string][]byte{"dek": wrapDEK(t, s, 7, key.Raft, k), "file key": file}
}

func openEither(ctx context.Context, s *kek.Set, container []byte) (key.DEK, error) {
	if key.IsFileContainer(container) {
		return s.UnwrapFileKey(ctx, testNode, container)
	}
	h, k, err := s.UnwrapDEK(ctx, container)
	if err == nil && (h != key.Header{Cluster: cluster, ID: 7, Purpose: key.Raft, Check: key.CheckOf(k)}) {
		return key.DEK{}, fmt.Errorf("another header: %+v", h)
	}
	return k, err
}

func recipients(t require.TestingT, container []byte) []string {
	var rs []key.Recipient
	if key.IsFileContainer(container) {
		c, err := key.ParseFileContainer(container)
		require.NoError(t, err)
		rs = c.Recipients
	} else {
		c, err := key.ParseContainer(container)
		require.NoError(t, err)
		rs = c.Recipients
	}
	ids := make([]string, len(rs))
	for i, r := range rs {
		ids[i] = r.KEK
	}
	return ids
}

func TestAddAndRemoveRecipients(t *testing.T) {
	a, b, p := kektest.New("a"), aesKEK(t, rawKEK(1)), &withParams{KEK: kektest.New("p")}
	dek := key.NewDEK()
	for kind, c := range bothKinds(t, newSet(t, a), dek) {
		t.Run(kind, func(t *testing.T) {
			first := bytes.Clone(c)
			two, err := newSet(t, a).AddRecipient(t.Context(), c, b)
			require.NoError(t, err)
			three, err := newSet(t, b).AddRecipient(t.Context(), two, p)
			require.NoError(t, err)
			require.Equal(t, []string{"a", b.ID(), "p"}, recipients(t, three))
			for _, k := range []kek.KEK{a, b, p} {
				got, err := openEither(t.Context(), newSet(t, k), three)
				require.NoError(t, err)
				require.True(t, key.EqualDEK(dek, got))
			}

			without, err := newSet(t, b).RemoveRecipient(t.Context(), three, "a")
			require.NoError(t, err)
			require.Equal(t, []string{b.ID(), "p"}, recipients(t, without))
			last, err := newSet(t, p, b).RemoveRecipient(t.Context(), without, b.ID())
			require.NoError(t, err)
			require.Equal(t, []string{"p"}, recipients(t, last))
			got, err := openEither(t.Context(), newSet(t, p), last)
			require.NoError(t, err)
			require.True(t, key.EqualDEK(dek, got))
			require.Equal(t, first, c, "the container that was is as it was")
		})
	}
}

func TestRecipientsStay(t *testing.T) {
	a, b := kektest.New("a"), kektest.New("b")
	for kind, c := range bothKinds(t, newSet(t, a, b), key.NewDEK()) {
		t.Run(kind, func(t *testing.T) {
			s := newSet(t, a, b)
			before := a.Calls()
			stays := func(out []byte, err error, text string) {
				t.Helper()
				require.Nil(t, out)
				require.ErrorIs(t, err, kek.ErrRecipient)
				require.ErrorContains(t, err, text)
			}
			out, err := s.AddRecipient(t.Context(), c, kektest.New("b"))
			stays(out, err, "KEK b is one already")
			out, err = s.RemoveRecipient(t.Context(), c, "c")
			stays(out, err, "KEK c is none")
			one, err := s.RemoveRecipient(t.Context(), c, "b")
			require.NoError(t, err)
			out, err = s.RemoveRecipient(t.Context(), one, "a")
			stays(out, err, "KEK a is the last, and without it nothing opens")
			require.Equal(t, before.Wraps, a.Calls().Wraps)

			_, err = s.AddRecipient(t.Context(), c, nil)
			require.ErrorIs(t, err, kek.ErrConfig)
			_, err = s.AddRecipient(t.Context(), c, kektest.New("no good"))
			require.ErrorIs(t, err, kek.ErrConfig)

			full := c
			for i := range key.MaxRecipients - 2 {
				full, err = s.AddRecipient(t.Context(), full, kektest.New(fmt.Sprint("k", i)))
				require.NoError(t, err)
			}
			out, err = s.AddRecipient(t.Context(), full, kektest.New("more"))
			stays(out, err, "there are 16, which is the most")

			for _, bad := range [][]byte{nil, c[:10], c[:len(c)-1], append(bytes.Clone(c), 0), make([]byte, 60)} {
				_, err = s.AddRecipient(t.Context(), bad, kektest.New("c"))
				require.ErrorIs(t, err, key.ErrContainer)
				_, err = s.RemoveRecipient(t.Context(), bad, "b")
				require.ErrorIs(t, err, key.ErrContainer)
			}
		})
	}
}

// Nothing is added that does not open, and nothing removed unless something else
// does.
func TestRecipientsAreVerified(t *testing.T) {
	a, b := kektest.New("a"), kektest.New("b")
	dek := key.NewDEK()
	for kind, c := range bothKinds(t, newSet(t, a, b), dek) {
		t.Run(kind, func(t *testing.T) {
			for _, tt := range []struct {
				name string
				is   error
				make func(k *kektest.KEK, o *odd)
			}{
				{"wrap unreachable", kek.ErrUnreachable, func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrUnreachable) }},
				{"wrap denied", kek.ErrDenied, func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrDenied) }},
				{"unwrap unreachable", kek.ErrUnreachable, func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, kek.ErrUnreachable) }},
				{"unwrap denied", kek.ErrDenied, func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, kek.ErrDenied) }},
				{"does not open", kek.ErrFaulty, func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, kek.ErrWrongKey) }},
				{"opens another key", kek.ErrFaulty, func(_ *kektest.KEK, o *odd) { o.unwrap = answer(rawKEK(9), nil) }},
				{"wraps another key", kek.ErrFaulty, func(k *kektest.KEK, o *odd) {
					o.wrap = func(ctx context.Context, _, ad []byte) ([]byte, error) { return k.Wrap(ctx, rawKEK(9), ad) }
				}},
			} {
				t.Run(tt.name, func(t *testing.T) {
					inner := kektest.New("c")
					o := &odd{KEK: inner}
					tt.make(inner, o)
					out, err := newSet(t, a).AddRecipient(t.Context(), c, o)
					require.Nil(t, out)
					requireOnly(t, err, tt.is)
				})
			}
			// The set cannot open it: the new KEK is not even asked.
			n := kektest.New("c")
			out, err := newSet(t, kektest.New("x")).AddRecipient(t.Context(), c, n)
			require.Nil(t, out)
			requireOnly(t, err, kek.ErrWrongKey)
			require.Zero(t, n.Calls())

			for _, is := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrWrongKey} {
				failing := kektest.New("b")
				failing.FailNext(1, is)
				out, err := newSet(t, a, failing).RemoveRecipient(t.Context(), c, "a")
				require.Nil(t, out)
				requireOnly(t, err, is)
				var u *kek.UnwrapError
				require.ErrorAs(t, err, &u)
			}
			// That the one to be removed opens is not what counts.
			out, err = newSet(t, a).RemoveRecipient(t.Context(), c, "a")
			require.Nil(t, out)
			requireOnly(t, err, kek.ErrWrongKey)
			require.ErrorContains(t, err, "KEK b: not configured here")

			out, err = newSet(t, a, b).RemoveRecipient(cancelled(t), c, "a")
			require.Nil(t, out)
			require.ErrorIs(t, err, context.Canceled)
			out, err = newSet(t, a, b).AddRecipient(cancelled(t), c, n)
			require.Nil(t, out)
			require.ErrorIs(t, err, context.Canceled)
		})
	}
}

// Each KEK of a set is lost in turn: everything still opens, is taken off it and
// given to another, until none of the first is left.
func TestLoseEachKEKInTurn(t *testing.T) {
	fakes := []*kektest.KEK{kektest.New("a"), kektest.New("b"), kektest.New("c")}
	members := []kek.KEK{fakes[0], &withParams{KEK: fakes[1]}, fakes[2]}
	deks := make([]key.DEK, 20)
	var containers [][]byte
	all := newSet(t, members[0], members[1:]...)
	for i := range deks {
		deks[i] = key.NewDEK()
		for _, c := range bothKinds(t, all, deks[i]) {
			containers = append(containers, c)
		}
	}
	opens := func(s *kek.Set) {
		t.Helper()
		for i, c := range containers {
			got, err := openEither(t.Context(), s, c)
			require.NoError(t, err)
			require.True(t, key.EqualDEK(deks[i/2], got))
		}
	}
	for _, lose := range []func(*kektest.KEK){
		(*kektest.KEK).Gone,
		(*kektest.KEK).WrongKey,
		func(k *kektest.KEK) { k.FailNext(1000, kek.ErrUnreachable) },
		func(k *kektest.KEK) { k.FailNext(1000, kek.ErrDenied) },
	} {
		for _, k := range fakes {
			lose(k)
			opens(all)
			k.Heal()
		}
	}

	for i := range members {
		fakes[i].Gone()
		opens(all)
		for j, c := range containers {
			c, err := all.RemoveRecipient(t.Context(), c, fakes[i].ID())
			require.NoError(t, err)
			c, err = all.AddRecipient(t.Context(), c, kektest.New(fmt.Sprint("new", i)))
			require.NoError(t, err)
			containers[j] = c
		}
		next := append(slices.Clone(members[i+1:]), kektest.New("new0"), kektest.New("new1"), kektest.New("new2"))
		all = newSet(t, next[0], next[1:]...)
		opens(all)
	}
	for _, c := range containers {
		require.Equal(t, []string{"new0", "new1", "new2"}, recipients(t, c))
	}
}

// Any sequence of additions and removals: the recipients are those of a list, and
// each of them opens the container alone.
func TestRecipientsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		kind := rapid.SampledFrom([]string{"dek", "file key"}).Draw(rt, "kind")
		dek := key.NewDEK()
		model := []string{"k0"}
		c := bothKinds(rt, newSet(rt, kektest.New("k0")), dek)[kind]
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			id := fmt.Sprint("k", rapid.IntRange(0, 4).Draw(rt, "id"))
			s := newSet(rt, kektest.New("k0"), kektest.New("k1"), kektest.New("k2"), kektest.New("k3"), kektest.New("k4"))
			var out []byte
			var err error
			i := slices.Index(model, id)
			if rapid.Bool().Draw(rt, "add") {
				if out, err = s.AddRecipient(t.Context(), c, kektest.New(id)); i < 0 {
					require.NoError(rt, err)
					model = append(model, id)
				}
			} else if out, err = s.RemoveRecipient(t.Context(), c, id); i >= 0 && len(model) > 1 {
				require.NoError(rt, err)
				model = slices.Delete(model, i, i+1)
			}
			if err != nil {
				require.ErrorIs(rt, err, kek.ErrRecipient)
				continue
			}
			c = out
			require.Equal(rt, model, recipients(rt, c))
			for _, id := range model {
				got, err := openEither(t.Context(), newSet(rt, kektest.New(id)), c)
				require.NoError(rt, err)
				require.True(rt, key.EqualDEK(dek, got))
			}
		}
	})
}
