package kek_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/key/insecurekey"
)

var cluster = key.ClusterID{0xc1, 0xc2}

func wrapDEK(t require.TestingT, s *kek.Set, id key.ID, p key.Purpose, dek key.DEK) []byte {
	c, err := s.WrapDEK(context.Background(), cluster, id, p, dek)
	require.NoError(t, err)
	return c
}

// refusedDEK checks that a container opens for no KEK of the set, and that
// nothing comes with the error.
func refusedDEK(t require.TestingT, s *kek.Set, container []byte, is error) {
	h, dek, err := s.UnwrapDEK(context.Background(), container)
	require.ErrorIs(t, err, is)
	require.Zero(t, h)
	require.True(t, dek.IsZero())
}

func TestDEKRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfNDistinct(rapid.StringMatching(`[!-~]{1,40}`), 1, 5, rapid.ID[string]).Draw(rt, "ids")
		ks := make([]kek.KEK, len(ids))
		for i, id := range ids {
			ks[i] = kektest.New(id)
		}
		s := newSet(rt, ks[0], ks[1:]...)
		want := key.Header{
			Cluster: key.ClusterID{rapid.Byte().Draw(rt, "cluster")},
			ID:      key.ID(rapid.Uint32Min(1).Draw(rt, "id")),
			Purpose: rapid.SampledFrom([]key.Purpose{key.Storage, key.Raft}).Draw(rt, "purpose"),
		}
		dek, err := insecurekey.New(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "dek"))
		require.NoError(rt, err)
		want.Check = key.CheckOf(dek)

		c, err := s.WrapDEK(t.Context(), want.Cluster, want.ID, want.Purpose, dek)
		require.NoError(rt, err)
		parsed, err := key.ParseContainer(c)
		require.NoError(rt, err)
		require.Equal(rt, want, parsed.Header)
		require.Len(rt, parsed.Recipients, len(ids))
		// Each KEK alone opens it.
		for i, k := range ks {
			require.Equal(rt, ids[i], parsed.Recipients[i].KEK)
			h, got, err := newSet(rt, k).UnwrapDEK(t.Context(), c)
			require.NoError(rt, err)
			require.Equal(rt, want, h)
			require.True(rt, key.EqualDEK(dek, got))
		}
	})
}

func TestWrapDEKRefuses(t *testing.T) {
	k := kektest.New("a")
	s := newSet(t, k)
	_, err := s.WrapDEK(t.Context(), cluster, 0, key.Storage, key.NewDEK())
	require.ErrorIs(t, err, key.ErrReservedID)
	for _, p := range []key.Purpose{0, 3} {
		_, err = s.WrapDEK(t.Context(), cluster, 1, p, key.NewDEK())
		require.ErrorIs(t, err, key.ErrPurpose)
	}
	_, err = s.WrapDEK(t.Context(), cluster, 1, key.Storage, key.DEK{})
	require.EqualError(t, err, "kek: wrap DEK 1: the zero DEK holds no key")
	_, err = s.WrapFileKey(t.Context(), 1, key.DEK{})
	require.EqualError(t, err, "kek: wrap the file key of node 1: the zero DEK holds no key")
	require.Zero(t, k.Calls())
}

func TestUnwrapMalformed(t *testing.T) {
	k := kektest.New("a")
	s := newSet(t, k)
	dek := wrapDEK(t, s, 1, key.Storage, key.NewDEK())
	file, err := s.WrapFileKey(t.Context(), 1, key.NewDEK())
	require.NoError(t, err)
	before := k.Calls()
	for _, c := range [][]byte{nil, {}, dek[:10], dek[:len(dek)-1], append(bytes.Clone(dek), 0), file, make([]byte, 60)} {
		refusedDEK(t, s, c, key.ErrContainer)
		out, err := s.RewrapDEK(t.Context(), c)
		require.ErrorIs(t, err, key.ErrContainer)
		require.Nil(t, out)
	}
	for _, c := range [][]byte{nil, {}, file[:10], file[:len(file)-1], append(bytes.Clone(file), 0), dek, make([]byte, 60)} {
		k, err := s.UnwrapFileKey(t.Context(), 1, c)
		require.ErrorIs(t, err, key.ErrContainer)
		require.True(t, k.IsZero())
		require.False(t, s.FileKeyCurrent(c))
	}
	require.Equal(t, before, k.Calls(), "no KEK is asked about bytes that are no container")
}

