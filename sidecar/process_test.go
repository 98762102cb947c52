package sidecar_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/sidecar"
)

// childDir makes the test binary a child that works on the file in a directory,
// which must be there.
const childDir = "ATREST_SIDECAR_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child takes one epoch after the other and prints each as soon as it is durable,
// until it is killed or its standard input ends.
func child(dir string) error {
	f, err := sidecar.Open(context.Background(), dir, node, newKEKs("a"))
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin) //nolint:errcheck // any end will do
		close(ended)
	}()
	for epoch := f.Epoch(7); ; epoch++ {
		fmt.Println(epoch)
		select {
		case <-ended:
			return f.Close()
		default:
		}
		if err := f.Update(func(tx *sidecar.Tx) error { return setAll(tx, epoch+1) }); err != nil {
			return err
		}
	}
}

type process struct {
	*exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

func start(t *testing.T, dir string) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p := &process{cmd, stdin, bufio.NewReader(stdout)}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			p.Process.Kill() //nolint:errcheck // it has ended then
			p.Wait()         //nolint:errcheck // killed
		}
	})
	return p
}

// epoch reads the next epoch that is durable.
func (p *process) epoch(t *testing.T) (epoch uint16) {
	t.Helper()
	line, err := p.out.ReadString('\n')
	require.NoError(t, err)
	_, err = fmt.Sscanln(line, &epoch)
	require.NoError(t, err, line)
	return epoch
}

// rest returns the last whole number in what the killed process still wrote.
func (p *process) rest(t *testing.T, last uint16) uint16 {
	t.Helper()
	text, err := io.ReadAll(p.out)
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasSuffix(line, "\n") {
			_, err := fmt.Sscanln(line, &last)
			require.NoError(t, err, line)
		}
	}
	return last
}

// A process killed at any moment loses no epoch that it took, and leaves a whole
// file and no lock.
func TestKill(t *testing.T) {
	dir, w := t.TempDir(), newKEKs("a")
	f, err := sidecar.Create(t.Context(), dir, node, w)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	var last uint16
	const kills = 50
	for i := range kills {
		p := start(t, dir)
		require.Equal(t, last, p.epoch(t))
		for range 7 * i % 11 {
			last = p.epoch(t)
		}
		require.NoError(t, p.Process.Kill())
		last = p.rest(t, last)
		require.Error(t, p.Wait())

		f, err := sidecar.Open(t.Context(), dir, node, w)
		require.NoError(t, err)
		epoch, err := whole(f)
		require.NoError(t, err)
		require.GreaterOrEqual(t, epoch, last)
		require.LessOrEqual(t, epoch, last+1, "one update at most was under way")
		last = epoch
		require.NoError(t, f.Close())
		names, err := durable.OS.ReadDir(dir)
		require.NoError(t, err)
		require.Equal(t, []string{"keys.json", "keys.json.lock"}, names)
	}
	t.Logf("%d kills, %d epochs", kills, last)
	require.NotZero(t, last)
}

func TestSecondProcess(t *testing.T) {
	dir, w := t.TempDir(), newKEKs("a")
	f, err := sidecar.Create(t.Context(), dir, node, w)
	require.NoError(t, err)

	t.Run("it is the second", func(t *testing.T) {
		p := start(t, dir)
		out, err := io.ReadAll(p.out)
		require.NoError(t, err)
		require.Error(t, p.Wait())
		require.Contains(t, string(out), fmt.Sprintf("keys.json is in use by process %d;", os.Getpid()))
	})

	t.Run("it is the first", func(t *testing.T) {
		require.NoError(t, f.Close())
		p := start(t, dir)
		p.epoch(t)
		_, err := sidecar.Open(t.Context(), dir, node, w)
		var locked *sidecar.LockedError
		require.ErrorAs(t, err, &locked)
		require.Equal(t, p.Process.Pid, locked.PID)

		require.NoError(t, p.stdin.Close())
		last := p.rest(t, 0)
		require.NoError(t, p.Wait())
		f, err := sidecar.Open(t.Context(), dir, node, w)
		require.NoError(t, err)
		require.Equal(t, last, f.Epoch(7))
		require.NoError(t, f.Close())
	})
}
