package atrest_test

import (
	"bytes"
	"crypto/fips140"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Whatever was sealed opens under every later choice of how to seal, across rotations
// and restarts.
func TestValuesOpenUnderEveryLaterChoice(t *testing.T) {
	choices := [][]atrest.Option{
		nil,
		{atrest.WithExtendedOnly()},
		{atrest.WithSealing(envelope.WithCompression())},
		{atrest.WithExtendedOnly(), atrest.WithSealing(envelope.WithCompression())},
	}
	if !fips140.Enforced() {
		choices = append(choices,
			[]atrest.Option{atrest.WithExtendedOnly(), atrest.WithSealing(envelope.WithXChaCha())},
			[]atrest.Option{atrest.WithExtendedOnly(), atrest.WithSealing(envelope.WithXChaCha(), envelope.WithCompression())},
		)
	}
	keks, err := kek.NewSet(kektest.New("kms:a"))
	require.NoError(t, err)
	type sealed struct{ env, value, location []byte }
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		var all []sealed
		for range rapid.IntRange(1, 5).Draw(rt, "loads") {
			choice := rapid.IntRange(0, len(choices)-1).Draw(rt, "choice")
			l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, choices[choice]...)
			require.NoError(rt, err)
			for range rapid.IntRange(1, 4).Draw(rt, "values") {
				if rapid.IntRange(0, 3).Draw(rt, "rotate") == 0 {
					_, err := l.Rotate(t.Context())
					require.NoError(rt, err)
				}
				v := sealed{value: bytes.Repeat([]byte("ab"), rapid.IntRange(0, 60).Draw(rt, "length")), location: rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(rt, "location")}
				var ok bool
				v.env, ok, err = l.Storage().Seal(nil, v.value, v.location)
				require.NoError(rt, err)
				require.True(rt, ok)
				all = append(all, v)
			}
			for _, v := range all {
				got, err := l.Storage().Open(nil, v.env, v.location, true)
				require.NoError(rt, err)
				require.True(rt, bytes.Equal(v.value, got) && got != nil)
			}
			require.NoError(rt, l.Close())
		}
	})
}

// A directory that was written in generation-1 mode from its beginning goes through
// restart and upgrade as well, compressed values included.
func TestGeneration1FromTheBeginning(t *testing.T) {
	h := newFirstHost(t, "v2")
	require.NoError(t, h.fs.Remove(keysJSON))
	h.rows, h.index = nil, 0
	mode := []atrest.Option{atrest.WithGeneration1(atrest.Generation1{}), atrest.WithSealing(envelope.WithCompression())}
	start := func(opts ...atrest.Option) {
		t.Helper()
		var err error
		h.node, err = h.open(opts...)
		require.NoError(t, err)
		require.NoError(t, h.node.CatchUp(t.Context(), atrest.View{Applied: h.last(), First: h.last() + 1, Snapshot: h.last(), HadKeys: h.last() > 0}))
		require.NoError(t, h.node.Ready(t.Context()))
	}
	propose := func(entry []byte, err error) {
		t.Helper()
		require.NoError(t, err)
		require.NoError(t, h.propose(t.Context(), entry))
	}
	start(mode...)
	propose(h.node.NewBootstrap(t.Context(), []nodeid.Member{{Name: "n1", ID: nodeid.Derive("n1")}}))
	propose(h.node.NewEnableStorage())
	propose(h.node.NewEnableRaft())
	require.NoError(t, h.node.Admit(t.Context()))
	value := bytes.Repeat([]byte("value "), 30)
	var all [][]byte
	seal := func(want envelope.Suite) {
		t.Helper()
		env, ok, err := h.node.Storage().Seal(nil, value, []byte("l"))
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, byte(want), env[0])
		all = append(all, env)
		for _, env := range all {
			got, err := h.node.Storage().Open(nil, env, []byte("l"), true)
			require.NoError(t, err)
			require.Equal(t, value, got)
		}
	}
	seal(envelope.AES256GCMSnappy)
	propose(h.node.NewRotation(t.Context(), key.Storage))
	require.NoError(t, h.node.Admit(t.Context()))
	seal(envelope.AES256GCMSnappy)
	require.Len(t, h.view().Keys, 3)
	require.NoError(t, h.node.Close())

	start(mode...)
	require.NoError(t, h.node.Admit(t.Context()))
	seal(envelope.AES256GCMSnappy)
	require.NoError(t, h.node.Close())

	_, err := h.upgrade(atrest.UpgradeConfig{})
	require.NoError(t, err)
	start(atrest.WithExtendedOnly())
	seal(envelope.XAES256GCM)
	require.NoError(t, h.node.Close())
}

