package envelope_test

import (
	"crypto/fips140"
	"encoding/binary"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/pinned"
)

// skipWithoutCounted skips a test of counted nonces where there are none.
func skipWithoutCounted(t *testing.T) {
	t.Helper()
	if fips140.Enforced() {
		t.Skip("strict FIPS mode has no counted nonces")
	}
}

// nonceOf returns the nonce of an envelope.
func nonceOf(env []byte) string {
	return string(env[6 : 6+envelope.Suite(env[0]).NonceSize()])
}

// Ten million seals on eight goroutines, and a million more nonces issued where all
// of them meet in one shard: no counted nonce comes twice.
func TestNoncesDoNotRepeat(t *testing.T) {
	skipWithoutCounted(t)
	const (
		goroutines = 8
		each       = 1_250_000
		crowded    = each / 10
		start      = math.MaxUint64 - 1_000_000 // wraps on the way
	)
	s := counted(t, newCipher(t), nil)
	envelope.PinStart(s, start, 0)
	taken := make([][]uint32, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			mine := make([]uint32, 0, each+crowded)
			buf := make([]byte, 0, 100)
			for i := range each + crowded {
				var count uint64
				var err error
				switch {
				case i < each:
					var env []byte
					if env, err = s.SealStorage(buf, nil, nil); err == nil {
						count = binary.BigEndian.Uint64(env[10:])
					}
				default:
					var n envelope.Nonce
					n, err = envelope.TakeAt(s, 0, 1)
					count = n.Count
				}
				if err != nil {
					t.Error(err)
					return
				}
				mine = append(mine, uint32(count-start))
			}
			taken[g] = mine
		})
	}
	wg.Wait()
	seen := make([]uint64, 1<<32/64/64)
	total := 0
	for _, mine := range taken {
		for _, i := range mine {
			bit := uint64(1) << (i % 64)
			if int(i/64) >= len(seen) || seen[i/64]&bit != 0 {
				t.Fatalf("nonce %d was issued twice, or is far above what was taken", i)
			}
			seen[i/64] |= bit
			total++
		}
	}
	require.Equal(t, goroutines*(each+crowded), total)
}

// The same of whole nonces of both suites, 200,000 of each.
func TestSealedNoncesDoNotRepeat(t *testing.T) {
	const (
		goroutines = 8
		each       = 25_000
	)
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		all := make([][]string, goroutines)
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				buf := make([]byte, 0, 200)
				for i := range each {
					seal := kinds[i%2].seal
					env, err := seal(s, buf, []byte("plaintext"))
					if err != nil {
						t.Error(err)
						return
					}
					all[g] = append(all[g], nonceOf(env))
				}
			})
		}
		wg.Wait()
		seen := map[string]bool{}
		for _, nonces := range all {
			for _, n := range nonces {
				require.False(t, seen[n], "%s: nonce %x comes twice", name, n)
				seen[n] = true
			}
		}
		require.Len(t, seen, goroutines*each, name)
	}
}

// A thousand loads whose random start is the same, each with its own epoch: no
// nonce comes twice. With one epoch for two of them it does.
func TestNoncesOfLoadsDoNotRepeat(t *testing.T) {
	skipWithoutCounted(t)
	c := newCipher(t)
	seen := map[string]bool{}
	load := func(epoch uint16) (repeated int) {
		s, err := c.NewCountedSealer(envelope.Writer{Node16: 0xffff, Epoch: epoch}, nil)
		require.NoError(t, err)
		envelope.PinStart(s, math.MaxUint64-20, 0)
		for range 100 {
			env, err := s.SealStorage(nil, nil, nil)
			require.NoError(t, err)
			if seen[nonceOf(env)] {
				repeated++
			}
			seen[nonceOf(env)] = true
		}
		return repeated
	}
	for epoch := range uint16(1000) {
		require.Zero(t, load(epoch))
	}
	require.Len(t, seen, 100_000)
	require.Positive(t, load(999))
}

// Without a pinned start, loads that wrongly share an epoch start far apart.
func TestStartIsRandom(t *testing.T) {
	skipWithoutCounted(t)
	c := newCipher(t)
	starts := map[uint64]bool{}
	for range 100 {
		n, err := envelope.TakeAt(counted(t, c, nil), 0, 0)
		require.NoError(t, err)
		starts[n.Count>>24] = true
	}
	require.Greater(t, len(starts), 95) // two of 2^40 equal: not in a lifetime
}

func TestPinnedStart(t *testing.T) {
	skipWithoutCounted(t)
	c := newCipher(t)
	first := func() uint64 {
		n, err := envelope.TakeAt(counted(t, c, nil), 0, 0)
		require.NoError(t, err)
		return n.Count
	}
	restore := pinned.PinStart(0)
	require.Zero(t, first())
	require.Zero(t, first())
	restore()
	a, b := first(), first()
	require.NotEqual(t, a, b)
}

