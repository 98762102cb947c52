package envelope_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

func TestAAD(t *testing.T) {
	h := envelope.Header{Suite: envelope.XAES256GCM, Flag: 1, KeyID: keyID}
	dst := []byte("dst")
	require.Equal(t, "dst\x03\x01\x01\x02\x03\x04loc", string(envelope.AppendStorageAAD(dst, h, []byte("loc"))))
	require.Equal(t, "dstR\x03\x01\x01\x02\x03\x04\x01"+string(make([]byte, 14))+"\x02group 1", string(envelope.AppendRaftAAD(dst, h, group)))

	h = envelope.Header{Suite: envelope.AES256GCM, KeyID: keyID}
	aad, err := envelope.AppendRaftAADGeneration1(dst, h)
	require.NoError(t, err)
	require.Equal(t, "dstR\x01\x01\x02\x03\x04", string(aad))
	for _, h := range []envelope.Header{
		{Suite: envelope.AES256GCM, Flag: 1, KeyID: keyID},
		{Suite: envelope.AES256GCM, Flag: 0x80, KeyID: keyID},
		{Suite: envelope.AES256GCMSnappy, Flag: 1, KeyID: keyID},
		{Suite: envelope.XAES256GCM, KeyID: keyID},
	} {
		aad, err = envelope.AppendRaftAADGeneration1(dst, h)
		require.ErrorIs(t, err, envelope.ErrSuite)
		require.Nil(t, aad)
	}
}

// Two different things that an envelope can be sealed for never share their
// associated data, whatever their bytes.
func TestAADsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(i string) (what, aad string) {
			h := envelope.Header{Suite: envelope.AES256GCM, KeyID: key.ID(rapid.Uint32().Draw(t, "id"+i))}
			location := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'R'}), 0, 24).Draw(t, "location"+i)
			g := envelope.RaftGroup{Label: rapid.StringOfN(rapid.SampledFrom([]rune{0, 1}), 0, 3, -1).Draw(t, "label"+i)}
			copy(g.Cluster[:], location)
			switch rapid.IntRange(0, 2).Draw(t, "kind"+i) {
			case 0:
				return fmt.Sprint("storage", h, location), string(envelope.AppendStorageAAD(nil, h, location))
			case 1:
				return fmt.Sprint("raft", h, g), string(envelope.AppendRaftAAD(nil, h, g))
			}
			b, err := envelope.AppendRaftAADGeneration1(nil, h)
			require.NoError(t, err)
			return fmt.Sprint("generation 1", h), string(b)
		}
		a, aadA := draw("a")
		b, aadB := draw("b")
		require.Equal(t, a == b, aadA == aadB, "%s, %s", a, b)
	})
}
