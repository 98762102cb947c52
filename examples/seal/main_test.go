package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/examples/internal/bars"
	"github.com/atrestdb/atrest/stream"
)

// TestMain lets the test binary be the program.
func TestMain(m *testing.M) {
	if _, ok := os.LookupEnv("SEAL_TEST"); !ok {
		os.Exit(m.Run())
	}
	main()
}

// A result is what one run of the program left for its caller.
type result struct {
	code           int
	stdout, stderr string
}

func sealOf(ctx context.Context, stdin io.Reader, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, stdin, &stdout, &stderr, bars.Silent)
	return result{code, stdout.String(), stderr.String()}
}

func (r result) requireOK(t require.TestingT) {
	require.Zero(t, r.code, r.stderr)
	require.Empty(t, r.stderr)
}

// requireSentence wants one line on stderr, and in it the text.
func (r result) requireSentence(t require.TestingT, code int, text string) {
	require.Equal(t, code, r.code, r.stderr)
	require.Equal(t, 1, strings.Count(r.stderr, "\n"), "%q", r.stderr)
	require.True(t, strings.HasPrefix(r.stderr, "seal: "), "%q", r.stderr)
	require.Contains(t, r.stderr, text)
}

// A site is where a test's files are.
type site struct{ dir, kek string }

func newSite(t *testing.T) site {
	t.Helper()
	s := site{dir: t.TempDir(), kek: filepath.Join(t.TempDir(), "kek")}
	write(t, s.kek, bytes.Repeat([]byte{7}, 32))
	return s
}

func (s site) path(name string) string { return filepath.Join(s.dir, name) }

func (s site) args(more ...string) []string { return append([]string{"-kek", s.kek}, more...) }

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// names are what lies in the site's directory.
func (s site) names(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// sealed is a small sealed file.
func (s site) sealed(t *testing.T, data string) string {
	t.Helper()
	path := s.path("sealed")
	sealOf(t.Context(), strings.NewReader(data), s.args("-out", path)...).requireOK(t)
	return path
}

func Example() {
	run(context.Background(), nil, strings.NewReader(""), os.Stdout, os.Stderr, bars.Silent)
	// Output:
	// sealed   1048576 bytes as 1049306
	// opened   all 1048576 bytes are what they were
	// damaged  one bit in the middle
	// refused  it is damaged, and nothing of it was left
}

func TestDemonstrationLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp)
	sealOf(t.Context(), nil).requireOK(t)
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	sealOf(canceled, nil).requireSentence(t, exitInterrupted, "interrupted")
	left, err = os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)

	t.Setenv("TMPDIR", temp+"/none")
	t.Setenv("TMP", temp+"/none")
	sealOf(t.Context(), nil).requireSentence(t, exitFailed, "no such file")
}

// Files and pipes, in every combination.
func TestRoundTrips(t *testing.T) {
	for _, n := range []int{0, 1, 1000, stream.DefaultSegment, 1<<20 + 7} {
		data := strings.Repeat("0123456789abcde", n/15+1)[:n]
		s := newSite(t)
		write(t, s.path("clear"), []byte(data))

		sealOf(t.Context(), nil, s.args("-in", s.path("clear"), "-out", s.path("sealed"))...).requireOK(t)
		sealOf(t.Context(), nil, s.args("-open", "-in", s.path("sealed"), "-out", s.path("opened"))...).requireOK(t)
		opened, err := os.ReadFile(s.path("opened"))
		require.NoError(t, err)
		require.Equal(t, data, string(opened))
		require.Equal(t, []string{"clear", "opened", "sealed"}, s.names(t))

		sealed := sealOf(t.Context(), iotest.HalfReader(strings.NewReader(data)), s.args("-in", "-")...)
		sealed.requireOK(t)
		if n > 30 {
			require.NotContains(t, sealed.stdout, data[:30])
		}
		again := sealOf(t.Context(), iotest.DataErrReader(strings.NewReader(sealed.stdout)), s.args("-open", "-out", "-")...)
		again.requireOK(t)
		require.Equal(t, data, again.stdout)
		for _, name := range []string{"sealed", "opened"} {
			info, err := os.Stat(s.path(name))
			require.NoError(t, err)
			if runtime.GOOS != "windows" {
				require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
			}
		}
	}
}

