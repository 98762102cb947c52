package kek_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
)

var (
	cheap  = kek.Cost{Time: kek.MinTime, Memory: kek.MinMemory, Threads: 1}
	secret = []byte("correct horse battery staple")
)

// newPassphrase makes the cheapest KEK of a passphrase.
func newPassphrase(t require.TestingT, passphrase []byte, opts ...kek.PassphraseOption) *kek.Argon2id {
	if t, ok := t.(*testing.T); ok && fips140.Enforced() {
		t.Skip("Argon2id is refused in strict FIPS mode; TestFIPSOnly runs")
	}
	k, err := kek.Passphrase(passphrase, append([]kek.PassphraseOption{kek.WithCost(cheap)}, opts...)...)
	require.NoError(t, err)
	return k
}

func TestPassphrase(t *testing.T) {
	k := newPassphrase(t, secret)
	require.Equal(t, "passphrase:default", k.ID())
	require.NoError(t, kek.Verify(t.Context(), k))
	require.Equal(t, "passphrase:ops-2", newPassphrase(t, secret, kek.WithName("ops-2")).ID())

	s, dek := newSet(t, k), key.NewDEK()
	c := wrapDEK(t, s, 7, key.Storage, dek)
	parsed, err := key.ParseContainer(c)
	require.NoError(t, err)
	require.Len(t, parsed.Recipients[0].Params, 26)
	require.Len(t, parsed.Recipients[0].Wrap, 60)

	// Another process, which knows nothing but the passphrase.
	_, got, err := newSet(t, newPassphrase(t, secret)).UnwrapDEK(t.Context(), c)
	require.NoError(t, err)
	require.True(t, key.EqualDEK(dek, got))

	for _, wrong := range [][]byte{secret[1:], append(bytes.Clone(secret), '\n'), append(bytes.Clone(secret), 0)} {
		refusedDEK(t, newSet(t, newPassphrase(t, wrong)), c, kek.ErrWrongKey)
	}
	// Not asked by another name.
	_, _, err = newSet(t, newPassphrase(t, secret, kek.WithName("other"))).UnwrapDEK(t.Context(), c)
	requireOnly(t, err, kek.ErrWrongKey)
	require.ErrorContains(t, err, "KEK passphrase:default: not configured here")
}

// What new wraps cost without options is what the documentation says.
func TestPassphraseDefaultCost(t *testing.T) {
	newPassphrase(t, secret)
	k, err := kek.Passphrase(secret)
	require.NoError(t, err)
	params, _, err := k.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	cost, _, err := kek.ParseParams(params)
	require.NoError(t, err)
	require.Equal(t, kek.Cost{Time: 3, Memory: 64 << 10, Threads: 4}, cost)
}

func TestPassphraseRoundTrip(t *testing.T) {
	k := newPassphrase(t, secret)
	rapid.Check(t, func(rt *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, "plaintext")
		ad := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "ad")
		before, adBefore := bytes.Clone(plaintext), bytes.Clone(ad)
		params, w, err := k.WrapParams(t.Context(), plaintext, ad)
		require.NoError(rt, err)
		require.Len(rt, params, 26)
		require.Len(rt, w, 60)
		pBefore, wBefore := bytes.Clone(params), bytes.Clone(w)

		got, err := k.UnwrapParams(t.Context(), params, w, ad)
		require.NoError(rt, err)
		require.Equal(rt, plaintext, got)
		_, err = k.UnwrapParams(t.Context(), params, w, append(ad, 0))
		require.ErrorIs(rt, err, kek.ErrWrongKey)
		bit := rapid.IntRange(0, 8*len(w)-1).Draw(rt, "bit")
		changed := bytes.Clone(w)
		changed[bit/8] ^= 1 << (bit % 8)
		got, err = k.UnwrapParams(t.Context(), params, changed, ad)
		require.ErrorIs(rt, err, kek.ErrWrongKey)
		require.Nil(rt, got)

		// In one, by those who have no place for parameters, and back by both ways.
		joined, err := k.Wrap(t.Context(), plaintext, ad)
		require.NoError(rt, err)
		require.Len(rt, joined, 86)
		for _, unwrap := range []func() ([]byte, error){
			func() ([]byte, error) { return k.Unwrap(t.Context(), joined, ad) },
			func() ([]byte, error) { return k.UnwrapParams(t.Context(), nil, joined, ad) },
			func() ([]byte, error) { return k.UnwrapParams(t.Context(), joined[:26], joined[26:], ad) },
		} {
			got, err = unwrap()
			require.NoError(rt, err)
			require.Equal(rt, plaintext, got)
		}

		require.Equal(rt, before, plaintext, "arguments are only read")
		require.Equal(rt, adBefore, ad[:len(adBefore)])
		require.Equal(rt, pBefore, params)
		require.Equal(rt, wBefore, w)
	})
	require.Equal(t, 1, kek.Derived(k))
}

