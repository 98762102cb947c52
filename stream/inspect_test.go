package stream_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

func TestReadHeader(t *testing.T) {
	keys := newStore(t)
	at := stream.Place{Label: strings.Repeat("x", stream.MaxLabel), Data: []byte("a secret place")}
	want := stream.Header{KeyID: keyID, Suite: 1, SegmentSize: 5000, Label: at.Label}
	for _, metadata := range [][]byte{nil, text(stream.MaxMetadata)} {
		sealed := seal(t, keys, at, text(seg), stream.WithSegmentSize(5000), stream.WithMetadata(metadata))
		src := bytes.NewReader(sealed)
		h, err := stream.ReadHeader(src)
		require.NoError(t, err)
		require.Equal(t, want, h)
		size := headSize(at) + len(metadata)
		require.Equal(t, len(sealed)-size, src.Len(), "it reads the header and no more")

		for k := range size {
			h, err := stream.ReadHeader(bytes.NewReader(sealed[:k]))
			require.ErrorIs(t, err, stream.ErrFormat, "%d bytes", k)
			require.Zero(t, h)
		}
	}
}

// A header that no key has authenticated shows what stands there.
func TestReadHeaderNeedsNoKey(t *testing.T) {
	sealed := seal(t, newStore(t), place, nil)
	sealed[8] = 9
	h, err := stream.ReadHeader(bytes.NewReader(sealed))
	require.NoError(t, err)
	require.EqualValues(t, 9, h.KeyID)
}

// Lengths that are not there cost nothing.
func TestReadHeaderIsBounded(t *testing.T) {
	sealed := seal(t, newStore(t), place, nil)
	sealed[46], sealed[47] = 0x40, 0 // of the metadata
	read := 0
	src := readFunc(func(b []byte) (int, error) {
		n := copy(b, sealed[min(read, len(sealed)):])
		if n == 0 {
			n = len(b) // and whatever it has behind that
		}
		read += n
		return n, nil
	})
	_, err := stream.ReadHeader(src)
	require.NoError(t, err)
	require.Equal(t, headSize(place)+stream.MaxMetadata, read)
}

func TestVerify(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(3*seg), stream.WithSegmentSize(seg))
	want := stream.Header{KeyID: keyID, Suite: 1, SegmentSize: seg, Label: place.Label}
	for _, workers := range []int{1, 2} {
		verify := func(b []byte, at stream.Place) error {
			h, err := stream.Verify(t.Context(), bytes.NewReader(b), keys, at, stream.WithWorkers(workers))
			if err != nil {
				require.Zero(t, h)
				return err
			}
			require.Equal(t, want, h)
			return nil
		}
		require.NoError(t, verify(sealed, place))
		require.ErrorIs(t, verify(sealed, stream.Place{Label: place.Label}), stream.ErrIntegrity)
		require.ErrorIs(t, verify(sealed, stream.Place{Label: "other"}), stream.ErrLabel)
		require.ErrorIs(t, verify(sealed, stream.Place{}), stream.ErrArgument)
		require.ErrorIs(t, verify(append(bytes.Clone(sealed), 0), place), stream.ErrIntegrity)
		for k := 0; k < len(sealed); k += 89 {
			require.Error(t, verify(sealed[:k], place), "%d bytes", k)
			damaged := bytes.Clone(sealed)
			damaged[k] ^= 1
			require.Error(t, verify(damaged, place), "byte %d", k)
		}
	}
	_, err := stream.Verify(t.Context(), readUpTo(sealed, len(sealed)/2, errBroken), keys, place)
	require.ErrorIs(t, err, errBroken)
	require.NoError(t, keys.Deactivate(key.Storage))
	require.NoError(t, keys.Stop(keyID))
	require.NoError(t, keys.Destroy(keyID))
	_, err = stream.Verify(t.Context(), bytes.NewReader(sealed), keys, place)
	require.ErrorIs(t, err, keystore.ErrDestroyed)
}
