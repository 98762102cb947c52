package guard_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/nodeid"
)

func TestMembers(t *testing.T) {
	member := func(name string, id nodeid.ID) nodeid.Member { return nodeid.Member{Name: name, ID: id} }
	for _, tt := range []struct {
		name    string
		members []nodeid.Member
		want    string // of the member, empty for none
	}{
		{"none", nil, ""},
		{"one", []nodeid.Member{member("a", 1)}, ""},
		{"several", []nodeid.Member{member("a", 1), member("b", 2), member("c", 0x20003)}, ""},
		{"one member twice", []nodeid.Member{member("a", 1), member("a", 1), member("", 1)}, ""},
		{"ids of nobody", []nodeid.Member{member("a", 0), member("b", 0)}, ""},
		{"a pair", []nodeid.Member{member("b", 0x10001), member("c", 7), member("a", 1)}, `node "a" (1) and node "b" (65537) share the 16-bit id 0x0001`},
		{"one id", []nodeid.Member{member("b", 1), member("a", 1)}, `node "a" (1) and node "b" (1) have the same id`},
		{"two pairs", []nodeid.Member{
			member("d", 0x20002), member("b", 0x10001), member("c", 2), member("a", 1),
		}, `node "a" (1) and node "b" (65537) share the 16-bit id 0x0001`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := guard.Members(tt.members)
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, tt.want, refusal(t, err, guard.ErrCollision).Member)
		})
	}
}

// The order of the list makes no difference.
func TestMembersAreDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(rapid.SampledFrom([]nodeid.ID{1, 2, 0x10001, 0x10002, 0x20001}), 0, 6).Draw(t, "ids")
		members := make([]nodeid.Member, len(ids))
		for i, id := range ids {
			members[i] = nodeid.Member{Name: string(rune('a' + i)), ID: id}
		}
		again := rapid.Permutation(members).Draw(t, "order")
		require.Equal(t, guard.Members(members), guard.Members(again))
	})
}

func TestEpochWarning(t *testing.T) {
	for epoch, want := range map[uint16]bool{0: false, 1: false, 0xfeff: false, 0xff00: true, 0xfffe: true, 0xffff: true} {
		text, ok := guard.EpochWarning(7, epoch)
		require.Equal(t, want, ok, "%#x", epoch)
		require.Equal(t, want, text != "")
	}
	text, _ := guard.EpochWarning(7, 0xff00)
	require.Equal(t, "key 7: this node has used epoch 65280 of 65535, 255 starts are left: rotate the key", text)
}

func TestEpochExhausted(t *testing.T) {
	require.NoError(t, guard.EpochExhausted(7, 0))
	require.NoError(t, guard.EpochExhausted(7, 0xfffe), "one is left")
	require.EqualValues(t, 7, refusal(t, guard.EpochExhausted(7, 0xffff), guard.ErrEpochExhausted).Key)
}

func TestEpochRollback(t *testing.T) {
	const own, twin nodeid.ID = 0x10007, 0x20007
	row := func(node nodeid.ID, first, last uint16) applier.Writer {
		return applier.Writer{Key: 9, Node: node, First: first, Last: last}
	}
	for _, tt := range []struct {
		name  string
		epoch uint16
		row   applier.Writer
		want  error
	}{
		{"registered with the last epoch", 5, row(own, 1, 5), nil},
		{"not registered since", 6, row(own, 1, 5), nil},
		{"a row of a bootstrap", 0, row(own, 0, 0), nil},
		{"one behind", 4, row(own, 1, 5), guard.ErrEpochRollback},
		{"no epoch at all", 0, row(own, 1, 1), guard.ErrEpochRollback},
		{"behind the last epoch", 0xfffe, row(own, 1, 0xffff), guard.ErrEpochRollback},
		{"another node's, behind", 4, row(twin, 1, 5), guard.ErrCollision},
		{"another node's, ahead", 6, row(twin, 1, 5), guard.ErrCollision},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := guard.EpochRollback(own, tt.epoch, tt.row)
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			require.EqualValues(t, 9, refusal(t, err, tt.want).Key)
		})
	}
}