// Any bit of the parameters, changed, and one in each byte of the salt: it does not
// open. Where the cost would come out higher, it is refused before it is paid.
func TestPassphraseParamsAreBound(t *testing.T) {
	k := newPassphrase(t, secret, kek.WithMaxCost(cheap))
	params, w, err := k.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	for bit := range 8 * len(params) {
		if bit >= 8*10 && bit%8 != bit/8%8 {
			continue // each costs a derivation
		}
		changed := bytes.Clone(params)
		changed[bit/8] ^= 1 << (bit % 8)
		got, err := k.UnwrapParams(t.Context(), changed, w, nil)
		require.Nil(t, got)
		if errors.Is(err, kek.ErrDenied) {
			require.ErrorIs(t, err, kek.ErrCost)
		} else {
			require.ErrorIs(t, err, kek.ErrWrongKey, "byte %d, bit %d", bit/8, bit%8)
		}
	}
	// The key being the same, they are still part of the associated data.
	_, err = k.UnwrapParams(t.Context(), params, w, params)
	require.ErrorIs(t, err, kek.ErrWrongKey)
}

func TestPassphraseRefused(t *testing.T) {
	newPassphrase(t, secret)
	low := func(change func(*kek.Cost)) kek.PassphraseOption {
		c := cheap
		change(&c)
		return kek.WithCost(c)
	}
	for _, tt := range []struct {
		name       string
		passphrase []byte
		opt        kek.PassphraseOption
		is         error
		text       string
	}{
		{"nil", nil, kek.WithName("a"), kek.ErrBadPassphrase, "kek: passphrase a: no usable passphrase: it is empty"},
		{"empty", []byte{}, kek.WithCost(cheap), kek.ErrBadPassphrase, "kek: passphrase default: "},
		{"name", secret, kek.WithName("two words"), key.ErrContainer, "printable ASCII"},
		{"long name", secret, kek.WithName(strings.Repeat("a", 250)), key.ErrContainer, "261 bytes"},
		{"1 pass", secret, low(func(c *kek.Cost) { c.Time = 1 }), kek.ErrCost, "1 passes, want at least 2"},
		{"no pass", secret, low(func(c *kek.Cost) { c.Time = 0 }), kek.ErrCost, "0 passes"},
		{"memory", secret, low(func(c *kek.Cost) { c.Memory-- }), kek.ErrCost, "19455 KiB of memory, want at least 19456"},
		{"threads", secret, low(func(c *kek.Cost) { c.Threads = 0 }), kek.ErrCost, "no threads, want at least 1"},
		{"zero", secret, kek.WithCost(kek.Cost{}), kek.ErrCost, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := kek.Passphrase(tt.passphrase, tt.opt)
			require.Nil(t, k)
			require.ErrorIs(t, err, tt.is)
			require.ErrorContains(t, err, tt.text)
			require.NotContains(t, err.Error(), string(secret))
			var source *kek.SourceError
			require.ErrorAs(t, err, &source)
			require.Equal(t, "passphrase", source.Source)
		})
	}
}

