package envelope_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

const keyID = key.ID(0x01020304)

func newCipher(t testing.TB) *envelope.Cipher {
	t.Helper()
	c, err := envelope.NewCipher(keyID, key.NewDEK())
	require.NoError(t, err)
	return c
}

func extended(t testing.TB, c *envelope.Cipher, m envelope.Meter) *envelope.Sealer {
	t.Helper()
	s, err := c.NewSealer(m)
	require.NoError(t, err)
	return s
}

func counted(t testing.TB, c *envelope.Cipher, m envelope.Meter) *envelope.Sealer {
	t.Helper()
	s, err := c.NewCountedSealer(envelope.Writer{Node16: 0xabcd, Epoch: 7}, m)
	require.NoError(t, err)
	return s
}

// sealers returns one sealer of each kind.
func sealers(t testing.TB, c *envelope.Cipher) map[string]*envelope.Sealer {
	t.Helper()
	return map[string]*envelope.Sealer{"counted": counted(t, c, nil), "extended": extended(t, c, nil)}
}

// kind is one of the three things that an envelope is sealed for.
type kind struct {
	name string
	seal func(s *envelope.Sealer, dst, plaintext []byte) ([]byte, error)
	open func(c *envelope.Cipher, dst, env []byte) ([]byte, error)
}

var (
	group    = envelope.RaftGroup{Cluster: key.ClusterID{0: 1, 15: 2}, Label: "group 1"}
	location = []byte("table/7/row/42")
	kinds    = []kind{
		{
			"storage",
			func(s *envelope.Sealer, dst, p []byte) ([]byte, error) { return s.SealStorage(dst, p, location) },
			func(c *envelope.Cipher, dst, env []byte) ([]byte, error) { return c.OpenStorage(dst, env, location) },
		},
		{
			"raft",
			func(s *envelope.Sealer, dst, p []byte) ([]byte, error) { return s.SealRaft(dst, p, group) },
			func(c *envelope.Cipher, dst, env []byte) ([]byte, error) { return c.OpenRaft(dst, env, group) },
		},
		{
			"raft generation 1",
			func(s *envelope.Sealer, dst, p []byte) ([]byte, error) { return s.SealRaftGeneration1(dst, p) },
			func(c *envelope.Cipher, dst, env []byte) ([]byte, error) { return c.OpenRaftGeneration1(dst, env) },
		},
	}
)

func TestRoundTrip(t *testing.T) {
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		for _, k := range kinds {
			if k.name == "raft generation 1" && (name == "extended" || fips140.Enforced()) {
				continue // refused; another test says so
			}
			t.Run(name+"/"+k.name, func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) {
					plaintext := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "plaintext")
					prefix := rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(t, "prefix")
					spare := rapid.IntRange(0, 400).Draw(t, "spare")
					dst := append(make([]byte, 0, len(prefix)+spare), prefix...)

					env, err := k.seal(s, dst, plaintext)
					require.NoError(t, err)
					require.Equal(t, prefix, env[:len(prefix):len(prefix)])
					env = env[len(prefix):]
					h, err := envelope.ParseHeader(env)
					require.NoError(t, err)
					require.Equal(t, keyID, h.KeyID)
					require.Len(t, env, h.Suite.Overhead()+len(plaintext))

					got, err := k.open(c, append(make([]byte, 0, len(prefix)+spare), prefix...), env)
					require.NoError(t, err)
					require.Equal(t, append(prefix, plaintext...), got)
				})
			})
		}
	}
}

func TestEmptyPlaintextOpensToNonNil(t *testing.T) {
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		for _, plaintext := range [][]byte{nil, {}} {
			env, err := s.SealStorage(nil, plaintext, nil)
			require.NoError(t, err, name)
			for _, dst := range [][]byte{nil, {}, make([]byte, 0, 100)} {
				got, err := c.OpenStorage(dst, env, nil)
				require.NoError(t, err, name)
				require.NotNil(t, got, name)
				require.Empty(t, got, name)
			}
		}
	}
}

func TestNewCipherRefuses(t *testing.T) {
	c, err := envelope.NewCipher(0, key.NewDEK())
	require.ErrorIs(t, err, key.ErrReservedID)
	require.Nil(t, c)
	c, err = envelope.NewCipher(1, key.DEK{})
	require.ErrorContains(t, err, "zero DEK")
	require.Nil(t, c)
}

