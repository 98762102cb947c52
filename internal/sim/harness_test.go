package sim

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
)

func TestEveryOperationDoesSomething(t *testing.T) {
	require.Equal(t, slices.Sorted(maps.Keys(Grammar)), slices.Sorted(maps.Keys(steps)))
}

// Committed entries stay, in their order; proposals that survive an election come
// before those of the next leader; the others are lost and never come.
func TestRaft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			r         raft
			proposed  = map[string]int{}
			committed []string
			lost      = map[string]bool{}
		)
		t.Repeat(map[string]func(*rapid.T){
			"propose": func(*rapid.T) {
				data := fmt.Sprint("entry ", len(proposed))
				proposed[data] = len(proposed)
				r.propose(&proposal{data: []byte(data)})
			},
			"commit": func(t *rapid.T) {
				if len(r.tail) == 0 {
					t.Skip()
				}
				e := r.next()
				r.append(e)
				committed = append(committed, string(e.data))
			},
			"elect": func(t *rapid.T) {
				survive := rapid.IntRange(0, 5).Draw(t, "survive")
				before := len(r.tail)
				gone := r.elect(survive)
				assert.Len(t, gone, max(0, before-survive))
				assert.Len(t, r.tail, before-len(gone)+1)
				for _, p := range gone {
					lost[string(p.data)] = true
				}
			},
			"truncate": func(t *rapid.T) {
				last := rapid.IntRange(0, len(committed)).Draw(t, "last")
				old := r.between(1, r.last())
				r.truncate(uint64(last))
				committed = committed[:last]
				r.append(&entry{index: r.last() + 1, data: []byte("new time")})
				committed = append(committed, "new time")
				for i, e := range old {
					assert.Equal(t, uint64(i+1), e.index, "what was read before is as it was")
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, uint64(len(committed)), r.last())
				order := -1
				for i, e := range r.between(1, r.last()) {
					assert.Same(t, e, r.at(e.index))
					require.Equal(t, uint64(i+1), e.index)
					require.Equal(t, committed[i], string(e.data))
					if n, ok := proposed[string(e.data)]; ok {
						assert.Greater(t, n, order)
						order = n
						assert.False(t, lost[string(e.data)])
					}
				}
				require.Empty(t, r.between(r.last()+1, r.last()))
			},
		})
	})
}

func cluster(hosts ...Host) *Cluster {
	c := &Cluster{clones: make([]*member, MaxMembers)}
	c.oracle = newOracle(c)
	for i, h := range hosts {
		c.members = append(c.members, c.newMember(i, h, Voter))
	}
	return c
}

// What a power loss leaves of a store is what it was at the last sync, or since.
func TestPowerLossOfAStore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, h := range []Host{Sync, NoSync, Memory} {
		left := map[uint64]bool{}
		for range 100 {
			d := newDisk()
			d.setStore(store{applied: 3})
			for i := uint64(4); i <= 6; i++ {
				d.store.applied = i
				d.history = append(d.history, d.store)
			}
			if h == Sync {
				d.sync()
			}
			d.end(h, true, r)
			left[d.store.applied] = true
			require.Equal(t, []store{d.store}, d.history)
		}
		want := map[Host][]uint64{Sync: {6}, NoSync: {3, 4, 5, 6}, Memory: {0}}[h]
		require.Equal(t, want, slices.Sorted(maps.Keys(left)), "%v", h)
	}
}

// A copy of a disk is one of its own.
func TestCopyOfADisk(t *testing.T) {
	d := newDisk()
	require.NoError(t, overwrite(d.fs, []byte("one")))
	d.epochs[1] = 1
	d.keep(snapshot{store: store{applied: 1}})
	c := d.copy()
	require.NoError(t, overwrite(d.fs, []byte("two")))
	d.epochs[1] = 2
	d.keep(snapshot{store: store{applied: 2}})
	b, err := content(c.fs)
	require.NoError(t, err)
	require.Equal(t, "one", string(b))
	require.Equal(t, uint16(1), c.epochs[1])
	require.Len(t, c.snaps, 1)
	require.NoError(t, overwrite(d.fs, nil))
	b, err = content(d.fs)
	require.NoError(t, err)
	require.Nil(t, b)
}

// The watch over a disk sees each replacement of keys.json, and which of them change
// the key state.
func TestWatched(t *testing.T) {
	f := crashfs.New()
	f.Mkdir(home)
	w, err := watch(f)
	require.NoError(t, err)
	write := func(epoch int, state string) error {
		return durable.WriteFile(w, keysJSON, fmt.Appendf(nil,
			"{\n  \"version\": 3,\n  \"node\": {\n    \"epochs\": {\n      \"7\": %d\n    }\n  },\n  \"file_key\": \"\",\n  \"state\": %s,\n  \"mac\": \"\"\n}\n", epoch, state))
	}
	require.NoError(t, write(1, "null"))
	require.NoError(t, write(2, "null"))
	require.NoError(t, write(3, "{}"))
	require.Equal(t, int64(3), w.writes.Load())
	require.Equal(t, int64(2), w.states.Load())
	epochs, err := epochsOf(w.content())
	require.NoError(t, err)
	require.Equal(t, map[key.ID]uint16{7: 3}, epochs)

	w.arm(fault{at: 1, form: crashfs.PowerLoss})
	require.ErrorIs(t, write(4, "{}"), crashfs.ErrCrashed)
	require.True(t, w.died())
	require.True(t, w.dead.Load())
	require.Equal(t, int64(3), w.writes.Load())
}

// The members' ids differ in what stands in nonces.
func TestNames(t *testing.T) {
	c := cluster(Sync, Sync, Sync, Sync, Sync, Sync, Sync)
	seen := map[uint16]bool{}
	for _, m := range c.names() {
		require.False(t, seen[m.ID.Node16()])
		seen[m.ID.Node16()] = true
	}
	require.Len(t, seen, MaxMembers)
}

func TestValue(t *testing.T) {
	for k := range valueKeys {
		for _, n := range []uint64{1, 10, math.MaxUint64} {
			gotK, gotN, err := parseValue(value(k, n))
			require.NoError(t, err)
			require.Equal(t, k, gotK)
			require.Equal(t, n, gotN)
		}
	}
	for _, b := range []string{"", "key", "key 1", "key 6 1", "key 1 x", "key -1 1"} {
		_, _, err := parseValue([]byte(b))
		require.Error(t, err, b)
	}
}

// A panic is a violation, and the bubble ends.
func TestPanicIsAViolation(t *testing.T) {
	old := steps["tick"]
	defer func() { steps["tick"] = old }()
	steps["tick"] = func(*Cluster, []int) { panic("the harness itself") }
	synctest.Test(t, func(t *testing.T) {
		_, err := Run(Script{Members: []Member{{}, {}, {}}, Steps: []Step{{Op: "put", Args: []int{0, 0}}, {Op: "tick", Args: []int{0}}}}, Options{})
		v := new(ViolationError)
		require.ErrorAs(t, err, &v)
		require.Equal(t, "panic", v.Rule)
		require.Equal(t, 2, v.Line)
		require.Contains(t, v.Detail, "the harness itself")
	})
}
