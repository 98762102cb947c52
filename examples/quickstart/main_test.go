package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/examples/internal/bars"
	"github.com/atrestdb/atrest/sidecar"
)

// TestMain lets the test binary be the program: QUICKSTART_TEST says with which
// mishap.
func TestMain(m *testing.M) {
	mode, ok := os.LookupEnv("QUICKSTART_TEST")
	if !ok {
		os.Exit(m.Run())
	}
	os.Exit(runWith(mode))
}

func runWith(mode string) int {
	progress := bars.Terminal(os.Stderr)
	mishap, at, _ := strings.Cut(mode, "@")
	phase, step, _ := strings.Cut(at, "/")
	n, _ := strconv.Atoi(step)
	switch mishap {
	case "killed":
		progress = once(phase, n, func(context.Context) { signalSelf(os.Kill); select {} }).progress
	case "full":
		var full atomic.Bool
		progress = once(phase, n, func(context.Context) { full.Store(true) }).progress
		disk = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				return &fs.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
			}
			return nil
		}))
	case "interrupted":
		progress = once(phase, n, func(ctx context.Context) { signalSelf(os.Interrupt); <-ctx.Done() }).progress
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdout, os.Stderr, progress)
}

func signalSelf(s os.Signal) {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(s)
	}
	if err != nil {
		panic(err)
	}
}

// A result is what one run of the program left for its caller.
type result struct {
	code           int
	stdout, stderr string
}

func quickstart(t *testing.T, p bars.Start, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, &stdout, &stderr, p)
	return result{code, stdout.String(), stderr.String()}
}

// row returns a figure of the table.
func (r result) row(t *testing.T, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `\s{2,}(.*)$`).FindStringSubmatch(r.stdout)
	require.NotNil(t, m, "no row %q in\n%s", name, r.stdout)
	return m[1]
}

func (r result) requireOK(t *testing.T) {
	t.Helper()
	require.Zero(t, r.code, "%s\n%s", r.stdout, r.stderr)
	require.Empty(t, r.stderr)
}

// requireSentence wants one line on stderr, and in it the text.
func (r result) requireSentence(t *testing.T, code int, text string) {
	t.Helper()
	require.Equal(t, code, r.code, "%s\n%s", r.stdout, r.stderr)
	require.Equal(t, 1, strings.Count(r.stderr, "\n"), "%q", r.stderr)
	require.True(t, strings.HasPrefix(r.stderr, "quickstart: "), "%q", r.stderr)
	require.Contains(t, r.stderr, text)
}

// A site is where a test's files are: an input, and room for the store and the
// KEK, and a temporary directory that must be empty when the test is over.
type site struct {
	*testing.T
	in, out, kek string
}

func newSite(t *testing.T) site {
	t.Helper()
	dir := t.TempDir()
	s := site{T: t, in: filepath.Join(dir, "in"), out: filepath.Join(dir, "out"), kek: filepath.Join(dir, "out.kek")}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp)
	t.Cleanup(func() {
		left, err := os.ReadDir(temp)
		require.NoError(t, err)
		require.Empty(t, left, "temporary files are left")
	})
	files := map[string][]byte{
		"empty":                nil,
		"one byte":             {'x'},
		"large":                text(1, 300<<10),
		"a/b/c/deep":           text(2, 5000),
		"a.b":                  text(3, 100),
		"näme with \"signs\".": text(4, 1000),
	}
	for i := range 40 {
		files[fmt.Sprintf("many/%02d", i)] = text(uint64(100+i), 37*i)
	}
	for name, data := range files {
		write(t, filepath.Join(s.in, filepath.FromSlash(name)), data)
	}
	return s
}

const siteFiles = 46

func (s site) args(more ...string) []string {
	return append([]string{"-in", s.in, "-out", s.out}, more...)
}

func (s site) filled(t *testing.T) site {
	t.Helper()
	quickstart(t, bars.Silent, s.args()...).requireOK(t)
	return s
}

