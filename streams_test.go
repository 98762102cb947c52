package atrest_test

import (
	"bytes"
	"crypto/fips140"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/stream"
)

var hostFile = stream.Place{Label: "snapshot", Data: []byte("index 7, term 2")}

func sealStream(t *testing.T, keys stream.Keys, data string) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, keys, hostFile)
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(w, data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes(), nil
}

func openStream(t *testing.T, keys stream.Keys, sealed []byte) (string, error) {
	t.Helper()
	r, err := stream.NewReader(t.Context(), bytes.NewReader(sealed), keys, hostFile)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// A host seals its own files under the cluster's keys, on one member, and opens them
// on another, as long as the key exists.
func TestStreamsOfANode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.started("a", "b")
		a, b := ms[0], ms[1]
		_, err := sealStream(t, a.node.Streams(), "too early")
		require.ErrorIs(t, err, atrest.ErrOrder)
		w.commit(a, must(a.node.NewBootstrap(t.Context(), w.ids())))
		old := a.active(key.Storage)
		sealed, err := sealStream(t, a.node.Streams(), "snapshot of the host")
		require.NoError(t, err)
		opens := func(want error) {
			t.Helper()
			for _, m := range ms {
				got, err := openStream(t, m.node.Streams(), sealed)
				require.ErrorIs(t, err, want)
				if want == nil {
					require.Equal(t, "snapshot of the host", got)
				}
			}
		}
		opens(nil)
		w.commit(a, must(a.node.NewRotation(t.Context(), key.Storage)))
		w.commit(a, must(a.node.NewStop(old)))
		opens(nil)
		again, err := sealStream(t, b.node.Streams(), "under the new key")
		require.NoError(t, err)
		h, err := stream.ReadHeader(bytes.NewReader(again))
		require.NoError(t, err)
		require.Equal(t, a.active(key.Storage), h.KeyID)

		var evidence []applier.Evidence
		var ids []nodeid.ID
		for _, m := range ms {
			i := m.disk.applied
			ids = append(ids, m.node.ID())
			evidence = append(evidence, applier.Evidence{Node: m.node.ID(), Taken: i, FirstLog: i + 1})
		}
		w.commit(a, must(a.node.NewDestroy(old, ids, evidence)))
		opens(keystore.ErrDestroyed)
		require.NoError(t, a.node.Close())
		_, err = sealStream(t, a.node.Streams(), "after Close")
		require.ErrorIs(t, err, atrest.ErrClosed)
	})
}

// A key that is not loaded is one to wait for.
func TestStreamWhoseKeyIsNotLoaded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("a", "b")
		a, b := ms[0], ms[1]
		for _, k := range b.keks {
			k.FailNext(math.MaxInt, kek.ErrUnreachable)
		}
		w.commit(a, must(a.node.NewRotation(t.Context(), key.Storage)))
		sealed, err := sealStream(t, a.node.Streams(), "x")
		require.NoError(t, err)
		_, err = openStream(t, b.node.Streams(), sealed)
		require.ErrorIs(t, err, atrest.ErrRetry)
		_, err = openStream(t, must(keystore.New()), sealed)
		require.ErrorIs(t, err, keystore.ErrUnknownKey)
		require.NotErrorIs(t, err, atrest.ErrRetry)
	})
}

// Streams of a node that seals with extended nonces alone draw theirs: the machine may
// be cloned while one is written.
func TestStreamsWithExtendedOnlyDrawTheirNonces(t *testing.T) {
	for _, opts := range [][]atrest.Option{nil, {atrest.WithExtendedOnly()}} {
		disk := newDisk()
		opts = append(opts, atrest.WithFS(disk))
		l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: set(t, "kms:a")}, opts...)
		require.NoError(t, err)
		sealed, err := sealStream(t, l.Streams(), strings.Repeat("x", 2*stream.DefaultSegment))
		require.NoError(t, err)
		const segment = stream.DefaultSegment + stream.Overhead
		head := len(sealed) - 2*segment - stream.Overhead // behind two full segments is an empty one
		first, second := sealed[head:][:12], sealed[head+segment:][:12]
		require.Equal(t, len(opts) == 1 && !fips140.Enforced(), bytes.Equal(first[:10], second[:10]))
		require.NoError(t, l.Close())
	}
}