// Any bit of a container of one recipient, changed: it does not open. In the
// header each field is bound; behind it the parser or the KEK notices.
func TestDEKBitFlips(t *testing.T) {
	for name, k := range map[string]kek.KEK{"aes": aesKEK(t, rawKEK(1)), "fake": kektest.New("a")} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t, k)
			dek := key.NewDEK()
			good := wrapDEK(t, s, 7, key.Storage, dek)
			for bit := range 8 * len(good) {
				c := bytes.Clone(good)
				c[bit/8] ^= 1 << (bit % 8)
				h, got, err := s.UnwrapDEK(t.Context(), c)
				require.Error(t, err, "byte %d, bit %d", bit/8, bit%8)
				require.Zero(t, h)
				require.True(t, got.IsZero())
				if bit/8 >= 4 && bit/8 < 20 || bit/8 >= 25 && bit/8 < 41 { // cluster id, check value
					require.ErrorIs(t, err, kek.ErrWrongKey)
				}
			}
		})
	}
}

// Each field of the header, set to another legal value.
func TestDEKHeaderIsBound(t *testing.T) {
	s := newSet(t, aesKEK(t, rawKEK(1)), kektest.New("a"))
	dek := key.NewDEK()
	good := wrapDEK(t, s, 7, key.Storage, dek)
	for name, change := range map[string]func(*key.Container){
		"other purpose":     func(c *key.Container) { c.Purpose = key.Raft },
		"other cluster":     func(c *key.Container) { c.Cluster = key.NewClusterID() },
		"no cluster":        func(c *key.Container) { c.Cluster = key.ClusterID{} },
		"other id":          func(c *key.Container) { c.ID = 8 },
		"other check value": func(c *key.Container) { c.Check = key.CheckOf(key.NewDEK()) },
		"parameters":        func(c *key.Container) { c.Recipients[0].Params, c.Recipients[1].Params = []byte{1}, []byte{1} },
		"wraps of each other": func(c *key.Container) {
			c.Recipients[0].Wrap, c.Recipients[1].Wrap = c.Recipients[1].Wrap, c.Recipients[0].Wrap
		},
		"names of each other": func(c *key.Container) {
			c.Recipients[0].KEK, c.Recipients[1].KEK = c.Recipients[1].KEK, c.Recipients[0].KEK
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := key.ParseContainer(good)
			require.NoError(t, err)
			change(&c)
			b, err := c.Append(nil)
			require.NoError(t, err)
			refusedDEK(t, s, b, kek.ErrWrongKey)
		})
	}
}

// The wraps of two keys, exchanged between their containers: neither opens, and
// that the keys are of one KEK does not help.
func TestSwappedWraps(t *testing.T) {
	for name, k := range map[string]kek.KEK{"aes": aesKEK(t, rawKEK(1)), "fake": kektest.New("a")} {
		t.Run(name, func(t *testing.T) {
			s := newSet(t, k)
			c1, err := key.ParseContainer(wrapDEK(t, s, 1, key.Storage, key.NewDEK()))
			require.NoError(t, err)
			c2, err := key.ParseContainer(wrapDEK(t, s, 2, key.Storage, key.NewDEK()))
			require.NoError(t, err)
			c1.Recipients, c2.Recipients = c2.Recipients, c1.Recipients
			for _, c := range []key.Container{c1, c2} {
				b, err := c.Append(nil)
				require.NoError(t, err)
				refusedDEK(t, s, b, kek.ErrWrongKey)
			}
			// With the other's check value as well, which is that of the wrapped key.
			c1.Check = c2.Check
			b, err := c1.Append(nil)
			require.NoError(t, err)
			refusedDEK(t, s, b, kek.ErrWrongKey)
		})
	}
}

// A KEK that binds nothing: the check value still catches a key under another's
// header.
func TestCheckValueCatchesSwappedWraps(t *testing.T) {
	inner := kektest.New("a")
	careless := &odd{
		KEK:    inner,
		wrap:   func(ctx context.Context, p, _ []byte) ([]byte, error) { return inner.Wrap(ctx, p, nil) },
		unwrap: func(ctx context.Context, w, _ []byte) ([]byte, error) { return inner.Unwrap(ctx, w, nil) },
	}
	s := newSet(t, careless)
	c1, err := key.ParseContainer(wrapDEK(t, s, 1, key.Storage, key.NewDEK()))
	require.NoError(t, err)
	c2, err := key.ParseContainer(wrapDEK(t, s, 2, key.Storage, key.NewDEK()))
	require.NoError(t, err)
	c1.Recipients = c2.Recipients
	b, err := c1.Append(nil)
	require.NoError(t, err)
	refusedDEK(t, s, b, kek.ErrWrongKey)
	_, _, err = s.UnwrapDEK(t.Context(), b)
	require.ErrorContains(t, err, "it answered with a key that has another check value")
}