func TestFirstAndSecondRun(t *testing.T) {
	s := newSite(t)
	require.NoError(t, os.Symlink("large", filepath.Join(s.in, "link")))

	first := quickstart(t, bars.Silent, s.args("-seed", "7")...)
	first.requireOK(t)
	for _, text := range []string{
		fmt.Sprintf("in     %s: %d files, ", s.in, siteFiles),
		"skipped, because they are not regular files: 1",
		"kek    " + s.kek + ", made by this run",
		fmt.Sprintf("%d of %d files are equal", siteFiles, siteFiles),
		"1000 samples (-seed 7), the KEK and 3 DEKs: 0 hits",
	} {
		require.Contains(t, first.stdout, text)
	}
	require.Equal(t, strconv.Itoa(siteFiles), first.row(t, "files"))
	require.Equal(t, "0", first.row(t, "mismatches"))
	require.Equal(t, "3", first.row(t, "keys"))
	require.Equal(t, "0", first.row(t, "hits"))
	require.Regexp(t, `^(9\d\d|1000) of 1000$`, first.row(t, "control hits"))
	require.Regexp(t, `^\d+$`, first.row(t, "seal MB/s"))
	require.Regexp(t, `^\d+$`, first.row(t, "open MB/s"))
	requireNoClearText(t, s)
	if runtime.GOOS != "windows" {
		info, err := os.Stat(s.kek)
		require.NoError(t, err)
		require.EqualValues(t, 0o600, info.Mode().Perm())
	}

	// Again, once with the input named and once from what the store says.
	for _, args := range [][]string{s.args(), {"-out", s.out}} {
		again := quickstart(t, bars.Silent, args...)
		again.requireOK(t)
		require.Contains(t, again.stdout, "filled by an earlier run: it is verified, nothing is sealed")
		require.Equal(t, "-", again.row(t, "seal MB/s"))
		require.Equal(t, "3", again.row(t, "keys"))
		require.Equal(t, "0", again.row(t, "hits"))
		require.Regexp(t, `^(9\d\d|1000) of 1000$`, again.row(t, "control hits"))
	}
	requireNoClearText(t, s)
}

// requireNoClearText looks for the input in another way than the program does.
func requireNoClearText(t *testing.T, s site) {
	t.Helper()
	large, err := os.ReadFile(filepath.Join(s.in, "large"))
	require.NoError(t, err)
	kek, err := os.ReadFile(s.kek)
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(s.out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.False(t, bytes.Contains(data, kek), path)
		for at := 0; at+32 <= len(large); at += 4 << 10 {
			require.False(t, bytes.Contains(data, large[at:at+32]), path)
		}
		return nil
	}))
}

func TestDefaultPlaces(t *testing.T) {
	s := newSite(t)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	r := quickstart(t, bars.Silent, "-in", s.in)
	r.requireOK(t)
	out := regexp.MustCompile(`(?m)^out    (.*)$`).FindStringSubmatch(r.stdout)[1]
	require.Equal(t, temp, filepath.Dir(out))
	require.FileExists(t, filepath.Join(out, sidecar.FileName))
	require.FileExists(t, out+".kek")
	quickstart(t, bars.Silent, "-out", out).requireOK(t)

	in, err := defaultInput(background)
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(in, "fmt", "print.go"))
	t.Setenv("PATH", "")
	_, err = defaultInput(background)
	require.ErrorContains(t, err, "name a directory with -in")
}

func TestHelp(t *testing.T) {
	r := quickstart(t, bars.Silent, "-h")
	r.requireOK(t)
	for _, flag := range []string{"-in", "-out", "-kek", "-seed"} {
		require.Contains(t, r.stdout, flag)
	}
}

