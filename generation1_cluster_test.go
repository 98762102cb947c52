package atrest_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// upgradeTo ends a member's time in generation 1.
func (m *member) upgradeTo(adopt []byte, dry bool) (*atrest.Upgraded, error) {
	m.stop()
	m.fs = m.fs.Restart()
	cfg := atrest.UpgradeConfig{Dir: dir, Name: m.name, KEK: m.set(), Adopt: adopt, DryRun: dry}
	for _, o := range m.w.members {
		cfg.Applied = max(cfg.Applied, o.disk.applied)
	}
	return atrest.Upgrade(m.w.t.Context(), cfg, atrest.WithFS(m.fs))
}

// A cluster begins in generation 1, loses power, gets a member by snapshot, and is
// upgraded member by member. No nonce comes twice (the world looks at each), and every
// value opens on every member to the end.
func TestClusterFromGeneration1ToGeneration2(t *testing.T) {
	needsGeneration1(t)
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

// A member that had not applied the whole log when it was upgraded halts at what it
// missed, and does not go on without it.
func TestMemberThatWasUpgradedTooEarlyHalts(t *testing.T) {
	needsGeneration1(t)
	inWorld(t, func(t *testing.T, w *world) {
		c := &firstCluster{world: w, r: rand.New(rand.NewPCG(1, 1)), want: map[string]string{}}
		c.begin("a", "b", "c")
		a, late := w.members[0], w.members[2]
		late.stop()
		w.put(a, "missed", "x")
		a.stop()
		_, err := a.upgradeTo(nil, false)
		require.NoError(t, err)
		a.opts = nil
		require.NoError(t, a.start())
		_, err = late.upgradeTo(must(a.node.Snapshot()), false)
		require.NoError(t, err)
		late.opts = nil
		require.NoError(t, late.start(), "what it had applied is no matter")
		require.ErrorContains(t, late.halted, "had not applied it when it was upgraded")
		require.NotErrorIs(t, late.halted, atrest.ErrRejected)
	})
}

// A payload of generation 1 that commits after the upgrade, because it lay uncommitted in
// a log or was copied out of one, is rejected by all alike.
func TestPayloadOfGeneration1AfterTheUpgrade(t *testing.T) {
	needsGeneration1(t)
	inWorld(t, func(t *testing.T, w *world) {
		c := &firstCluster{world: w, r: rand.New(rand.NewPCG(2, 1)), want: map[string]string{}}
		c.begin("a", "b", "c")
		tail := must(c.any().node.Raft().Seal(nil, []byte("put tail x")))
		c.upgrade()
		at := w.append(tail)
		w.settle()
		for _, m := range w.members {
			require.NoError(t, m.halted)
			require.Contains(t, w.outcomes[at][m.name], "payload rejected")
			require.NoError(t, m.restart())
		}
		c.put(c.any())
	})
}

// Clusters in generation 1 to which things happen at random, and which are upgraded in
// the end: no nonce comes twice, no member halts, and every value opens on every member
// that runs. The seeds are the names of the tests.
func TestGeneration1ClustersAtRandom(t *testing.T) {
	needsGeneration1(t)
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := &firstCluster{world: w, r: rand.New(rand.NewPCG(seed, 1)), want: map[string]string{}}
				c.begin("a", "b", "c")
				for range 12 + c.r.IntN(20) {
					c.step()
				}
				c.upgrade()
				c.put(c.any())
			})
		})
	}
}

// firstCluster is a cluster that begins in generation 1.
type firstCluster struct {
	*world
	r    *rand.Rand
	want map[string]string
}

func (c *firstCluster) begin(names ...string) {
	for _, m := range c.join(names...) {
		m.opts = []atrest.Option{atrest.WithGeneration1(atrest.Generation1{})}
		require.NoError(c.t, m.start())
	}
	a := c.members[0]
	c.put(a)
	c.commit(a, must(a.node.NewBootstrap(c.t.Context(), c.ids())))
	for _, enable := range []func() ([]byte, error){a.node.NewEnableStorage, a.node.NewEnableRaft} {
		c.put(c.any())
		c.commit(a, must(enable()))
	}
}

// any is a member that runs; at least two of three do.
func (c *firstCluster) any() *member {
	for {
		if m := c.members[c.r.IntN(len(c.members))]; m.node != nil {
			return m
		}
	}
}

func (c *firstCluster) put(m *member) {
	k := fmt.Sprintf("k%d", c.r.IntN(9))
	c.want[k] = fmt.Sprintf("v%d", c.r.Uint32())
	c.world.put(m, k, c.want[k])
	for _, m := range c.members {
		require.NoError(c.t, m.halted, m.name)
		for k, v := range c.want {
			if m.node != nil {
				got, err := m.get(k)
				require.NoError(c.t, err, "%s of %s", k, m.name)
				require.Equal(c.t, v, got)
			}
		}
	}
}

// up starts all that are down.
func (c *firstCluster) up() {
	for _, m := range c.members {
		if m.node == nil {
			require.NoError(c.t, m.start(), m.name)
		}
	}
}

func (c *firstCluster) step() {
	m := c.any()
	switch c.r.IntN(8) {
	case 0, 1:
		c.put(m)
	case 2:
		p := []key.Purpose{key.Storage, key.Raft}[c.r.IntN(2)]
		c.commit(m, must(m.node.NewRotation(c.t.Context(), p)))
	case 3: // its process ends, or the machine, in the middle of its registrations
		c.up()
		c.hold = c.r.IntN(2) == 0
		m.kill(c.r.IntN(2) == 0)
		c.put(c.any())
		require.NoError(c.t, m.start())
		c.put(m)
		m.kill(c.r.IntN(2) == 0)
		c.hold = false
	case 4:
		c.up()
		m.stop()
	case 5:
		require.NoError(c.t, m.snapshot())
		m.compact(m.disk.applied)
	case 6: // it loses its disk
		c.up()
		from := c.members[(c.r.IntN(2)+1+c.index(m))%3]
		require.NoError(c.t, from.snapshot())
		m.stop()
		m.wipe()
		m.disk.snap, m.disk.first = from.disk.snap, from.disk.snap.applied+1
		require.NoError(c.t, m.start())
	case 7: // a running member gets a snapshot
		c.up()
		m.apart = true
		other := c.members[(c.index(m)+1)%3]
		c.commit(other, must(other.node.NewRotation(c.t.Context(), key.Storage)))
		require.NoError(c.t, other.snapshot())
		m.apart = false
		require.NoError(c.t, m.install(other))
	}
	c.settle()
}

func (c *firstCluster) index(m *member) int {
	for i, o := range c.members {
		if o == m {
			return i
		}
	}
	return -1
}

// upgrade upgrades all members, beginning with any of them.
func (c *firstCluster) upgrade() {
	c.up()
	c.settle()
	for _, m := range c.members {
		require.NoError(c.t, m.snapshot())
		m.compact(m.disk.applied)
		m.stop()
	}
	var part []byte
	first := c.r.IntN(3)
	for i := range c.members {
		m := c.members[(first+i)%3]
		_, err := m.upgradeTo(part, false)
		require.NoError(c.t, err)
		m.opts = nil
		require.NoError(c.t, m.start())
		if part == nil {
			part = must(m.node.Snapshot())
		}
	}
	for range 6 {
		m := c.any()
		c.commit(m, must(m.node.NewRotation(c.t.Context(), key.Storage)))
		c.put(m)
		require.NoError(c.t, m.restart())
		c.put(c.any())
	}
}