// A wrapped DEK is no wrapped file key and the reverse, whatever the container
// says.
func TestKindsDoNotMix(t *testing.T) {
	s := newSet(t, aesKEK(t, rawKEK(1)))
	k := key.NewDEK()
	dek, err := key.ParseContainer(wrapDEK(t, s, 1, key.Storage, k))
	require.NoError(t, err)
	b, err := s.WrapFileKey(t.Context(), 1, k)
	require.NoError(t, err)
	file, err := key.ParseFileContainer(b)
	require.NoError(t, err)

	dek.Recipients, file.Recipients = file.Recipients, dek.Recipients
	b, err = dek.Append(nil)
	require.NoError(t, err)
	refusedDEK(t, s, b, kek.ErrWrongKey)
	b, err = file.Append(nil)
	require.NoError(t, err)
	_, err = s.UnwrapFileKey(t.Context(), 1, b)
	require.ErrorIs(t, err, kek.ErrWrongKey)
}

func TestFileKey(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		node := rapid.Uint64().Draw(rt, "node")
		s := newSet(rt, kektest.New("a"), kektest.New("b"))
		k := key.NewDEK()
		c, err := s.WrapFileKey(t.Context(), node, k)
		require.NoError(rt, err)
		for _, id := range []string{"a", "b"} {
			got, err := newSet(rt, kektest.New(id)).UnwrapFileKey(t.Context(), node, c)
			require.NoError(rt, err)
			require.True(rt, key.EqualDEK(k, got))
		}
		require.True(rt, s.FileKeyCurrent(c))

		// Another node: refused by name, and by the KEK if the name is changed.
		other := node ^ 1<<rapid.IntRange(0, 63).Draw(rt, "bit")
		got, err := s.UnwrapFileKey(t.Context(), other, c)
		require.ErrorIs(rt, err, kek.ErrOtherNode)
		require.EqualError(rt, err, fmt.Sprintf("kek: file key of another node: node %d, want %d", node, other))
		require.True(rt, got.IsZero())
		parsed, err := key.ParseFileContainer(c)
		require.NoError(rt, err)
		parsed.Node = other
		c, err = parsed.Append(nil)
		require.NoError(rt, err)
		got, err = s.UnwrapFileKey(t.Context(), other, c)
		requireOnly(rt, err, kek.ErrWrongKey)
		require.ErrorContains(rt, err, fmt.Sprintf("the file key of node %d", other))
		require.True(rt, got.IsZero())
	})
}

func TestFileKeyBitFlips(t *testing.T) {
	s := newSet(t, aesKEK(t, rawKEK(1)))
	const node = 0x1122334455667788
	good, err := s.WrapFileKey(t.Context(), node, key.NewDEK())
	require.NoError(t, err)
	for bit := range 8 * len(good) {
		c := bytes.Clone(good)
		c[bit/8] ^= 1 << (bit % 8)
		k, err := s.UnwrapFileKey(t.Context(), node, c)
		require.Error(t, err, "byte %d, bit %d", bit/8, bit%8)
		require.True(t, k.IsZero())
	}
}

func TestFileKeyCurrent(t *testing.T) {
	a, b, c := kektest.New("a"), kektest.New("b"), kektest.New("c")
	ab := newSet(t, a, b)
	container, err := ab.WrapFileKey(t.Context(), 1, key.NewDEK())
	require.NoError(t, err)
	before := a.Calls()
	for _, tt := range []struct {
		set  *kek.Set
		want bool
	}{
		{ab, true},
		{newSet(t, b, a), true},
		{newSet(t, a), false},
		{newSet(t, a, c), false},
		{newSet(t, a, b, c), false},
		{newSet(t, c), false},
	} {
		require.Equal(t, tt.want, tt.set.FileKeyCurrent(container), "%v", tt.set.IDs())
	}
	require.Equal(t, before, a.Calls(), "no KEK is asked")
}

