package crashfs_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

// user runs short scripts on a file system and fails the test on any error.
type user struct {
	t    *testing.T
	f    *crashfs.FS
	open map[string]durable.File
}

func newUser(t *testing.T) *user {
	t.Helper()
	return &user{t: t, f: crashfs.New(), open: map[string]durable.File{}}
}

// do runs one step: "create a", "open a", "write a text", "sync a", "rename a b",
// "remove a", "syncdir". Runs of bytes are written as in "write a x*512".
func (u *user) do(step string) error {
	u.t.Helper()
	w := strings.Fields(step)
	switch w[0] {
	case "create", "open":
		flag := map[string]int{"create": os.O_RDWR | os.O_CREATE | os.O_TRUNC, "open": os.O_RDWR}[w[0]]
		h, err := u.f.OpenFile(w[1], flag, 0o600)
		u.open[w[1]] = h
		return err
	case "write":
		_, err := u.open[w[1]].Write([]byte(expand(w[2])))
		return err
	case "sync":
		return u.open[w[1]].Sync()
	case "rename":
		return u.f.Rename(w[1], w[2])
	case "remove":
		return u.f.Remove(w[1])
	case "syncdir":
		return u.f.SyncDir(".")
	case "all":
		u.f.SyncAll()
		return nil
	}
	u.t.Fatalf("unknown step %q", step)
	return nil
}

func (u *user) all(steps ...string) {
	u.t.Helper()
	for _, step := range steps {
		require.NoError(u.t, u.do(step), step)
	}
}

// expand turns "a*512,b" into 512 times a and a b.
func expand(text string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(text, ",") {
		char, times, ok := strings.Cut(part, "*")
		if n := map[string]int{"512": 512, "256": 256}[times]; ok {
			char = strings.Repeat(char, n)
		}
		b.WriteString(char)
	}
	return b.String()
}

