package crashfs_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

// model is a file system as a map: names to contents that several names and
// open files may share.
type model map[string]*[]byte

func (m model) rename(a, b string) error {
	if m[a] == nil {
		return fs.ErrNotExist
	}
	if a != b {
		m[b] = m[a]
		delete(m, a)
	}
	return nil
}

// pair is one open file in both worlds.
type pair struct {
	file durable.File
	data *[]byte
	off  int
	app  bool
}

// machine runs the same operations on an FS and on a model.
type machine struct {
	f     *crashfs.FS
	m     model
	open  []*pair
	names *rapid.Generator[string]
}

func newMachine() *machine {
	f := crashfs.New()
	f.Mkdir("d")
	return &machine{f: f, m: model{}, names: rapid.SampledFrom([]string{"a", "b", "d/a", "d/c"})}
}

func (s *machine) Open(t *rapid.T) {
	name := s.names.Draw(t, "name")
	flag := rapid.SampledFrom([]int{
		os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_EXCL,
		os.O_RDWR | os.O_TRUNC, os.O_RDWR | os.O_CREATE | os.O_APPEND,
	}).Draw(t, "flag")
	file, err := s.f.OpenFile(name, flag, 0o600)
	data := s.m[name]
	switch {
	case data == nil && flag&os.O_CREATE == 0:
		require.ErrorIs(t, err, fs.ErrNotExist)
		return
	case data != nil && flag&os.O_EXCL != 0:
		require.ErrorIs(t, err, fs.ErrExist)
		return
	case data == nil:
		data = new([]byte)
		s.m[name] = data
	}
	require.NoError(t, err)
	if flag&os.O_TRUNC != 0 {
		*data = nil
	}
	s.open = append(s.open, &pair{file: file, data: data, app: flag&os.O_APPEND != 0})
}

// draw returns nil if no file is open.
func (s *machine) draw(t *rapid.T) *pair {
	if len(s.open) == 0 {
		return nil
	}
	return rapid.SampledFrom(s.open).Draw(t, "file")
}

func (s *machine) Write(t *rapid.T) {
	p := s.draw(t)
	if p == nil {
		return
	}
	b := slices.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, 3*crashfs.BlockSize).Draw(t, "size"))
	n, err := p.file.Write(b)
	require.NoError(t, err)
	require.Equal(t, len(b), n)
	if p.app {
		p.off = len(*p.data)
	}
	if end := p.off + len(b); end > len(*p.data) && len(b) > 0 {
		*p.data = append(*p.data, make([]byte, end-len(*p.data))...)
	}
	if len(b) > 0 {
		copy((*p.data)[p.off:], b)
	}
	p.off += len(b)
}

func (s *machine) Read(t *rapid.T) {
	p := s.draw(t)
	if p == nil {
		return
	}
	b := make([]byte, rapid.IntRange(1, 2*crashfs.BlockSize).Draw(t, "size"))
	n, err := p.file.Read(b)
	if p.off >= len(*p.data) {
		require.ErrorIs(t, err, io.EOF)
		return
	}
	require.NoError(t, err)
	require.Equal(t, (*p.data)[p.off:p.off+n], b[:n])
	p.off += n
}

func (s *machine) Sync(t *rapid.T) {
	if p := s.draw(t); p != nil {
		require.NoError(t, p.file.Sync())
	}
}

func (s *machine) Close(t *rapid.T) {
	p := s.draw(t)
	if p == nil {
		return
	}
	require.NoError(t, p.file.Close())
	require.ErrorIs(t, p.file.Close(), fs.ErrClosed)
	s.open = slices.DeleteFunc(s.open, func(o *pair) bool { return o == p })
}

func (s *machine) Rename(t *rapid.T) {
	a, b := s.names.Draw(t, "from"), s.names.Draw(t, "to")
	requireSame(t, s.m.rename(a, b), s.f.Rename(a, b))
}