// Whatever happened to a file is noticed, and nothing of it is left.
func TestDamagedFiles(t *testing.T) {
	s := newSite(t)
	path := s.sealed(t, "some data in the clear")
	sealed, err := os.ReadFile(path)
	require.NoError(t, err)
	refused := func(t require.TestingT, b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		r := sealOf(context.Background(), nil, s.args("-open", "-in", path, "-out", s.path("opened"))...)
		r.requireSentence(t, exitRefused, "-in "+path)
		require.NoFileExists(t, s.path("opened"))
		piped := sealOf(context.Background(), bytes.NewReader(b), s.args("-open")...)
		piped.requireSentence(t, exitRefused, "standard input")
		require.Empty(t, piped.stdout)
	}
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1 << (i % 8)
		refused(t, b)
		refused(t, sealed[:i])
	}
	refused(t, append(bytes.Clone(sealed), 0))
	require.Equal(t, []string{"sealed"}, s.names(t))

	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 1000).Draw(rt, "bytes")
		if rapid.Bool().Draw(rt, "like a stream") {
			copy(b, sealed[:min(len(b), rapid.IntRange(0, 48).Draw(rt, "until"))])
		}
		refused(rt, b)
	})
}

// What comes out of a damaged stream before the damage is authentic.
func TestDamagedPipe(t *testing.T) {
	s := newSite(t)
	data := strings.Repeat("0123456789abcdef", 20_000)
	sealed := sealOf(t.Context(), strings.NewReader(data), s.args()...)
	sealed.requireOK(t)
	r := sealOf(t.Context(), strings.NewReader(sealed.stdout[:200_000]), s.args("-open")...)
	r.requireSentence(t, exitRefused, "standard input is damaged or incomplete, so what came out before is authentic, but not all of it")
	require.NotEmpty(t, r.stdout)
	require.True(t, strings.HasPrefix(data, r.stdout))
}

// Each refusal is one sentence and leaves everything as it was.
func TestRefusals(t *testing.T) {
	s := newSite(t)
	sealed := s.sealed(t, "data")
	write(t, s.path("clear"), []byte("data"))
	write(t, s.path("kek2"), bytes.Repeat([]byte{8}, 32))
	write(t, s.path("short"), make([]byte, 31))
	later, err := os.ReadFile(sealed)
	require.NoError(t, err)
	later[3]++
	write(t, s.path("later"), later)
	before := s.names(t)
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"no KEK", "-kek is needed", []string{"-in", s.path("clear")}},
		{"no such KEK", "no such file", []string{"-kek", s.path("none")}},
		{"short KEK", "short cannot be used: ", []string{"-kek", s.path("short")}},
		{"wrong KEK", "it was sealed under another KEK", []string{"-kek", s.path("kek2"), "-open", "-in", sealed, "-out", s.path("opened")}},
		{"no such -in", "none cannot be read: no such file", s.args("-in", s.path("none"))},
		{"-in is a directory", "cannot be read: it is a directory", s.args("-in", s.dir)},
		{"-out exists", "sealed exists, and is not replaced", s.args("-in", s.path("clear"), "-out", sealed)},
		{"-out exists already", "clear exists, and is not replaced", s.args("-open", "-in", sealed, "-out", s.path("clear"))},
		{"no directory for -out", "out cannot be made: no such file", s.args("-in", s.path("clear"), "-out", s.path("none/out"))},
		{"none for the opened", "out cannot be made: no such file", s.args("-open", "-in", sealed, "-out", s.path("none/out"))},
		{"-out below a file", "cannot be made: not a directory", s.args("-in", s.path("clear"), "-out", sealed+"/out")},
		{"not sealed", "was not sealed by this program", s.args("-open", "-in", s.path("clear"))},
		{"later version", "by a later version", s.args("-open", "-in", s.path("later"))},
		{"-in is empty", "-in and -out need a name", s.args("-in", "")},
		{"-out is empty", "-in and -out need a name", s.args("-in", s.path("clear"), "-out", "")},
		{"unknown flag", "-compress", s.args("-compress")},
		{"argument", `unexpected argument "more"`, s.args("more")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(c.want, ": no") {
				c.want, _, _ = strings.Cut(c.want, ": no")
			}
			r := sealOf(t.Context(), strings.NewReader(""), c.args...)
			r.requireSentence(t, exitRefused, c.want)
			require.Empty(t, r.stdout)
			require.Equal(t, before, s.names(t))
		})
	}
}

