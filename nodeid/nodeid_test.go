package nodeid_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/nodeid"
)

func TestVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/nodeids.json")
	require.NoError(t, err)
	var file struct {
		Vectors []struct {
			ID         string `json:"id"`
			FullNodeID string `json:"full_node_id"`
			Node16     uint16 `json:"node16"`
		} `json:"vectors"`
	}
	require.NoError(t, json.Unmarshal(b, &file))
	require.NotEmpty(t, file.Vectors)
	for _, v := range file.Vectors {
		got := nodeid.Derive(v.ID)
		require.Equal(t, v.FullNodeID, got.String(), "%q", v.ID)
		require.Equal(t, v.Node16, got.Node16(), "%q", v.ID)
	}
}

func TestDerive(t *testing.T) {
	for name, want := range map[string]nodeid.ID{
		"":       0,
		"n1":     0x08b37b07b558d4c0,
		"n2":     0x08b37e07b558d9d9,
		"node-1": 0xe696ecc2207879c3,
		// FNV-1a of these is 0, which is not free for a name.
		"\xd5\x6b\xb9\x53\x42\x87\x08\x36": 1,
		"!0IC=VloaY":                       1,
	} {
		require.Equal(t, want, nodeid.Derive(name), "%q", name)
	}
}

// The names that hash to 0 really do, so the test above tries the special case.
func TestZeroHashes(t *testing.T) {
	for _, name := range []string{"\xd5\x6b\xb9\x53\x42\x87\x08\x36", "!0IC=VloaY"} {
		h := fnv.New64a()
		h.Write([]byte(name))
		require.Zero(t, h.Sum64(), "%q", name)
	}
}

func TestDeriveIsFNV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringN(1, -1, 100).Draw(t, "name")
		h := fnv.New64a()
		h.Write([]byte(name))
		id := nodeid.Derive(name)
		require.Equal(t, nodeid.ID(max(h.Sum64(), 1)), id)
		require.EqualValues(t, uint64(id)%65536, id.Node16())
		require.Equal(t, strconv.FormatUint(uint64(id), 10), id.String())
	})
}

func member(name string, id nodeid.ID) nodeid.Member { return nodeid.Member{Name: name, ID: id} }

func TestCollisions(t *testing.T) {
	const low = 0x10007
	tests := []struct {
		name    string
		members []nodeid.Member
		want    []string
	}{
		{"none", nil, nil},
		{"one", []nodeid.Member{member("a", 7)}, nil},
		{"different", []nodeid.Member{member("a", 7), member("b", 8)}, nil},
		{
			"same 16 bits",
			[]nodeid.Member{member("a", 7), member("b", low)},
			[]string{`node "a" (7) and node "b" (65543) share the 16-bit id 0x0007`},
		},
		{
			"same id",
			[]nodeid.Member{member("b", 7), member("a", 7)},
			[]string{`node "a" (7) and node "b" (7) have the same id`},
		},
		{"a member listed twice", []nodeid.Member{member("a", 7), member("a", 7)}, nil},
		{"a member with two ids", []nodeid.Member{member("a", 7), member("a", low)}, nil},
		{
			"each of its ids counts",
			[]nodeid.Member{member("a", 7), member("a", 8), member("b", 0x10008)},
			[]string{`node "a" (8) and node "b" (65544) share the 16-bit id 0x0008`},
		},
		{"without a name, listed twice", []nodeid.Member{member("", 7), member("", 7)}, nil},
		{"with and without its name", []nodeid.Member{member("", 7), member("a", 7)}, nil},
		{
			"without names",
			[]nodeid.Member{member("", 7), member("", low)},
			[]string{`node 7 and node 65543 share the 16-bit id 0x0007`},
		},
		{
			"one without a name",
			[]nodeid.Member{member("a", low), member("", 7)},
			[]string{`node 7 and node "a" (65543) share the 16-bit id 0x0007`},
		},
		{"id 0", []nodeid.Member{member("a", 0), member("b", 0), member("c", 0x10000)}, nil},
		{"three", []nodeid.Member{member("c", 7), member("a", 7), member("b", 7)}, []string{
			`node "a" (7) and node "b" (7) have the same id`,
			`node "a" (7) and node "c" (7) have the same id`,
			`node "b" (7) and node "c" (7) have the same id`,
		}},
		{"two groups", []nodeid.Member{member("d", 9), member("c", 9), member("b", 2), member("a", 2)}, []string{
			`node "a" (2) and node "b" (2) have the same id`,
			`node "c" (9) and node "d" (9) have the same id`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.members)
			var got []string
			for _, c := range nodeid.Collisions(tt.members) {
				got = append(got, c.String())
			}
			require.Equal(t, tt.want, got)
			require.Equal(t, before, tt.members, "the list was changed")
		})
	}
}