// Going from one KEK to another: add, rewrap, drop.
func TestRewrap(t *testing.T) {
	old, next := kektest.New("old"), kektest.New("next")
	dek := key.NewDEK()
	first := wrapDEK(t, newSet(t, old), 7, key.Raft, dek)
	both, err := newSet(t, next, old).RewrapDEK(t.Context(), first)
	require.NoError(t, err)
	old.Gone()
	last, err := newSet(t, next).RewrapDEK(t.Context(), both)
	require.NoError(t, err)

	wantRecipients := [][]string{{"old"}, {"next", "old"}, {"next"}}
	for i, b := range [][]byte{first, both, last} {
		c, err := key.ParseContainer(b)
		require.NoError(t, err)
		require.Equal(t, key.Header{Cluster: cluster, ID: 7, Purpose: key.Raft, Check: key.CheckOf(dek)}, c.Header)
		var ids []string
		for _, r := range c.Recipients {
			ids = append(ids, r.KEK)
		}
		require.Equal(t, wantRecipients[i], ids)
	}
	_, got, err := newSet(t, next).UnwrapDEK(t.Context(), last)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, got))
}

// Every new wrap is opened before the old container may go.
func TestRewrapVerifies(t *testing.T) {
	dek := key.NewDEK()
	first := wrapDEK(t, newSet(t, kektest.New("a")), 7, key.Storage, dek)
	tests := []struct {
		name string
		is   error
		text string
		make func(k *kektest.KEK, o *odd)
	}{
		{"wrap unreachable", kek.ErrUnreachable, "wrap storage DEK 7: KEK b: ", func(k *kektest.KEK, _ *odd) { k.FailNext(1, kek.ErrUnreachable) }},
		{"unwrap unreachable", kek.ErrUnreachable, "unwrap: KEK b: ", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, kek.ErrUnreachable) }},
		{"unwrap denied", kek.ErrDenied, "check its credentials", func(_ *kektest.KEK, o *odd) { o.unwrap = answer(nil, kek.ErrDenied) }},
		{"changed wrap", kek.ErrFaulty, "rewrap storage DEK 7: KEK b: faulty KEK: it does not open its own wrap", func(k *kektest.KEK, o *odd) {
			o.wrap = func(ctx context.Context, p, ad []byte) ([]byte, error) {
				w, err := k.Wrap(ctx, p, ad)
				w[0] ^= 1
				return w, err
			}
		}},
		{"wraps another key", kek.ErrFaulty, "another check value", func(k *kektest.KEK, o *odd) {
			o.wrap = func(ctx context.Context, _, ad []byte) ([]byte, error) { return k.Wrap(ctx, rawKEK(9), ad) }
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inner := kektest.New("b")
			o := &odd{KEK: inner}
			tt.make(inner, o)
			out, err := newSet(t, kektest.New("a"), o).RewrapDEK(t.Context(), first)
			require.Nil(t, out)
			requireOnly(t, err, tt.is)
			require.ErrorContains(t, err, tt.text)
		})
	}
	out, err := newSet(t, kektest.New("z")).RewrapDEK(t.Context(), first)
	require.Nil(t, out)
	requireOnly(t, err, kek.ErrWrongKey)
}

// What Unwrap was given and what it returned share nothing.
func TestUnwrapDoesNotAlias(t *testing.T) {
	shared := make([]byte, 32)
	inner := kektest.New("a")
	o := &odd{KEK: inner, unwrap: func(ctx context.Context, w, ad []byte) ([]byte, error) {
		p, err := inner.Unwrap(ctx, w, ad)
		copy(shared, p)
		return shared, err
	}}
	s := newSet(t, o)
	dek := key.NewDEK()
	c := wrapDEK(t, s, 1, key.Storage, dek)
	_, got, err := s.UnwrapDEK(t.Context(), c)
	require.NoError(t, err)
	clear(shared)
	clear(c)
	require.True(t, key.EqualDEK(dek, got))
}

// Without the KEK nobody makes a container that opens: what does is one of the
// vectors, with the recipients that are not asked changed at most.
func FuzzUnwrap(f *testing.F) {
	vs := readVectors(f)
	k := aesKEK(f, unhex(f, vs.Containers[0].Wraps[0].KEK))
	s := newSet(f, k)
	known := map[string]bool{}
	for _, v := range vs.Containers {
		known[v.Check+v.Key] = true
		f.Add(unhex(f, v.Container))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, dek, err := s.UnwrapDEK(t.Context(), b)
		if err != nil {
			require.Zero(t, h)
			require.True(t, dek.IsZero())
		} else {
			require.True(t, known[h.Check.String()+hex.EncodeToString(insecurekey.Bytes(dek))])
		}
		const node = 626980046172116160
		file, err := s.UnwrapFileKey(t.Context(), node, b)
		if err != nil {
			require.True(t, file.IsZero())
		} else {
			require.True(t, known[key.CheckOf(file).String()+hex.EncodeToString(insecurekey.Bytes(file))])
		}
	})
}