func TestParseHeader(t *testing.T) {
	long := make([]byte, 64)
	header := func(version, flag byte, id uint32) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{version, flag}, id), long...)
	}
	legal := map[[2]byte]bool{{1, 0}: true, {2, 1}: true, {3, 0}: true, {3, 1}: true, {4, 0}: true, {4, 1}: true}
	for version := range 256 {
		for flag := range 256 {
			v, f := byte(version), byte(flag)
			h, err := envelope.ParseHeader(header(v, f, 9))
			if !legal[[2]byte{v, f}] {
				require.ErrorIs(t, err, envelope.ErrSuite)
				require.Zero(t, h)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, envelope.Header{Suite: envelope.Suite(v), Flag: f, KeyID: 9}, h)

			least := h.Suite.Overhead()
			_, err = envelope.ParseHeader(header(v, f, 9)[:least])
			require.NoError(t, err)
			for n := range least {
				h, err = envelope.ParseHeader(header(v, f, 9)[:n])
				require.ErrorIs(t, err, envelope.ErrShort)
				require.Zero(t, h)
			}
			h, err = envelope.ParseHeader(header(v, f, 0))
			require.ErrorIs(t, err, key.ErrReservedID)
			require.Zero(t, h)
		}
	}
}

func TestSuite(t *testing.T) {
	tests := []struct {
		suite           envelope.Suite
		nonce, overhead int
		name            string
	}{
		{envelope.AES256GCM, 12, 34, "AES-256-GCM"},
		{envelope.AES256GCMSnappy, 12, 34, "AES-256-GCM+Snappy"},
		{envelope.XAES256GCM, 24, 46, "XAES-256-GCM"},
		{envelope.XChaCha20Poly1305, 24, 46, "XChaCha20-Poly1305"},
		{0, 0, 0, "suite(0x00)"},
		{5, 0, 0, "suite(0x05)"},
		{255, 0, 0, "suite(0xff)"},
	}
	for _, tt := range tests {
		require.Equal(t, tt.nonce, tt.suite.NonceSize())
		require.Equal(t, tt.overhead, tt.suite.Overhead())
		require.Equal(t, tt.name, tt.suite.String())
	}
}

// Everything that an envelope is bound to is checked, and nothing opens as
// another kind.
func TestOpenRefuses(t *testing.T) {
	dek := key.NewDEK()
	c, err := envelope.NewCipher(keyID, dek)
	require.NoError(t, err)
	otherID, err := envelope.NewCipher(keyID+1, dek)
	require.NoError(t, err)
	otherKey, err := envelope.NewCipher(keyID, key.NewDEK())
	require.NoError(t, err)
	g2, g3 := group, group
	g2.Cluster[3]++
	g3.Label += "0"

	for name, s := range sealers(t, c) {
		value, err := s.SealStorage(nil, []byte("value"), location)
		require.NoError(t, err)
		payload, err := s.SealRaft(nil, []byte("value"), group)
		require.NoError(t, err)
		tests := []struct {
			name string
			open func() ([]byte, error)
			want error
		}{
			{"other location", func() ([]byte, error) { return c.OpenStorage(nil, value, []byte("table/7/row/43")) }, envelope.ErrIntegrity},
			{"no location", func() ([]byte, error) { return c.OpenStorage(nil, value, nil) }, envelope.ErrIntegrity},
			{"other id", func() ([]byte, error) { return otherID.OpenStorage(nil, value, location) }, envelope.ErrKeyMismatch},
			{"other key", func() ([]byte, error) { return otherKey.OpenStorage(nil, value, location) }, envelope.ErrIntegrity},
			{"value as payload", func() ([]byte, error) { return c.OpenRaft(nil, value, group) }, envelope.ErrIntegrity},
			{"payload as value", func() ([]byte, error) { return c.OpenStorage(nil, payload, location) }, envelope.ErrIntegrity},
			{"other cluster", func() ([]byte, error) { return c.OpenRaft(nil, payload, g2) }, envelope.ErrIntegrity},
			{"other label", func() ([]byte, error) { return c.OpenRaft(nil, payload, g3) }, envelope.ErrIntegrity},
			{"other id, payload", func() ([]byte, error) { return otherID.OpenRaft(nil, payload, group) }, envelope.ErrKeyMismatch},
			{"longer", func() ([]byte, error) { return c.OpenStorage(nil, append(bytes.Clone(value), 0), location) }, envelope.ErrIntegrity},
		}
		for _, tt := range tests {
			got, err := tt.open()
			require.ErrorIs(t, err, tt.want, "%s: %s", name, tt.name)
			require.Nil(t, got, "%s: %s", name, tt.name)
		}
		got, err := c.OpenRaftGeneration1(nil, payload)
		require.Error(t, err)
		require.Nil(t, got)
	}
}