func TestCollisionOfRealNames(t *testing.T) {
	a, b := collidingNames()
	got := nodeid.Collisions([]nodeid.Member{member(b, nodeid.Derive(b)), member(a, nodeid.Derive(a)), member("n1", nodeid.Derive("n1"))})
	require.Len(t, got, 1)
	require.False(t, got[0].SameID())
	require.ElementsMatch(t, []string{a, b}, []string{got[0].A.Name, got[0].B.Name})
}

// collidingNames returns the first two names of a series that share a node16.
func collidingNames() (string, string) {
	seen := map[uint16]string{}
	for i := 0; ; i++ {
		name := fmt.Sprintf("node-%d", i)
		id := nodeid.Derive(name).Node16()
		if other, ok := seen[id]; ok {
			return other, name
		}
		seen[id] = name
	}
}

// The pairs are those that a double loop over the list finds, and their order
// does not depend on that of the list.
func TestCollisionsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) nodeid.Member {
			high := rapid.Uint64Range(0, 2).Draw(t, "high")
			low := rapid.Uint64Range(0, 3).Draw(t, "low")
			return member(rapid.SampledFrom([]string{"", "a", "b", "c", "d"}).Draw(t, "name"), nodeid.ID(high<<16|low))
		}), 0, 12).Draw(t, "members")

		type pair [2]nodeid.Member
		want := map[pair]bool{}
		for _, a := range members {
			for _, b := range members {
				sameName := a.Name == b.Name || a.Name == "" || b.Name == ""
				same := a.ID == b.ID && sameName || a.Name == b.Name && a.Name != ""
				if a.ID != 0 && b.ID != 0 && uint16(a.ID) == uint16(b.ID) && !same && !want[pair{b, a}] {
					want[pair{a, b}] = true
				}
			}
		}
		got := nodeid.Collisions(members)
		require.Len(t, got, len(want))
		for _, c := range got {
			require.True(t, want[pair{c.A, c.B}] || want[pair{c.B, c.A}], "%s", c)
		}

		shuffled := slices.Clone(members)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, got, nodeid.Collisions(shuffled))
	})
}

func ExampleDerive() {
	id := nodeid.Derive("n1")
	fmt.Printf("%s, of which counted nonces carry %#04x\n", id, id.Node16())
	// Output: 626980046172116160, of which counted nonces carry 0xd4c0
}

func ExampleCollisions() {
	var members []nodeid.Member
	for _, name := range []string{"node-598", "node-684", "node-1"} {
		members = append(members, nodeid.Member{Name: name, ID: nodeid.Derive(name)})
	}
	for _, c := range nodeid.Collisions(members) {
		fmt.Println(c)
	}
	// Output: node "node-598" (3213229080662662734) and node "node-684" (3853642926881201742) share the 16-bit id 0x5e4e
}

func BenchmarkDerive(b *testing.B) {
	const name = "db-17.eu-west-1.example.com:7001"
	b.ReportAllocs()
	b.SetBytes(int64(len(name)))
	for b.Loop() {
		nodeid.Derive(name)
	}
}

func BenchmarkCollisions(b *testing.B) {
	members := make([]nodeid.Member, 1000)
	for i := range members {
		name := fmt.Sprintf("node-%d", i)
		members[i] = member(name, nodeid.Derive(name))
	}
	b.ReportAllocs()
	for b.Loop() {
		nodeid.Collisions(members)
	}
}