func TestCountedNonce(t *testing.T) {
	skipWithoutCounted(t)
	c := newCipher(t)
	s := counted(t, c, nil)
	envelope.PinStart(s, math.MaxUint64-1, 0)
	for _, want := range []uint64{math.MaxUint64 - 1, math.MaxUint64, 0, 1} {
		n, err := envelope.TakeAt(s, 3, 10)
		require.NoError(t, err)
		require.Equal(t, want, n.Count)
	}

	s = counted(t, c, nil)
	envelope.PinStart(s, 0x0102030405060708, 0)
	env, err := s.SealStorage(nil, nil, nil)
	require.NoError(t, err)
	require.Equal(t, "\xab\xcd\x00\x07\x01\x02\x03\x04\x05\x06\x07\x08", nonceOf(env))
}

// Exactly 2^48 counted nonces are issued, then extended ones, and generation 1
// has nothing left.
func TestCountedNoncesEnd(t *testing.T) {
	skipWithoutCounted(t)
	require.Equal(t, uint64(1<<48), uint64(envelope.MaxCounted))
	const left = 2*envelope.BlockSeals + 500
	c := newCipher(t)
	s := counted(t, c, nil)
	start := uint64(math.MaxUint64 - 12345)
	envelope.PinStart(s, start, envelope.MaxCounted-left)
	require.Equal(t, envelope.AES256GCM, s.Suite())
	for i := range uint64(left) {
		n, err := envelope.TakeAt(s, 5, 1)
		require.NoError(t, err)
		require.Equal(t, envelope.AES256GCM, n.Suite)
		require.Equal(t, start+envelope.MaxCounted-left+i, n.Count)
	}
	for shard := range envelope.Shards {
		n, err := envelope.TakeAt(s, shard, 1)
		require.NoError(t, err)
		require.Equal(t, envelope.XAES256GCM, n.Suite)
	}
	require.Equal(t, envelope.XAES256GCM, s.Suite())

	env, err := s.SealStorage(nil, []byte("value"), location)
	require.NoError(t, err)
	require.Equal(t, byte(envelope.XAES256GCM), env[0])
	got, err := c.OpenStorage(nil, env, location)
	require.NoError(t, err)
	require.Equal(t, "value", string(got))

	env, err = s.SealRaftGeneration1(nil, nil)
	require.ErrorIs(t, err, envelope.ErrExhausted)
	require.Nil(t, env)
}

// One salt serves exactly 2^24 seals.
func TestSaltChanges(t *testing.T) {
	require.Equal(t, 1<<24, envelope.MaxSalted)
	s := extended(t, newCipher(t), nil)
	const served = envelope.MaxSalted - 3*envelope.BlockSeals - 7
	envelope.PinSalted(t, s, served)
	// run takes n times and returns the salt if it was the same all the time.
	run := func(n int) string {
		var first envelope.Nonce
		for i := range n {
			next, err := envelope.TakeAt(s, 0, 1)
			if i == 0 {
				first = next
			}
			if err != nil || next != first || next.Suite != envelope.XAES256GCM {
				t.Fatalf("take %d of %d: %v after %v, %v", i, n, next, first, err)
			}
		}
		return string(first.Salt[:])
	}
	first := run(envelope.MaxSalted - served)
	second := run(envelope.MaxSalted)
	third := run(1)
	require.NotEqual(t, first, second)
	require.NotEqual(t, second, third)
}

// The part of an extended nonce that is not the salt is fresh for each message,
// and every load has its own salt.
func TestExtendedNonce(t *testing.T) {
	c := newCipher(t)
	salts, tails := map[string]bool{}, map[string]bool{}
	for range 10 {
		s := extended(t, c, nil)
		for range 10 {
			env, err := s.SealStorage(nil, nil, nil)
			require.NoError(t, err)
			salts[nonceOf(env)[:12]] = true
			tails[nonceOf(env)[12:]] = true
		}
	}
	require.Len(t, salts, 10)
	require.Len(t, tails, 100)
}

// A salt is kept once something opened under it; what does not open leaves no
// trace.
func TestSaltsAreKept(t *testing.T) {
	c := newCipher(t)
	s := extended(t, c, nil)
	env, err := s.SealStorage(nil, []byte("value"), location)
	require.NoError(t, err)
	require.True(t, envelope.KnowsSalt(c, env), "the salt in use")
	envelope.ForgetSalts(c)
	for range 100 {
		_, err = c.OpenStorage(nil, env, nil)
		require.ErrorIs(t, err, envelope.ErrIntegrity)
	}
	require.False(t, envelope.KnowsSalt(c, env))
	for _, dst := range [][]byte{nil, make([]byte, 0, 100)} {
		envelope.ForgetSalts(c)
		_, err = c.OpenStorage(dst, env, location)
		require.NoError(t, err)
		require.True(t, envelope.KnowsSalt(c, env))
	}
}

// More salts than an opener keeps: all open, in any order.
func TestManySalts(t *testing.T) {
	c := newCipher(t)
	var envs [][]byte
	for i := range 500 {
		env, err := extended(t, c, nil).SealStorage(nil, binary.BigEndian.AppendUint32(nil, uint32(i)), location)
		require.NoError(t, err)
		envs = append(envs, env)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range envs {
				i = (i*(2*g+1) + g) % len(envs)
				got, err := c.OpenStorage(nil, envs[i], location)
				if err != nil || int(binary.BigEndian.Uint32(got)) != i {
					t.Error(i, got, err)
				}
			}
		})
	}
	wg.Wait()
}