// Whatever a cluster has sealed, from the directory of the reference system through
// generation-1 mode, the upgrade and every choice of suite to a new cluster that imports
// it, opens at each step from then on.
func TestValuesOpenAcrossGenerations(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newFirstHost(t, rapid.SampledFrom([]string{"v1", "v2"}).Draw(rt, "version"))
		type sealed struct{ env, value []byte }
		all := []sealed{
			{h.elsewhere(foundStorage, "from elsewhere", "l"), []byte("from elsewhere")},
			{h.elsewhere(foundOldStorage, "earlier", "l"), []byte("earlier")},
		}
		check := func(s *atrest.Storage) {
			for _, v := range all {
				got, err := s.Open(nil, v.env, []byte("l"), true)
				require.NoError(rt, err)
				require.True(rt, bytes.Equal(v.value, got) && got != nil)
			}
		}
		seal := func(s *atrest.Storage) {
			for range rapid.IntRange(1, 3).Draw(rt, "values") {
				v := sealed{value: bytes.Repeat([]byte("ab"), rapid.IntRange(0, 60).Draw(rt, "length"))}
				var err error
				v.env, _, err = s.Seal(nil, v.value, []byte("l"))
				require.NoError(rt, err)
				all = append(all, v)
			}
		}
		loads := func(mode ...atrest.Option) {
			for range rapid.IntRange(1, 3).Draw(rt, "loads") {
				var how []envelope.SealerOption
				if rapid.Bool().Draw(rt, "compress") {
					how = append(how, envelope.WithCompression())
				}
				opts := slices.Concat(mode, []atrest.Option{atrest.WithSealing(how...)})
				if len(mode) == 0 {
					if rapid.Bool().Draw(rt, "xchacha") {
						opts = append(opts, atrest.WithSealing(envelope.WithXChaCha()))
					}
					if rapid.Bool().Draw(rt, "extended") {
						opts = append(opts, atrest.WithExtendedOnly())
					}
				}
				h.start(opts...)
				check(h.node.Storage())
				seal(h.node.Storage())
				for range rapid.IntRange(0, 2).Draw(rt, "rotations") {
					old, _ := h.node.State().Active(key.Storage)
					entry, err := h.node.NewRotation(t.Context(), key.Storage)
					require.NoError(rt, err)
					require.NoError(rt, h.propose(t.Context(), entry))
					if len(mode) == 0 && rapid.Bool().Draw(rt, "stop") {
						entry, err = h.node.NewStop(old.ID)
						require.NoError(rt, err)
						require.NoError(rt, h.propose(t.Context(), entry))
					}
					seal(h.node.Storage())
				}
				check(h.node.Storage())
				require.NoError(rt, h.node.Close())
			}
		}
		loads(h.mode())
		_, err := h.upgrade(atrest.UpgradeConfig{})
		require.NoError(rt, err)
		loads()

		h.start()
		part, err := h.node.Snapshot()
		require.NoError(rt, err)
		require.NoError(rt, h.node.Close())
		disk := newDisk()
		l, err := atrest.ImportLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: h.keks}, part, atrest.WithFS(disk))
		require.NoError(rt, err)
		check(l.Storage())
		seal(l.Storage())
		check(l.Storage())
		require.NoError(rt, l.Close())
	})
}