// left returns what power losses leave, as sorted texts like "a=old b=new".
func (u *user) left(limit int) []string {
	u.t.Helper()
	seen := map[string]bool{}
	for _, after := range u.f.PowerLosses(limit, 1) {
		files := contents(u.t, after)
		var words []string
		for _, name := range slices.Sorted(maps.Keys(files)) {
			words = append(words, name+"="+files[name])
		}
		text := strings.Join(words, " ")
		require.False(u.t, seen[text], "twice: %q", text)
		seen[text] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestPowerLossLeaves(t *testing.T) {
	const x, y = "x*512", "y*512"
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	for _, tt := range []struct {
		name  string
		steps []string
		want  []string
	}{
		{"nothing happened", nil, []string{""}},
		{"a synced file without its name", []string{"create a", "write a data", "sync a"}, []string{"", "a=data"}},
		{"a synced name without the bytes", []string{"create a", "syncdir", "write a data"}, []string{
			"a=", "a=" + zeros(2), "a=da", "a=" + zeros(4), "a=da" + zeros(2), "a=data",
		}},
		{"both synced", []string{"create a", "write a data", "sync a", "syncdir"}, []string{"a=data"}},
		{
			"an overwritten file is torn in its blocks",
			[]string{"create a", "write a x*512,y*512", "all", "open a", "write a z*256,x*256,y*256,z*256"},
			[]string{
				"a=" + expand(x+","+y),
				"a=" + strings.Repeat("z", 128) + strings.Repeat("x", 384) + expand(y),
				"a=" + expand("z*256,x*256,"+y),
				"a=" + expand(x+",y*256,") + strings.Repeat("z", 128) + strings.Repeat("y", 128),
				"a=" + strings.Repeat("z", 128) + strings.Repeat("x", 384) + expand("y*256,") + strings.Repeat("z", 128) + strings.Repeat("y", 128),
				"a=" + expand("z*256,x*256,y*256,") + strings.Repeat("z", 128) + strings.Repeat("y", 128),
				"a=" + expand(x+",y*256,z*256"),
				"a=" + strings.Repeat("z", 128) + strings.Repeat("x", 384) + expand("y*256,z*256"),
				"a=" + expand("z*256,x*256,y*256,z*256"),
			},
		},
		{"every version of a byte", []string{"create a", "write a 1", "all", "open a", "write a 2", "open a", "write a 3"}, []string{"a=1", "a=2", "a=3"}},
		{
			"a block that stays among those written",
			[]string{"create a", "write a x*512,1", "all", "open a", "write a x*512,2"},
			[]string{"a=" + expand(x+",1"), "a=" + expand(x+",2")},
		},
		{"an emptied file", []string{"create a", "write a old!", "all", "create a"}, []string{
			"a=old!", "a=\x00\x00d!", "a=" + zeros(4), "a=ol", "a=" + zeros(2), "a=",
		}},
		{"the halves of a rename", []string{"create a", "all", "rename a b"}, []string{"", "a=", "a= b=", "b="}},
		{
			"the halves of a replacement",
			[]string{"create a", "write a new", "create b", "write b old", "all", "rename a b"},
			[]string{"a=new b=old", "a=new b=new", "b=old", "b=new"},
		},
		{"a synced rename", []string{"create a", "all", "rename a b", "syncdir"}, []string{"b="}},
		{"a removed file", []string{"create a", "all", "remove a"}, []string{"", "a="}},
		{"a synced removal", []string{"create a", "all", "remove a", "syncdir"}, []string{""}},
		{
			"all that a name stood for",
			[]string{"create a", "write a 1", "all", "remove a", "create a", "write a 2", "sync a"},
			[]string{"", "a=1", "a=2"},
		},
		{"a name that came and went", []string{"create a", "remove a"}, []string{"", "a="}},
		{"a file renamed before its sync", []string{"create a", "write a n", "rename a b", "syncdir"}, []string{"b=", "b=\x00", "b=n"}},
		{"bytes written after the sync", []string{"create a", "write a 1", "sync a", "syncdir", "write a 2"}, []string{"a=1", "a=1\x00", "a=12"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newUser(t)
			u.all(tt.steps...)
			assert.Equal(t, slices.Sorted(slices.Values(tt.want)), u.left(1000))
		})
	}
}

func TestFailedSync(t *testing.T) {
	written := []string{"a=1", "a=1\x00", "a=12"}
	newFile := func(t *testing.T) *user {
		t.Helper()
		u := newUser(t)
		u.all("create a", "write a 1", "all", "write a 2")
		u.f.FailAt(0, nil, crashfs.NotDone)
		require.ErrorIs(t, u.do("sync a"), crashfs.ErrInjected)
		return u
	}
	t.Run("a later sync does not help", func(t *testing.T) {
		u := newFile(t)
		u.all("sync a")
		assert.Equal(t, written, u.left(100))
		u.f = u.f.Restart()
		u.all("open a", "sync a")
		assert.Equal(t, written, u.left(100))
	})
	t.Run("bytes written later are synced", func(t *testing.T) {
		u := newFile(t)
		u.all("write a 3", "sync a")
		assert.Equal(t, []string{"a=123"}, u.left(100))
	})
	t.Run("one that was done was done", func(t *testing.T) {
		u := newUser(t)
		u.all("create a", "write a 1", "all", "write a 2")
		u.f.FailAt(0, nil, crashfs.ButDone)
		require.Error(t, u.do("sync a"))
		assert.Equal(t, []string{"a=12"}, u.left(100))
	})
	t.Run("of a directory can be repeated", func(t *testing.T) {
		u := newUser(t)
		u.all("create a")
		u.f.FailAt(0, nil, crashfs.NotDone)
		require.Error(t, u.do("syncdir"))
		assert.Equal(t, []string{"", "a="}, u.left(100))
		u.all("syncdir")
		assert.Equal(t, []string{"a="}, u.left(100))
	})
}

// After a restart the bytes are there, and still not safe.
func TestRestartKeepsWhatIsNotDurable(t *testing.T) {
	u := newUser(t)
	u.all("create a", "write a 1", "sync a", "syncdir", "write a 2", "rename a b")
	want := u.left(100)
	before := u.f
	u.f = u.f.Restart()
	require.Equal(t, map[string]string{"b": "12"}, contents(t, u.f))
	require.Equal(t, want, u.left(100))
	u.all("open b", "write b x", "remove b", "syncdir")
	require.Equal(t, map[string]string{"b": "12"}, contents(t, before), "the two share nothing")
	require.Empty(t, contents(t, u.f))
}

func TestPowerLossesBeyondTheLimit(t *testing.T) {
	u := newUser(t)
	u.all("create a", "all", "write a 1*512,2*512,3*512,4*512,5*512")
	texts := func(seed uint64) (what []string, sizes []int) {
		for text, after := range u.f.PowerLosses(20, seed) {
			what = append(what, text)
			sizes = append(sizes, len(contents(t, after)["a"]))
		}
		return what, sizes
	}
	what, sizes := texts(1)
	again, _ := texts(1)
	other, _ := texts(2)
	require.Equal(t, what, again)
	require.NotEqual(t, what, other)
	require.Contains(t, what, "everything survived")
	require.Contains(t, what, "not the newest survived: block 3 of #1: version 1 of 3")
	require.Contains(t, what, "not the newest survived: size of #1: version 2 of 3")
	require.Contains(t, sizes, 0)
	require.LessOrEqual(t, len(what), 2+2*(2+2*5)+20)
	require.Greater(t, len(what), 20)

	for range u.f.PowerLosses(20, 1) {
		break // stopping early is fine
	}
	for range u.f.PowerLosses(1<<20, 1) {
		break
	}
}

// Up to the limit it is all of them, not chance.
func TestPowerLossesUpToTheLimit(t *testing.T) {
	u := newUser(t)
	u.all("create a", "create b", "create c", "create d", "create e", "create f")
	require.Len(t, u.left(64), 64)
	require.Less(t, len(u.left(63)), 64)
}

// Crash takes one of the states that PowerLosses lists, and each of them now
// and then.
func TestCrash(t *testing.T) {
	u := newUser(t)
	u.all("create a", "write a 1", "create b", "write b 2")
	want := u.left(1000)
	r := rand.New(rand.NewPCG(1, 2))
	got := map[string]bool{}
	for range 2000 {
		v := &user{t: t, f: u.f.Crash(r)}
		left := v.left(1000)
		require.Len(t, left, 1, "after a power loss all is decided")
		require.Contains(t, want, left[0])
		got[left[0]] = true
	}
	require.Len(t, got, len(want))
}