func (s *machine) Remove(t *rapid.T) {
	name := s.names.Draw(t, "name")
	var want error
	if s.m[name] == nil {
		want = fs.ErrNotExist
	}
	delete(s.m, name)
	requireSame(t, want, s.f.Remove(name))
}

func (s *machine) SyncDir(t *rapid.T) {
	require.NoError(t, s.f.SyncDir(rapid.SampledFrom([]string{".", "d"}).Draw(t, "dir")))
}

func (s *machine) Check(t *rapid.T) {
	want := map[string]string{}
	for name, data := range s.m {
		want[name] = string(*data)
	}
	require.Equal(t, want, contents(t, s.f))
	require.Equal(t, want, contents(t, s.f.Restart()))
}

func requireSame(t require.TestingT, want, got error) {
	if want == nil {
		require.NoError(t, got)
		return
	}
	require.ErrorIs(t, got, want)
}

// contents reads everything back through the interface.
func contents(t require.TestingT, f *crashfs.FS) map[string]string {
	got := map[string]string{}
	read(t, f, ".", got)
	return got
}

func read(t require.TestingT, f *crashfs.FS, dir string, into map[string]string) {
	names, err := f.ReadDir(dir)
	require.NoError(t, err)
	for _, base := range names {
		name := path.Join(dir, base)
		info, err := f.Lstat(name)
		require.NoError(t, err)
		if info.IsDir() {
			read(t, f, name, into)
			continue
		}
		h, err := f.OpenFile(name, os.O_RDONLY, 0)
		require.NoError(t, err)
		data, err := io.ReadAll(h)
		require.NoError(t, err)
		require.Len(t, data, int(info.Size()))
		into[name] = string(data)
	}
}

// Without faults the file system is a map.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newMachine()
		t.Repeat(rapid.StateMachineActions(s))
	})
}

// What was made durable, and not touched since, survives every power loss; what
// was seen is always among the states; after SyncAll it is the only one.
func TestPowerLossKeepsWhatIsDurable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newMachine()
		actions := rapid.StateMachineActions(s)
		delete(actions, "") // the check
		some := func(label string) {
			for range rapid.IntRange(0, 15).Draw(t, label) {
				actions[rapid.SampledFrom(slices.Sorted(maps.Keys(actions))).Draw(t, "action")](t)
			}
		}
		some("before")
		s.f.SyncAll()
		durable := contents(t, s.f)
		require.Equal(t, []map[string]string{durable}, states(t, s.f, 0))

		s.names, s.open = rapid.SampledFrom([]string{"b", "d/c"}), nil
		some("later")
		left := states(t, s.f, rapid.Uint64().Draw(t, "seed"))
		for _, got := range left {
			require.Equal(t, durable["a"], got["a"])
			require.Equal(t, durable["d/a"], got["d/a"])
		}
		now := contents(t, s.f)
		require.True(t, slices.ContainsFunc(left, func(got map[string]string) bool { return maps.Equal(got, now) }))
	})
}

func states(t require.TestingT, f *crashfs.FS, seed uint64) []map[string]string {
	var all []map[string]string
	for _, after := range f.PowerLosses(20, seed) {
		all = append(all, contents(t, after))
	}
	return all
}

// A file synced before the power loss is whole wherever its name survived.
func TestCrashAtRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := crashfs.New()
		want := slices.Repeat([]byte("x"), rapid.IntRange(1, 2000).Draw(t, "size"))
		h, err := f.OpenFile("a", os.O_WRONLY|os.O_CREATE, 0o600)
		require.NoError(t, err)
		_, err = h.Write(want)
		require.NoError(t, err)
		require.NoError(t, h.Sync())
		require.NoError(t, f.Rename("a", "b"))
		after := f.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		for _, name := range []string{"a", "b"} {
			got, _, err := durable.ReadFile(after, name, 1<<20)
			if !errors.Is(err, fs.ErrNotExist) {
				require.NoError(t, err)
				require.Equal(t, want, got)
			}
		}
	})
}