// A reader or a writer that fails is nobody's mistake, and has a sentence too.
func TestFailures(t *testing.T) {
	s := newSite(t)
	path := s.sealed(t, "data")
	failed := errors.New("failed")
	sealed, err := os.ReadFile(path)
	require.NoError(t, err)
	// An error around io.EOF is not the end, and one around context.Canceled no interrupt.
	for _, broken := range []error{failed, fmt.Errorf("connection lost: %w", io.EOF), fmt.Errorf("request: %w", context.Canceled)} {
		blamed := func(in string, args ...string) {
			r := sealOf(t.Context(), io.MultiReader(strings.NewReader(in), iotest.ErrReader(broken)), s.args(args...)...)
			r.requireSentence(t, exitFailed, "standard input cannot be read to its end: ")
			r.requireSentence(t, exitFailed, broken.Error())
		}
		blamed(strings.Repeat("x", 100_000), "-out", s.path("out"))
		for _, n := range []int{0, 50, len(sealed) - 1} {
			blamed(string(sealed[:n]), "-open", "-out", s.path("out"))
		}
	}
	for _, args := range [][]string{s.args("-in", s.kek), s.args("-open", "-in", path)} {
		var stderr bytes.Buffer
		code := run(t.Context(), args, nil, brokenWriter{failed}, &stderr, bars.Silent)
		result{code, "", stderr.String()}.requireSentence(t, exitFailed, "standard output cannot be written: ")
	}
	require.Equal(t, []string{"sealed"}, s.names(t))
}

