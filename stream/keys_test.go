package stream_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// The life of a key, as streams see it.
func TestLifeOfAKey(t *testing.T) {
	keys := newStore(t)
	sealed := seal(t, keys, place, text(seg))
	opens := func(want error) {
		t.Helper()
		got, err := open(t, keys, place, sealed)
		_, errAt := stream.NewReaderAt(t.Context(), bytes.NewReader(sealed), int64(len(sealed)), keys, place)
		if want != nil {
			require.ErrorIs(t, err, want)
			require.ErrorIs(t, errAt, want)
			return
		}
		require.NoError(t, err)
		require.NoError(t, errAt)
		require.True(t, bytes.Equal(text(seg), got))
	}
	opens(nil)

	// A stream that has begun goes on.
	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, keys, place, stream.WithSegmentSize(seg))
	require.NoError(t, err)
	_, err = w.Write(text(2 * seg))
	require.NoError(t, err)

	require.NoError(t, keys.Deactivate(key.Storage))
	require.NoError(t, keys.Stop(keyID))
	_, err = stream.NewWriter(t.Context(), io.Discard, keys, place)
	require.ErrorIs(t, err, keystore.ErrNoActiveKey)
	require.ErrorIs(t, keys.Activate(keyID), keystore.ErrStopped, "so no new stream can have it")
	opens(nil)
	require.NoError(t, w.Close())
	got, err := open(t, keys, place, out.Bytes())
	require.NoError(t, err)
	require.True(t, bytes.Equal(text(2*seg), got))

	require.NoError(t, keys.Install(8, key.Storage, fixedDEK(t, 8)))
	require.NoError(t, keys.Activate(8))
	w, err = stream.NewWriter(t.Context(), io.Discard, keys, place)
	require.NoError(t, err)
	require.Equal(t, key.ID(8), w.KeyID())
	w.Abort()

	// A reader that has its key reads on.
	r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, place)
	require.NoError(t, err)
	require.Equal(t, keyID, r.KeyID())
	require.NoError(t, keys.Destroy(keyID))
	got, err = io.ReadAll(r)
	require.NoError(t, err)
	require.Len(t, got, seg)
	opens(keystore.ErrDestroyed)
}

// A stream costs its key one seal and no bytes, whatever its length; one that is
// opened costs nothing.
func TestCharge(t *testing.T) {
	keys := newStore(t)
	for i := range uint64(3) {
		sealed := seal(t, keys, place, text(3*seg), stream.WithSegmentSize(seg))
		_, err := open(t, keys, place, sealed)
		require.NoError(t, err)
		u, err := keys.Usage(keyID)
		require.NoError(t, err)
		require.Equal(t, envelope.Usage{Seals: i + 1}, u)
	}
	keys = newStore(t, keystore.WithLimits(keystore.Limits{Seals: 2, Bytes: 1 << 30, Refuse: true}))
	seal(t, keys, place, nil)
	seal(t, keys, place, nil)
	_, err := stream.NewWriter(t.Context(), io.Discard, keys, place)
	require.ErrorIs(t, err, keystore.ErrBudget)
	require.ErrorAs(t, err, new(*keystore.KeyError))
}

// No two streams have a salt, and so a key, in common.
func TestSaltsDiffer(t *testing.T) {
	keys := newStore(t)
	seen := map[string]bool{}
	for range 1000 {
		seen[string(seal(t, keys, place, nil)[9:41])] = true
	}
	require.Len(t, seen, 1000)
}

// drawing are keys that ask for random nonces.
type drawing struct{ *keystore.Store }

func (drawing) RandomNonces() bool { return true }

// Keys that ask for random nonces get them without an option.
func TestKeysAskForRandomNonces(t *testing.T) {
	store := newStore(t)
	differ := func(keys stream.Keys) bool {
		sealed := seal(t, keys, place, text(seg), stream.WithSegmentSize(seg))
		got, err := open(t, store, place, sealed)
		require.NoError(t, err)
		require.True(t, bytes.Equal(text(seg), got))
		first, second := sealed[headSize(place):], sealed[headSize(place)+full:]
		return !bytes.Equal(first[:8], second[:8])
	}
	require.True(t, differ(drawing{store}))
	if !strictFIPS() {
		require.False(t, differ(store), "these are counted")
	}
}
