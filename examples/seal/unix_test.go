//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/term"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

// A signal while the program waits for more ends it, and the file is not there.
func TestSignals(t *testing.T) {
	s := newSite(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			t.Logf("%v is ignored here, and by the program", sig)
			continue
		}
		var stderr bytes.Buffer
		cmd := process(t, nil, s.args("-out", s.path("out"))...)
		cmd.Stderr = &stderr
		begin(t, s, cmd, strings.Repeat("x", 100_000))
		require.NoError(t, cmd.Process.Signal(sig))
		require.Error(t, cmd.Wait())
		result{cmd.ProcessState.ExitCode(), "", stderr.String()}.requireSentence(t, exitInterrupted, "interrupted")
		require.Empty(t, s.names(t))
	}
}

// Under nohup the program outlives its terminal.
func TestIgnoredHangup(t *testing.T) {
	s := newSite(t)
	sh, err := exec.LookPath("sh")
	require.NoError(t, err)
	cmd := process(t, nil, s.args("-out", s.path("out"))...)
	cmd.Path, cmd.Args = sh, append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	feed := begin(t, s, cmd, "data")
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	more := strings.Repeat("x", 1<<20)
	for range 16 { // gives it time to end, if it would
		_, err = io.WriteString(feed, more)
		require.NoError(t, err, "it has ended")
	}
	require.NoError(t, feed.Close())
	require.NoError(t, cmd.Wait(), "%s", &stderr)
	require.Equal(t, []string{"out"}, s.names(t))
}

// A file whose directory cannot be synced is there, but that may not last.
func TestUnsyncedDirectory(t *testing.T) {
	s := newSite(t)
	moved := s.dir + ".moved"
	link = func(from, to string) error { return errors.Join(os.Link(from, to), os.Rename(s.dir, moved)) }
	t.Cleanup(func() { link = os.Link })
	r := sealOf(t.Context(), strings.NewReader("data"), s.args("-out", s.path("out"))...)
	r.requireSentence(t, exitFailed, "it is complete, but may not outlast a power loss: no such file")
	require.FileExists(t, filepath.Join(moved, "out"))
	require.NoError(t, os.RemoveAll(moved))
}

// A second signal ends the program even while it cannot say that it was interrupted.
func TestSecondSignal(t *testing.T) {
	s := newSite(t)
	r, full, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer full.Close()
	raw, err := full.SyscallConn()
	require.NoError(t, err)
	for n := 1; n > 0; {
		require.NoError(t, raw.Write(func(fd uintptr) bool {
			n, err = syscall.Write(int(fd), []byte("x"))
			return true
		}))
	}
	require.ErrorIs(t, err, syscall.EAGAIN)

	cmd := process(t, nil, s.args("-out", s.path("out"))...)
	cmd.Stderr = full
	begin(t, s, cmd, "data")
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.Eventually(t, func() bool { return len(s.names(t)) == 0 }, time.Minute, time.Millisecond, "it has not seen the first")
	ended := make(chan error)
	go func() { ended <- cmd.Wait() }()
	// One may come while the first is still being dealt with.
	require.Eventually(t, func() bool {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case err = <-ended:
			return true
		default:
			return false
		}
	}, time.Minute, time.Millisecond, "it has not seen the second")
	require.ErrorContains(t, err, "signal: interrupt")
}

// A named pipe that nobody writes to does not keep the program either.
func TestInterruptedAtNamedPipe(t *testing.T) {
	s := newSite(t)
	fifo := s.path("fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan result)
	go func() { done <- sealOf(ctx, nil, s.args("-in", fifo, "-out", s.path("out"))...) }()
	stacks := make([]byte, 1<<20)
	opening := func() bool { return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("os.OpenFile(")) }
	require.Eventually(t, opening, time.Minute, time.Millisecond, "it has not come to the pipe")
	cancel()
	(<-done).requireSentence(t, exitInterrupted, "interrupted")
	require.Equal(t, []string{"fifo"}, s.names(t))
	// The other end lets the call go that was given up.
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return !opening() }, time.Minute, time.Millisecond, "it is still open")
	require.NoError(t, f.Close())
}

// A terminal gets what was opened and nothing else.
func TestTerminal(t *testing.T) {
	s := newSite(t)
	sealed := s.sealed(t, "data")
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil || !term.IsTerminal(int(tty.Fd())) {
		t.Skip("no /dev/ptmx on this system that is a terminal")
	}
	defer tty.Close()
	bar := false
	start := func(ctx context.Context, phase string, total int64) bars.Bar {
		bar = true
		return bars.Silent(ctx, phase, total)
	}
	var stderr bytes.Buffer
	code := run(t.Context(), s.args("-in", s.kek), nil, tty, &stderr, start)
	result{code, "", stderr.String()}.requireSentence(t, exitRefused, "give -out FILE, or a pipe")
	require.Zero(t, run(t.Context(), s.args("-open", "-in", sealed), nil, tty, &stderr, start))
	require.False(t, bar)
	require.Zero(t, run(t.Context(), s.args("-open", "-in", sealed, "-out", s.path("out")), nil, tty, &stderr, start))
	require.True(t, bar)
}