// An envelope cut short is refused however short it is, with room in dst or not,
// also where its salt is known.
func TestShort(t *testing.T) {
	c := newCipher(t)
	for name, s := range sealers(t, c) {
		for _, k := range kinds[:2] {
			env, err := k.seal(s, nil, []byte("value"))
			require.NoError(t, err)
			h, err := envelope.ParseHeader(env)
			require.NoError(t, err)
			for n := range len(env) {
				want := envelope.ErrShort
				if n >= h.Suite.Overhead() {
					want = envelope.ErrIntegrity
				}
				for _, dst := range [][]byte{nil, make([]byte, 0, 500), make([]byte, 100, 500)} {
					got, err := k.open(c, dst, env[:n])
					require.ErrorIs(t, err, want, "%s, %s, %d bytes", name, k.name, n)
					require.Nil(t, got)
				}
			}
		}
	}
}

func TestGeneration1(t *testing.T) {
	c := newCipher(t)
	out, err := extended(t, c, nil).SealRaftGeneration1(nil, []byte("payload"))
	require.ErrorIs(t, err, envelope.ErrUnsupported)
	require.Nil(t, out)
	if fips140.Enforced() {
		out, err = counted(t, c, nil).SealRaftGeneration1(nil, nil)
		require.ErrorIs(t, err, envelope.ErrUnsupported)
		require.Nil(t, out)
		return
	}

	env, err := counted(t, c, nil).SealRaftGeneration1(nil, []byte("payload"))
	require.NoError(t, err)
	got, err := c.OpenRaftGeneration1(nil, env)
	require.NoError(t, err)
	require.Equal(t, "payload", string(got))

	// The associated data does not cover the flag: that no other flag opens has to
	// be checked.
	for flag := 1; flag < 256; flag++ {
		env[1] = byte(flag)
		got, err = c.OpenRaftGeneration1(nil, env)
		require.ErrorIs(t, err, envelope.ErrSuite)
		require.Nil(t, got)
	}
	env, err = extended(t, c, nil).SealRaft(nil, []byte("payload"), group)
	require.NoError(t, err)
	got, err = c.OpenRaftGeneration1(nil, env)
	require.ErrorIs(t, err, envelope.ErrSuite)
	require.Nil(t, got)
}

func TestLimits(t *testing.T) {
	c := newCipher(t)
	longest := make([]byte, envelope.MaxLocation)
	longestLabel := envelope.RaftGroup{Label: string(make([]byte, envelope.MaxGroup))}
	for name, s := range sealers(t, c) {
		env, err := s.SealStorage(nil, []byte("value"), longest)
		require.NoError(t, err, name)
		_, err = c.OpenStorage(nil, env, longest)
		require.NoError(t, err, name)
		payload, err := s.SealRaft(nil, []byte("value"), longestLabel)
		require.NoError(t, err, name)
		_, err = c.OpenRaft(nil, payload, longestLabel)
		require.NoError(t, err, name)

		for _, dst := range [][]byte{nil, make([]byte, 0, 2<<20)} {
			tooLong := append(longest, 0)
			tooLongLabel := envelope.RaftGroup{Label: longestLabel.Label + "x"}
			for _, f := range []func() ([]byte, error){
				func() ([]byte, error) { return s.SealStorage(dst, nil, tooLong) },
				func() ([]byte, error) { return c.OpenStorage(dst, env, tooLong) },
				func() ([]byte, error) { return s.SealRaft(dst, nil, tooLongLabel) },
				func() ([]byte, error) { return c.OpenRaft(dst, payload, tooLongLabel) },
			} {
				got, err := f()
				require.ErrorIs(t, err, envelope.ErrTooLarge, name)
				require.Nil(t, got, name)
			}
		}
	}
}