// A wrap whose parameters ask for too little or too much, or are none, is refused
// without a derivation.
func TestPassphraseUnwrapBounds(t *testing.T) {
	limit := kek.Cost{Time: 3, Memory: 20 << 10, Threads: 2}
	k := newPassphrase(t, secret, kek.WithMaxCost(limit))
	with := func(change func(*kek.Cost)) []byte {
		c := cheap
		change(&c)
		return kek.NewParams(c, [16]byte{1})
	}
	good := kek.NewParams(cheap, [16]byte{1})
	for _, tt := range []struct {
		name   string
		params []byte
		kind   error
		cost   bool
		text   string
	}{
		{"1 pass", with(func(c *kek.Cost) { c.Time = 1 }), kek.ErrWrongKey, true, "1 passes, want at least 2"},
		{"little memory", with(func(c *kek.Cost) { c.Memory = kek.MinMemory - 1 }), kek.ErrWrongKey, true, "19455 KiB"},
		{"no memory", with(func(c *kek.Cost) { c.Memory = 0 }), kek.ErrWrongKey, true, "0 KiB"},
		{"no threads", with(func(c *kek.Cost) { c.Threads = 0 }), kek.ErrWrongKey, true, "no threads"},
		{"4 passes", with(func(c *kek.Cost) { c.Time = 4 }), kek.ErrDenied, true, "4 passes, want at most 3 here"},
		{"all passes", with(func(c *kek.Cost) { c.Time = math.MaxUint32 }), kek.ErrDenied, true, "4294967295 passes"},
		{"more memory", with(func(c *kek.Cost) { c.Memory = 20<<10 + 1 }), kek.ErrDenied, true, "20481 KiB of memory, want at most 20480 here"},
		{"all memory", with(func(c *kek.Cost) { c.Memory = math.MaxUint32 }), kek.ErrDenied, true, "4294967295 KiB"},
		{"threads", with(func(c *kek.Cost) { c.Threads = 3 }), kek.ErrDenied, true, "3 threads, want at most 2 here"},
		{"all threads", with(func(c *kek.Cost) { c.Threads = 255 }), kek.ErrDenied, true, "255 threads"},
		{"version 0", append([]byte{0}, good[1:]...), kek.ErrWrongKey, false, "version 0, want 1"},
		{"version 2", append([]byte{2}, good[1:]...), kek.ErrWrongKey, false, "version 2, want 1"},
		{"short", good[:25], kek.ErrWrongKey, false, "25 bytes of parameters, want 26"},
		{"long", append(bytes.Clone(good), 0), kek.ErrWrongKey, false, "27 bytes"},
		{"1 byte", []byte{1}, kek.ErrWrongKey, false, "1 bytes"},
		{"none", nil, kek.ErrWrongKey, false, "a wrap of 60 bytes, want 86"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := k.UnwrapParams(t.Context(), tt.params, make([]byte, 60), nil)
			require.Nil(t, got)
			requireOnly(t, err, tt.kind)
			require.Equal(t, tt.cost, errors.Is(err, kek.ErrCost))
			require.ErrorContains(t, err, tt.text)

			// The same from a container.
			h := key.Header{Cluster: cluster, ID: 1, Purpose: key.Storage}
			c, err := key.Container{Header: h, Recipients: []key.Recipient{{KEK: k.ID(), Params: tt.params, Wrap: make([]byte, 60)}}}.Append(nil)
			require.NoError(t, err)
			_, _, err = newSet(t, k).UnwrapDEK(t.Context(), c)
			requireOnly(t, err, tt.kind)
			require.Equal(t, tt.cost, errors.Is(err, kek.ErrCost))
		})
	}
	for _, n := range []int{0, 59, 61, 86} {
		_, err := k.UnwrapParams(t.Context(), good, make([]byte, n), nil)
		requireOnly(t, err, kek.ErrWrongKey)
	}
	for _, n := range []int{0, 31, 33} {
		_, _, err := k.WrapParams(t.Context(), make([]byte, n), nil)
		require.ErrorContains(t, err, "bytes, want 32")
	}
	require.Zero(t, kek.Derived(k))

	// At the limit it is tried, and so is what the KEK itself would ask for.
	_, err := k.UnwrapParams(t.Context(), kek.NewParams(limit, [16]byte{1}), make([]byte, 60), nil)
	requireOnly(t, err, kek.ErrWrongKey)
	require.Equal(t, 1, kek.Derived(k))
	dear := kek.Cost{Time: 2, Memory: 21 << 10, Threads: 3}
	k = newPassphrase(t, secret, kek.WithMaxCost(cheap), kek.WithCost(dear))
	require.NoError(t, kek.Verify(t.Context(), k))
}

// However many keys share a salt, it costs one derivation; the passphrase being
// wrong changes nothing about that.
func TestPassphraseDerivesOnce(t *testing.T) {
	writer := newPassphrase(t, secret)
	s := newSet(t, writer)
	cs := make([][]byte, 1000)
	for i := range cs {
		cs[i] = wrapDEK(t, s, key.ID(i+1), key.Storage, key.NewDEK())
	}
	require.Equal(t, 1, kek.Derived(writer))

	reader := newPassphrase(t, secret)
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			set := newSet(t, reader)
			for _, c := range cs[250*part : 250*part+250] {
				if _, _, err := set.UnwrapDEK(t.Context(), c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, kek.Derived(reader))

	wrong := newPassphrase(t, []byte("wrong"))
	for _, c := range cs {
		refusedDEK(t, newSet(t, wrong), c, kek.ErrWrongKey)
	}
	require.Equal(t, 1, kek.Derived(wrong))
}

// A process after another wraps with the salt of the first, so that restarts do
// not add derivations.
func TestPassphraseKeepsTheSalt(t *testing.T) {
	saltOf := func(k *kek.Argon2id) string {
		params, _, err := k.WrapParams(t.Context(), rawKEK(1), nil)
		require.NoError(t, err)
		_, salt, err := kek.ParseParams(params)
		require.NoError(t, err)
		return string(salt)
	}
	first := newPassphrase(t, secret)
	params, w, err := first.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)

	second := newPassphrase(t, secret)
	own := saltOf(second) // as kek.Verify does at a start
	require.NotEqual(t, saltOf(first), own)
	changed := bytes.Clone(w)
	changed[20] ^= 1
	_, err = second.UnwrapParams(t.Context(), params, changed, nil)
	require.ErrorIs(t, err, kek.ErrWrongKey)
	require.Equal(t, own, saltOf(second), "of a wrap that does not open nothing is taken")
	_, err = second.UnwrapParams(t.Context(), params, w, nil)
	require.NoError(t, err)
	require.Equal(t, saltOf(first), saltOf(second))

	third := newPassphrase(t, secret)
	p3, w3, err := third.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	_, err = second.UnwrapParams(t.Context(), p3, w3, nil)
	require.NoError(t, err)
	require.Equal(t, saltOf(first), saltOf(second), "settled once")

	// A wrap of another cost is no model.
	dearer := newPassphrase(t, secret, kek.WithCost(kek.Cost{Time: 3, Memory: kek.MinMemory, Threads: 1}))
	_, err = dearer.UnwrapParams(t.Context(), params, w, nil)
	require.NoError(t, err)
	require.NotEqual(t, saltOf(first), saltOf(dearer))
}