// What an interrupt cut short is not told, whatever it is.
func TestInterruptedIsAllThatIsTold(t *testing.T) {
	s := newSite(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sealOf(ctx, nil, "-kek", s.path("none")).requireSentence(t, exitInterrupted, "interrupted")
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

// Nothing is taken from a pipe for an output that cannot be.
func TestInputIsNotReadInVain(t *testing.T) {
	s := newSite(t)
	outs := map[string]string{s.kek: "exists, and is not replaced"}
	if runtime.GOOS != "windows" {
		outs[s.kek+"/out"] = "cannot be made: not a directory"
	}
	for out, want := range outs {
		for _, args := range [][]string{s.args("-out", out), s.args("-open", "-out", out)} {
			var reads atomic.Int64
			in := readFunc(func([]byte) (int, error) { reads.Add(1); return 0, io.EOF })
			sealOf(t.Context(), in, args...).requireSentence(t, exitRefused, want)
			require.Zero(t, reads.Load())
		}
	}
}

type brokenWriter struct{ err error }

func (b brokenWriter) Write([]byte) (int, error) { return 0, b.err }

// atEnd does something before it says that there is no more.
type atEnd func()

func (do atEnd) Read([]byte) (int, error) {
	do()
	return 0, io.EOF
}

// What comes to be under the name meanwhile stays, whether it is somebody's or of another
// run, on file systems with links and without.
func TestNothingIsReplaced(t *testing.T) {
	s := newSite(t)
	sealed := sealOf(t.Context(), strings.NewReader("data"), s.args()...)
	sealed.requireOK(t)
	out := s.path("out")
	for _, l := range []func(string, string) error{os.Link, func(string, string) error { return errors.ErrUnsupported }} {
		link = l
		t.Cleanup(func() { link = os.Link })
		for in, args := range map[string][]string{"data": s.args("-out", out), sealed.stdout: s.args("-open", "-out", out)} {
			for _, meanwhile := range []func(){
				func() { write(t, out, []byte("precious")) },
				func() {
					sealOf(t.Context(), strings.NewReader(in), args...).requireOK(t)
					if runtime.GOOS != "windows" {
						require.Equal(t, []string{"out"}, s.names(t))
					}
					write(t, out, []byte("precious"))
				},
			} {
				r := sealOf(t.Context(), io.MultiReader(strings.NewReader(in), atEnd(meanwhile)), args...)
				r.requireSentence(t, exitRefused, "-out "+out+" exists, and is not replaced")
				require.Equal(t, []string{"out"}, s.names(t))
				kept, err := os.ReadFile(out)
				require.NoError(t, err)
				require.Equal(t, "precious", string(kept))
				require.NoError(t, os.Remove(out))
			}
			sealOf(t.Context(), strings.NewReader(in), args...).requireOK(t)
			require.Equal(t, []string{"out"}, s.names(t))
			require.NoError(t, os.Remove(out))
		}
	}
}

// A pipe from which nothing comes does not keep the program.
func TestInterrupted(t *testing.T) {
	s := newSite(t)
	for _, args := range [][]string{s.args("-out", s.path("out")), s.args("-open", "-out", s.path("out"))} {
		in, feed := io.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan result)
		go func() { done <- sealOf(ctx, in, args...) }()
		_, err := feed.Write([]byte("x"))
		require.NoError(t, err)
		cancel()
		(<-done).requireSentence(t, exitInterrupted, "interrupted")
		require.NoError(t, feed.Close())
		require.Empty(t, s.names(t))
	}
}

// stuck is a pipe that nobody reads.
type stuck struct{ written, never chan struct{} }

func (s stuck) Write([]byte) (int, error) {
	close(s.written)
	<-s.never
	return 0, io.ErrClosedPipe
}

func TestInterruptedAtOutput(t *testing.T) {
	s := newSite(t)
	for _, args := range [][]string{s.args("-in", s.kek), s.args("-open", "-in", s.sealed(t, "data"))} {
		ctx, cancel := context.WithCancel(t.Context())
		out := stuck{make(chan struct{}), make(chan struct{})}
		var stderr bytes.Buffer
		done := make(chan int)
		go func() { done <- run(ctx, args, nil, out, &stderr, bars.Silent) }()
		<-out.written
		cancel()
		result{<-done, "", stderr.String()}.requireSentence(t, exitInterrupted, "interrupted")
		close(out.never)
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(b []byte) (int, error) { return f(b) }

// A call that was given up no longer has to do with the buffer, which the caller may use
// for something else.
func TestGivenUpCallLeavesTheBuffer(t *testing.T) {
	begun, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	got := make([]byte, 4) // by the call below
	late := func(do func()) (int, error) {
		begun <- struct{}{}
		<-goOn
		do()
		ended <- struct{}{}
		return 4, nil
	}
	for name, call := range map[string]func(p pipe, b []byte) (int, error){"Read": pipe.Read, "Write": pipe.Write} {
		ctx, cancel := context.WithCancel(t.Context())
		p := pipe{
			ctx: ctx,
			r:   readFunc(func(b []byte) (int, error) { return late(func() { copy(b, "late") }) }),
			w:   writeFunc(func(b []byte) (int, error) { return late(func() { copy(got, b) }) }),
		}
		b := []byte("mine")
		go func() {
			<-begun
			cancel()
		}()
		_, err := call(p, b)
		require.ErrorIs(t, err, context.Canceled, name)
		copy(b, "else")
		goOn <- struct{}{}
		<-ended
		require.Equal(t, "else", string(b), name)
		if name == "Write" {
			require.Equal(t, "mine", string(got))
		}
	}
}

func TestHelp(t *testing.T) {
	r := sealOf(t.Context(), nil, "-h")
	r.requireOK(t)
	for _, flag := range []string{"-kek", "-open", "-in", "-out"} {
		require.Contains(t, r.stdout, flag)
	}
}

// process is the program in a process of its own.
func process(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(append(os.Environ(), "SEAL_TEST=", "GORACE=atexit_sleep_ms=0"), env...)
	return cmd
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// Under fips140=only everything that is not approved fails, in whatever package it is
// called.
func TestProcesses(t *testing.T) {
	s := newSite(t)
	strict := []string{"GODEBUG=fips140=only"}
	finish(t, process(t, strict)).requireOK(t)
	in := process(t, strict, s.args()...)
	in.Stdin = strings.NewReader("data")
	sealed := finish(t, in)
	sealed.requireOK(t)
	for _, env := range [][]string{nil, strict} {
		out := process(t, env, s.args("-open")...)
		out.Stdin = strings.NewReader(sealed.stdout)
		r := finish(t, out)
		r.requireOK(t)
		require.Equal(t, "data", r.stdout)
	}
	finish(t, process(t, nil, s.args("-in", s.path("none"))...)).requireSentence(t, exitRefused, "no such file")
}

// A run that was killed leaves what it wrote, and the next one that makes the file does not.
func TestKilled(t *testing.T) {
	s := newSite(t)
	sealed := sealOf(t.Context(), strings.NewReader(strings.Repeat("data", 100_000)), s.args()...)
	sealed.requireOK(t)
	out := s.path("out")
	for in, args := range map[string][]string{"data": s.args("-out", out), sealed.stdout: s.args("-open", "-out", out)} {
		cmd := process(t, nil, args...)
		begin(t, s, cmd, in)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		left := s.names(t)
		require.Len(t, left, 1)
		require.Regexp(t, `^out\..*\.tmp$`, left[0])

		sealOf(t.Context(), strings.NewReader(""), s.args("-open", "-out", out)...).requireSentence(t, exitRefused, "")
		require.Equal(t, left, s.names(t), "it may be another run's")
		sealOf(t.Context(), strings.NewReader(in), args...).requireOK(t)
		require.Equal(t, []string{"out"}, s.names(t))
		require.NoError(t, os.Remove(out))
	}
}

// begin starts the program, which has begun its file and waits for more.
func begin(t *testing.T, s site, cmd *exec.Cmd, in string) (feed io.WriteCloser) {
	t.Helper()
	feed, err := cmd.StdinPipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = feed.Close() })
	require.NoError(t, cmd.Start())
	_, err = io.WriteString(feed, in)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(s.names(t)) > 0 }, time.Minute, time.Millisecond, "it has not begun")
	return feed
}