func TestSmallInputs(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no file":     {},
		"empty files": {"a": "", "b/c": ""},
		"one byte":    {"a": "x"},
		"23 bytes":    {"a": "abcdefghijklmnopqrstuvw"},
		"uniform":     {"a": strings.Repeat("x", 10_000)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			require.NoError(t, os.RemoveAll(s.in))
			require.NoError(t, os.Mkdir(s.in, 0o755))
			for path, data := range files {
				write(t, filepath.Join(s.in, path), []byte(data))
			}
			for range 2 {
				r := quickstart(t, bars.Silent, s.args()...)
				r.requireOK(t)
				require.Contains(t, r.stdout, "no sample could be taken")
				require.Equal(t, strconv.Itoa(len(files)), r.row(t, "files"))
				require.Equal(t, "0", r.row(t, "hits"))
				require.Equal(t, "- (no samples)", r.row(t, "control hits"))
			}
		})
	}
}

func TestFewSamples(t *testing.T) {
	s := newSite(t)
	require.NoError(t, os.RemoveAll(s.in))
	write(t, filepath.Join(s.in, "a"), text(1, 40))
	r := quickstart(t, bars.Silent, s.args()...)
	r.requireOK(t)
	require.Equal(t, "17 of 17", r.row(t, "control hits"))
}

// tree describes every file below dir, but for what the lock file says, which
// is who had the store last.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		desc := info.Mode().String()
		if info.Mode().IsRegular() && !strings.HasSuffix(path, ".lock") && info.Size() < 1<<30 {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			desc = fmt.Sprintf("%s %x", desc, sha256.Sum256(data))
		}
		files[path] = desc
		return nil
	}))
	return files
}

// changes lists the files that differ.
func changes(before, after map[string]string) []string {
	var names []string
	for name, desc := range before {
		if after[name] != desc {
			names = append(names, name)
		}
	}
	for name := range after {
		if before[name] == "" {
			names = append(names, name)
		}
	}
	return names
}

