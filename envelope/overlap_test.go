package envelope_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
)

// arena is memory in which dst and the inputs lie wherever a test wants them.
type arena struct {
	before, mem []byte
}

func newArena(n int) *arena {
	a := &arena{mem: make([]byte, n)}
	for i := range a.mem {
		a.mem[i] = byte(i*7 + i>>8)
	}
	return a
}

// put copies b to an offset and returns it there.
func (a *arena) put(at int, b []byte) []byte {
	out := a.mem[at : at+len(b) : at+len(b)]
	copy(out, b)
	return out
}

func (a *arena) snapshot() { a.before = bytes.Clone(a.mem) }

// requireSame checks that nothing changed outside [from, to).
func (a *arena) requireSame(t *testing.T, from, to int, args ...any) {
	t.Helper()
	require.True(t, bytes.Equal(a.before[:from], a.mem[:from]), args...)
	require.True(t, bytes.Equal(a.before[to:], a.mem[to:]), args...)
}

const (
	arenaSize = 310
	dstAt     = 120
	dstLen    = 5
)

// Plaintext and location may lie anywhere, also in the memory that the envelope
// is written to, with room for the associated data or without, or with no room.
func TestSealOverlap(t *testing.T) {
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		overhead := envelope.AES256GCM.Overhead()
		if s.Suite() == envelope.XAES256GCM {
			overhead = envelope.XAES256GCM.Overhead()
		}
		for _, size := range []int{0, 20, 70} {
			for _, spare := range []int{0, size + overhead - 1, size + overhead, size + overhead + 10, size + overhead + 64} {
				for p := 0; p+size <= arenaSize; p++ {
					for _, l := range []int{0, p, dstAt - 7, dstAt + 1, dstAt + 12, dstAt + dstLen + size + overhead - 3, arenaSize - 14} {
						if l+14 > arenaSize {
							continue
						}
						a := newArena(arenaSize)
						plaintext := a.mem[p : p+size : p+size]
						loc := a.mem[l : l+14 : l+14]
						dst := a.mem[dstAt : dstAt+dstLen : dstAt+dstLen+spare]
						wantPlaintext, wantLoc, wantDst := bytes.Clone(plaintext), bytes.Clone(loc), bytes.Clone(dst)
						a.snapshot()

						out, err := s.SealStorage(dst, plaintext, loc)
						require.NoError(t, err)
						a.requireSame(t, dstAt+dstLen, dstAt+dstLen+spare, name, size, spare, p, l)
						require.Equal(t, wantDst, out[:dstLen])
						got, err := c.OpenStorage(nil, out[dstLen:], wantLoc)
						require.NoError(t, err, name, size, spare, p, l)
						require.True(t, bytes.Equal(wantPlaintext, got), name, size, spare, p, l)

						a = newArena(arenaSize)
						a.snapshot()
						out, err = s.SealRaft(a.mem[dstAt:dstAt+dstLen:dstAt+dstLen+spare], a.mem[p:p+size], group)
						require.NoError(t, err)
						a.requireSame(t, dstAt+dstLen, dstAt+dstLen+spare, name, size, spare, p, l)
						got, err = c.OpenRaft(nil, out[dstLen:], group)
						require.NoError(t, err, name, size, spare, p, l)
						require.True(t, bytes.Equal(wantPlaintext, got), name, size, spare, p, l)
					}
				}
			}
		}
	}
}

// So may an envelope and its location.
func TestOpenOverlap(t *testing.T) {
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		for _, size := range []int{0, 20, 70} {
			plaintext := bytes.Repeat([]byte{0xee}, size)
			value, err := s.SealStorage(nil, plaintext, location)
			require.NoError(t, err)
			payload, err := s.SealRaft(nil, plaintext, group)
			require.NoError(t, err)
			for _, spare := range []int{0, size - 1, size, size + 10, size + 16, size + 28, size + 80} {
				if spare < 0 {
					continue
				}
				for p := 0; p+len(value) <= arenaSize; p++ {
					for _, l := range []int{0, dstAt + dstLen - 3, dstAt + dstLen + 3, dstAt + dstLen + size + 2, arenaSize - len(location)} {
						if l < p+len(value) && p < l+len(location) {
							continue // they cannot share their own memory
						}
						a := newArena(arenaSize)
						env, loc := a.put(p, value), a.put(l, location)
						dst := a.mem[dstAt : dstAt+dstLen : dstAt+dstLen+spare]
						wantDst := bytes.Clone(dst)
						a.snapshot()
						out, err := c.OpenStorage(dst, env, loc)
						require.NoError(t, err, name, size, spare, p, l)
						a.requireSame(t, dstAt+dstLen, dstAt+dstLen+spare, name, size, spare, p, l)
						require.True(t, bytes.Equal(append(wantDst, plaintext...), out), name, size, spare, p, l)

						a = newArena(arenaSize)
						env, loc = a.put(p, value), a.put(l, location)
						env[len(env)-1] ^= 1
						a.snapshot()
						out, err = c.OpenStorage(a.mem[dstAt:dstAt+dstLen:dstAt+dstLen+spare], env, loc)
						require.ErrorIs(t, err, envelope.ErrIntegrity)
						require.Nil(t, out)
						a.requireSame(t, dstAt+dstLen, dstAt+dstLen+spare, name, size, spare, p, l)
					}
					a := newArena(arenaSize)
					env := a.put(p, payload)
					a.snapshot()
					out, err := c.OpenRaft(a.mem[dstAt:dstAt+dstLen:dstAt+dstLen+spare], env, group)
					require.NoError(t, err, name, size, spare, p)
					require.True(t, bytes.Equal(plaintext, out[dstLen:]), name, size, spare, p)
					a.requireSame(t, dstAt+dstLen, dstAt+dstLen+spare, name, size, spare, p)
				}
			}
		}
	}
}

// In place: the plaintext becomes the envelope in its own buffer, and back.
func TestInPlace(t *testing.T) {
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		buf := make([]byte, 0, 1000)
		buf = append(buf, "the plaintext"...)
		env, err := s.SealStorage(buf[:0], buf, location)
		require.NoError(t, err, name)
		require.Same(t, &buf[0], &env[0], name)
		got, err := c.OpenStorage(env[:0], env, location)
		require.NoError(t, err, name)
		require.Same(t, &buf[0], &got[0], name)
		require.Equal(t, "the plaintext", string(got), name)
	}
}