// Salts without end do not fill the memory, and the key of new wraps stays.
func TestPassphraseForgetsOldKeys(t *testing.T) {
	k := newPassphrase(t, secret)
	kek.KeepDerived(k, 4)
	_, _, err := k.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	for i := range 6 {
		_, err := k.UnwrapParams(t.Context(), kek.NewParams(cheap, [16]byte{1, byte(i)}), make([]byte, 60), nil)
		requireOnly(t, err, kek.ErrWrongKey)
	}
	require.Equal(t, 4, kek.Derived(k))
	defer kek.HoldDerivations(k)()
	_, _, err = k.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err, "no derivation is needed")
}

func TestPassphraseContext(t *testing.T) {
	k := newPassphrase(t, secret)
	ask := func(ctx context.Context) {
		_, _, err := k.WrapParams(ctx, rawKEK(1), nil)
		requireOnly(t, err, kek.ErrUnreachable)
		require.ErrorIs(t, err, context.Canceled)
		_, err = k.UnwrapParams(ctx, kek.NewParams(cheap, [16]byte{}), make([]byte, 60), nil)
		requireOnly(t, err, kek.ErrUnreachable)
		require.ErrorIs(t, err, context.Canceled)
	}
	ask(cancelled(t))
	require.Zero(t, kek.Derived(k), "nothing is derived for nobody")

	// While another derives, a call waits no longer than its context.
	release := kek.HoldDerivations(k)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := k.WrapParams(ctx, rawKEK(1), nil)
		done <- err
	}()
	cancel()
	requireOnly(t, <-done, kek.ErrUnreachable)
	release()
	_, _, err := k.WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	ask(cancelled(t))
}

func TestPassphraseCopies(t *testing.T) {
	mine := bytes.Clone(secret)
	k := newPassphrase(t, mine)
	clear(mine)
	params, w, err := newPassphrase(t, secret).WrapParams(t.Context(), rawKEK(1), nil)
	require.NoError(t, err)
	_, err = k.UnwrapParams(t.Context(), params, w, nil)
	require.NoError(t, err)
}

// Neither a KEK nor what holds one prints its passphrase or a derived key.
func TestPassphraseDoesNotShow(t *testing.T) {
	k := newPassphrase(t, rawKEK(1))
	require.NoError(t, kek.Verify(t.Context(), k))
	set := newSet(t, k)
	for _, v := range []any{k, *k, set, *set, []kek.KEK{k}, map[string]*kek.Argon2id{"k": k}, struct{ any }{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%t"} {
			requireHidden(t, fmt.Sprintf(verb, v), rawKEK(1))
		}
		if b, err := json.Marshal(v); err == nil {
			requireHidden(t, string(b), rawKEK(1))
		}
	}
}

// What parses is what newParams makes, and within the minimum.
func FuzzParams(f *testing.F) {
	f.Add(kek.NewParams(cheap, [16]byte{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		cost, salt, err := kek.ParseParams(b)
		if err != nil {
			require.ErrorIs(t, err, kek.ErrWrongKey)
			require.Zero(t, cost)
			require.Nil(t, salt)
			return
		}
		require.GreaterOrEqual(t, cost.Time, uint32(kek.MinTime))
		require.GreaterOrEqual(t, cost.Memory, uint32(kek.MinMemory))
		require.NotZero(t, cost.Threads)
		require.Equal(t, b, kek.NewParams(cost, [16]byte(salt)))
	})
}
