package atrest_test

import (
	"crypto/fips140"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/key"
)

// upgradeTo ends a member's time in generation 1.
func (m *member) upgradeTo(adopt []byte, dry bool) (*atrest.Upgraded, error) {
	m.stop()
	m.fs = m.fs.Restart()
	return atrest.Upgrade(m.w.t.Context(),
		atrest.UpgradeConfig{Dir: dir, Name: m.name, KEK: m.set(), Adopt: adopt, DryRun: dry}, atrest.WithFS(m.fs))
}

// A cluster begins in generation 1, loses power, gets a member by snapshot, and is
// upgraded member by member. No nonce comes twice (the world looks at each), and every
// value opens on every member to the end.
func TestClusterFromGeneration1ToGeneration2(t *testing.T) {
	if fips140.Enforced() {
		t.Skip("generation 1 is refused in strict FIPS mode, see TestRefusalsInStrictFIPSMode")
	}
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.join("a", "b", "c")
		a, b, c := ms[0], ms[1], ms[2]
		for _, m := range ms {
			m.opts = []atrest.Option{atrest.WithGeneration1(atrest.Generation1{})}
			require.NoError(t, m.start())
		}
		want := map[string]string{}
		put := func(m *member) {
			t.Helper()
			k := fmt.Sprintf("k%d", len(want))
			want[k] = "v" + k
			w.put(m, k, want[k])
			for _, m := range ms {
				if m.node == nil {
					continue
				}
				for k, v := range want {
					got, err := m.get(k)
					require.NoError(t, err, "%s of %s", k, m.name)
					require.Equal(t, v, got)
				}
			}
		}
		rotate := func(m *member, p key.Purpose) {
			t.Helper()
			w.commit(m, must(m.node.NewRotation(t.Context(), p)))
		}
		put(a)
		w.commit(a, must(a.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(a, must(a.node.NewEnableStorage()))
		w.commit(a, must(a.node.NewEnableRaft()))
		put(b)
		rotate(b, key.Storage)
		put(c)
		b.kill(true)
		rotate(a, key.Raft)
		put(a)
		require.NoError(t, b.start())
		put(b)
		c.stop()
		require.NoError(t, a.snapshot())
		c.wipe()
		c.fs = crashfs.New()
		c.fs.Mkdir(dir)
		c.disk.snap, c.disk.first = a.disk.snap, a.disk.snap.applied+1
		require.NoError(t, c.start())
		put(c)

		// All have applied everything, and a snapshot leaves no entry to replay.
		for _, m := range ms {
			require.NoError(t, m.snapshot())
			m.compact(m.disk.applied)
			require.Equal(t, applier.Generation1, m.node.State().Generation())
			m.stop()
		}
		dry, err := a.upgradeTo(nil, true)
		require.NoError(t, err)
		u, err := a.upgradeTo(nil, false)
		require.NoError(t, err)
		require.Equal(t, dry.Epochs, u.Epochs)
		a.opts = nil
		require.NoError(t, a.start(), "with its own snapshot of generation 1")
		part := must(a.node.Snapshot())
		for _, m := range ms[1:] {
			_, err := m.upgradeTo(part, false)
			require.NoError(t, err)
			m.opts = nil
			require.NoError(t, m.start())
		}
		for _, m := range ms {
			put(m)
			require.Equal(t, u.Cluster, m.node.State().Cluster())
			require.Equal(t, a.node.State().Digest(), m.node.State().Digest())
		}
		old := a.active(key.Storage)
		rotate(c, key.Storage)
		put(b)
		w.commit(b, must(b.node.NewStop(old)))
		put(a)
		rewraps, err := c.node.NewRewrap(t.Context())
		require.NoError(t, err)
		for _, e := range rewraps {
			w.commit(c, e)
		}

		// A snapshot of generation 1 brings nothing to a member that has no keys.
		d := w.join("d")[0]
		d.disk.snap, d.disk.first = b.disk.snap, b.disk.snap.applied+1
		require.ErrorIs(t, d.start(), atrest.ErrSnapshot)
		d.wipe()
		require.NoError(t, a.snapshot())
		d.disk.snap, d.disk.first = a.disk.snap, a.disk.snap.applied+1
		require.NoError(t, d.start())
		ms = w.members
		put(d)
		for _, m := range ms {
			require.NoError(t, m.restart())
		}
		put(a)
	})
}