// Each refusal is one sentence and leaves everything as it was.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		filled bool
		change func(s *site)
		args   func(s site) []string
		want   string
		keys   bool // the key state was opened, which counts in keys.json
	}{
		{name: "no such -in", change: func(s *site) { s.in += "x" }, want: "inx does not exist"},
		{name: "-in is a file", change: func(s *site) { s.in += "/large" }, want: "large is not a directory"},
		{name: "huge file", change: func(s *site) {
			require.NoError(s, os.Truncate(filepath.Join(s.in, "large"), 1<<30+1))
		}, want: "one value holds at most"},
		{name: "foreign -out", change: func(s *site) { write(s.T, filepath.Join(s.out, "note"), nil) }, want: "neither empty nor a store of this program"},
		{name: "foreign keys.json", change: func(s *site) { write(s.T, filepath.Join(s.out, sidecar.FileName), nil) }, want: "neither empty nor a store of this program"},
		{name: "-out is a file", change: func(s *site) { write(s.T, s.out, nil) }, want: "out cannot be used"},
		{
			name: "-out below a file", change: func(s *site) { s.out, s.kek = s.in+"/large/out", s.out+".kek" },
			args: func(s site) []string { return s.args("-kek", s.kek) }, want: "cannot be used",
		},
		{name: "-out in -in", change: func(s *site) { s.out = s.in + "/out" }, want: "lie in one another"},
		{name: "KEK in -out", args: func(s site) []string { return s.args("-kek", s.out+"/kek") }, want: "lies inside -out"},
		{name: "KEK in -in", args: func(s site) []string { return s.args("-kek", s.in+"/kek") }, want: "lies inside -in"},
		{name: "no directory for the KEK", args: func(s site) []string { return s.args("-kek", s.out+"/../none/kek") }, want: "kek cannot be made"},
		{name: "short KEK", change: func(s *site) { writeKEK(s.T, s.kek, 31, 0o600) }, want: "out.kek cannot be used: "},
		{name: "long KEK", change: func(s *site) { writeKEK(s.T, s.kek, 33, 0o600) }, want: "out.kek cannot be used: "},
		{name: "open KEK", change: func(s *site) { writeKEK(s.T, s.kek, 32, 0o640) }, want: "out.kek cannot be used: "},
		{name: "open KEK later", filled: true, change: func(s *site) { require.NoError(s, os.Chmod(s.kek, 0o644)) }, want: "out.kek cannot be used: "},
		{name: "KEK is a link", filled: true, change: func(s *site) {
			require.NoError(s, os.Rename(s.kek, s.kek+"2"))
			require.NoError(s, os.Symlink(s.kek+"2", s.kek))
		}, want: "out.kek cannot be used: "},
		{name: "KEK is gone", filled: true, change: func(s *site) { require.NoError(s, os.Remove(s.kek)) }, want: "out.kek cannot be used: "},
		{name: "wrong KEK", filled: true, change: func(s *site) {
			require.NoError(s, os.Remove(s.kek))
			writeKEK(s.T, s.kek, 32, 0o600)
		}, want: "out.kek is not the key that -out "},
		{name: "changed keys.json", filled: true, change: func(s *site) {
			edit(s.T, filepath.Join(s.out, sidecar.FileName), `"through": `, `"through": 1`)
		}, want: "out cannot be opened: "},
		{name: "keys.json of something else", filled: true, change: func(s *site) {
			require.NoError(s, os.WriteFile(filepath.Join(s.out, sidecar.FileName), []byte("{}\n"), 0o600))
		}, want: "out cannot be opened: "},
		{name: "in use", filled: true, change: func(s *site) {
			f, err := sidecar.Open(s.Context(), s.out, node, s.keks())
			require.NoError(s, err)
			s.Cleanup(func() { require.NoError(s, f.Close()) })
		}, want: fmt.Sprintf("is in use by process %d", os.Getpid())},
		{name: "store of the first version", change: func(s *site) { fillFirstVersion(*s) }, want: "is the store of another program, or of another version of this one"},
		{name: "database without its manifest", filled: true, change: func(s *site) {
			remove(s.T, filepath.Join(s.out, "db", "MANIFEST-*"))
		}, want: "out cannot be opened: pebble: ", keys: true},
		{name: "input gone", filled: true, change: func(s *site) { require.NoError(s, os.RemoveAll(s.in)) }, want: "in does not exist"},
		{name: "unknown flag", args: func(s site) []string { return s.args("-compress") }, want: "-compress"},
		{name: "argument", args: func(s site) []string { return s.args("more") }, want: `unexpected argument "more"`},
		{name: "bad seed", args: func(s site) []string { return s.args("-seed", "x") }, want: "-seed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			root := filepath.Dir(s.in)
			if c.filled {
				s.filled(t)
			}
			if c.change != nil {
				c.change(&s)
			}
			args := s.args()
			if c.args != nil {
				args = c.args(s)
			}
			before := tree(t, root)
			quickstart(t, bars.Silent, args...).requireSentence(t, exitRefused, c.want)
			changed := changes(before, tree(t, root))
			if c.keys {
				require.Equal(t, []string{filepath.Join(s.out, sidecar.FileName)}, changed)
			} else {
				require.Empty(t, changed)
			}
		})
	}
}

func writeKEK(t *testing.T, path string, n int, mode fs.FileMode) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, text(9, n), mode))
	require.NoError(t, os.Chmod(path, mode))
}

// edit replaces the first occurrence of a text in a file.
func edit(t *testing.T, path, from, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(data), from)
	require.NoError(t, os.WriteFile(path, bytes.Replace(data, []byte(from), []byte(to), 1), 0o600))
}

func remove(t *testing.T, pattern string) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		require.NoError(t, os.Remove(name))
	}
}

// A hook acts at the beginning of a phase and after each of its steps.
type hook struct {
	phase string
	act   func(ctx context.Context, step int)
}

func (h hook) progress(ctx context.Context, phase string, total int64) bars.Bar {
	if phase != h.phase {
		return bars.Silent(ctx, phase, total)
	}
	b := &hookBar{Bar: bars.Silent(ctx, phase, total), ctx: ctx, act: h.act}
	b.act(ctx, 0)
	return b
}

