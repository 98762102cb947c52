package keystore_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

func keyOf(env []byte) key.ID { return key.ID(binary.BigEndian.Uint32(env[2:])) }

// Sealing and opening never fail while keys are installed, activated, stopped and
// destroyed, and no seal that starts after Stop returned is under the stopped key.
func TestStress(t *testing.T) {
	const rotations = 2000 / scale
	var (
		s       = newStore(t)
		v, r    = s.Storage(), s.Raft(group)
		stopped atomic.Uint32 // storage keys up to this one
		over    atomic.Bool
		wg      sync.WaitGroup
	)
	// Storage keys have even ids, Raft keys odd ones.
	install := func(id key.ID) bool {
		return assert.NoError(t, s.Install(id, key.Purpose(1+id%2), key.NewDEK()))
	}
	for id := key.ID(2); id <= 3; id++ {
		install(id)
		require.NoError(t, s.Activate(id))
	}
	for g := range 4 {
		wg.Go(func() {
			dst, back := make([]byte, 0, 256), make([]byte, 0, 256)
			for n := 0; !over.Load(); n++ {
				plaintext := binary.BigEndian.AppendUint64([]byte{byte(g)}, uint64(n))
				floor := key.ID(stopped.Load())
				env, err := v.Seal(dst, plaintext, location)
				if !assert.NoError(t, err) || !assert.Greater(t, keyOf(env), floor, "sealed under a stopped key") {
					return
				}
				// Two rotations later the key may be destroyed.
				got, err := v.Open(back, env, location)
				if err != nil && !assert.ErrorIs(t, err, keystore.ErrDestroyed) || err == nil && !bytes.Equal(got, plaintext) {
					t.Errorf("opened %x, want %x", got, plaintext)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for !over.Load() {
			env, err := r.Seal(nil, value)
			if !assert.NoError(t, err) {
				return
			}
			got, err := r.Open(nil, env)
			if !assert.NoError(t, err) || !assert.Equal(t, value, got) {
				return
			}
		}
	})
	wg.Go(func() {
		for !over.Load() {
			active := 0
			for _, k := range s.Status() {
				if k.State == key.Active {
					active++
				}
			}
			if !assert.Equal(t, 2, active) {
				return
			}
		}
	})

	for n := range key.ID(rotations) {
		id := 4 + 2*n
		install(id)
		install(id + 1)
		w := envelope.Writer{Node16: 1, Epoch: 1}
		for _, id := range []key.ID{id, id + 1} {
			if n%3 == 0 {
				require.NoError(t, s.Activate(id))
			}
			if n%3 != 1 {
				require.NoError(t, s.ActivateCounted(id, w))
			} else {
				require.NoError(t, s.Activate(id))
			}
		}
		require.NoError(t, s.Stop(id-2))
		stopped.Store(uint32(id - 2))
		if n > 0 {
			require.NoError(t, s.Destroy(id-4))
		}
	}
	over.Store(true)
	wg.Wait()
}

// nonces collects what must be different in every envelope: under suite 0x01 the
// key id and the nonce; under 0x03 the key id and the half of the nonce that is
// drawn for each message, which alone makes it unique.
type nonces [4][][16]byte

func (n *nonces) add(env []byte) {
	var id [16]byte
	end := envelope.HeaderSize + envelope.Suite(env[0]).NonceSize()
	copy(id[:], env[2:envelope.HeaderSize])
	copy(id[4:], env[end-12:end])
	n[env[0]] = append(n[env[0]], id)
}

// requireUnique counts the nonces of all and fails if two are equal.
func requireUnique(t *testing.T, all ...nonces) (counted, extended int) {
	t.Helper()
	for suite := range 4 {
		var sum [][16]byte
		for i := range all {
			sum = append(sum, all[i][suite]...)
		}
		slices.SortFunc(sum, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
		total := len(sum)
		require.Len(t, slices.Compact(sum), total, "suite %d", suite)
		switch envelope.Suite(suite) {
		case envelope.AES256GCM:
			counted = total
		case envelope.XAES256GCM:
			extended = total
		}
	}
	return counted, extended
}

func TestNoNonceTwice(t *testing.T) {
	const (
		goroutines = 8
		seals      = 2_000_000 / scale / goroutines
		rotate     = seals / 10 // seals of one goroutine between its activations
	)
	s := newStore(t)
	install(t, s, 1, 2, 3)
	require.NoError(t, s.Activate(1))
	var (
		wg    sync.WaitGroup
		epoch atomic.Uint32
		all   [goroutines]nonces
	)
	for g := range goroutines {
		wg.Go(func() {
			v, dst := s.Storage(), make([]byte, 0, 128)
			for n := range seals {
				env, err := v.Seal(dst, nil, nil)
				if !assert.NoError(t, err) {
					return
				}
				all[g].add(env)
				if n%rotate != g*rotate/goroutines {
					continue
				}
				id := key.ID(1 + (g+n/rotate)%3)
				if n/rotate%2 == 0 {
					err = s.Activate(id)
				} else {
					err = s.ActivateCounted(id, envelope.Writer{Node16: 1, Epoch: uint16(epoch.Add(1))})
				}
				if err != nil { // another goroutine may have been first with a higher epoch
					assert.ErrorIs(t, err, keystore.ErrEpochUsed)
				}
			}
		})
	}
	wg.Wait()
	counted, extended := requireUnique(t, all[:]...)
	require.Equal(t, goroutines*seals, counted+extended)
	require.Equal(t, !fips140.Enforced(), counted > 0, "counted nonces")
	require.NotZero(t, extended)
	var sum uint64
	for _, k := range s.Status() {
		sum += k.Usage.Seals
	}
	require.EqualValues(t, goroutines*seals, sum, "every seal is counted once")
}

// zeros is a random source that always says the same.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// The epoch alone keeps the counted nonces of two loads apart: here every load
// starts to count at 0.
func TestNoNonceTwiceOverLoads(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("strict FIPS mode has no counted nonces")
	}
	const loads, seals = 1000, 20
	dek := key.NewDEK()
	var all nonces
	load := func(epoch uint16) {
		s := newStore(t)
		require.NoError(t, s.Install(7, key.Storage, dek))
		require.NoError(t, s.ActivateCounted(7, envelope.Writer{Node16: 1, Epoch: epoch}))
		for range seals {
			env, err := s.Storage().Seal(nil, nil, nil)
			require.NoError(t, err)
			all.add(env)
		}
	}
	random := rand.Reader
	t.Cleanup(func() { rand.Reader = random })
	rand.Reader = zeros{}
	for epoch := range uint16(loads) {
		load(epoch)
	}
	rand.Reader = random
	counted, _ := requireUnique(t, all)
	require.Equal(t, loads*seals, counted)

	// Extended nonces need no epoch.
	all = nonces{}
	for range loads {
		s := newStore(t)
		require.NoError(t, s.Install(7, key.Storage, dek))
		require.NoError(t, s.Activate(7))
		for range seals {
			env, err := s.Storage().Seal(nil, nil, nil)
			require.NoError(t, err)
			all.add(env)
		}
	}
	_, extended := requireUnique(t, all)
	require.Equal(t, loads*seals, extended)
}