type hookBar struct {
	bars.Bar
	ctx  context.Context
	act  func(ctx context.Context, step int)
	step int
}

func (b *hookBar) Add(int) {
	b.step++
	b.act(b.ctx, b.step)
}

// once calls f when step comes.
func once(phase string, step int, f func(ctx context.Context)) hook {
	return hook{phase, func(ctx context.Context, now int) {
		if now == step {
			f(ctx)
		}
	}}
}

// The control is worth something: it fails when the copy is not the input.
func TestControlFails(t *testing.T) {
	s := newSite(t)
	changed := once("control", 0, func(context.Context) {
		require.NoError(t, filepath.WalkDir(s.in, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				err = os.WriteFile(path, []byte("something else"), 0o600)
			}
			return err
		}))
	})
	r := quickstart(t, changed.progress, s.args()...)
	r.requireSentence(t, exitFailed, "the control failed")
	require.Equal(t, "0", r.row(t, "hits"))
	require.Equal(t, "0 of 1000", r.row(t, "control hits"))
}

func TestInputThatChanges(t *testing.T) {
	for _, c := range []struct {
		name, want string
		change     func(s site)
	}{
		{"other bytes", `"large" has changed on disk since it was sealed`, func(s site) { edit(s.T, filepath.Join(s.in, "large"), "0", "1") }},
		{"longer", `"empty" has changed on disk since it was sealed`, func(s site) { write(s.T, filepath.Join(s.in, "empty"), []byte("x")) }},
		{"gone", `"a/b/c/deep" is gone from the input since it was sealed`, func(s site) { require.NoError(s, os.RemoveAll(filepath.Join(s.in, "a"))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			r := quickstart(t, once("reading back", 0, func(context.Context) { c.change(s) }).progress, s.args()...)
			r.requireSentence(t, exitFailed, c.want)
			require.Equal(t, "1", r.row(t, "mismatches"))
		})
	}
	t.Run("between two runs", func(t *testing.T) {
		s := newSite(t).filled(t)
		require.NoError(t, os.Rename(filepath.Join(s.in, "large"), filepath.Join(s.in, "larger")))
		r := quickstart(t, bars.Silent, s.args()...)
		r.requireSentence(t, exitFailed, "(and 1 more)")
		require.Contains(t, r.stdout, `"large" is in the store and not in the input`)
		require.Contains(t, r.stdout, `"larger" is in the input and not in the store`)
		require.Equal(t, "2", r.row(t, "mismatches"))
	})
}

func TestPlantedClearText(t *testing.T) {
	s := newSite(t).filled(t)
	large, err := os.ReadFile(filepath.Join(s.in, "large"))
	require.NoError(t, err)
	kek, err := os.ReadFile(s.kek)
	require.NoError(t, err)
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"input", `24 bytes of "large" at `, large},
		{"KEK", "the KEK lies in clear in ", kek},
		{"KEK in text", "the KEK in hexadecimal lies in clear in ", fmt.Appendf(nil, "key: %x\n", kek)},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(s.out, "db", "forgotten")
			write(t, path, c.data)
			r := quickstart(t, bars.Silent, s.args()...)
			r.requireSentence(t, exitFailed, c.want)
			require.Contains(t, r.stdout, path)
			require.NotEqual(t, "0", r.row(t, "hits"))
			require.NoError(t, os.Remove(path))
			quickstart(t, bars.Silent, s.args()...).requireOK(t)
		})
	}
	t.Run("DEK", func(t *testing.T) {
		for _, dek := range deksOf(t, s) {
			path := filepath.Join(s.out, "core")
			write(t, path, dek)
			quickstart(t, bars.Silent, s.args()...).requireSentence(t, exitFailed, "DEK ")
			require.NoError(t, os.Remove(path))
		}
	})
}
