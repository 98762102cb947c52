package durable_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// childEnv holds the role of a process that runs this test binary again.
const childEnv = "DURABLE_TEST_CHILD"

var roles = map[string]func(path string) error{"lock": lockChild, "write": writeChild}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(childEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is a process in a role. It ends when its input is closed, or killed.
type child struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Reader
}

func start(t *testing.T, role, path string) *child {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], path)
	race := os.Getenv("GORACE") + " atexit_sleep_ms=0" // or each child that ends takes a second
	cmd.Env = append(os.Environ(), childEnv+"="+role, "GORACE="+race)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return &child{cmd: cmd, in: in, out: bufio.NewReader(out)}
}

// line returns the next line without its end, or false at the end of output.
func (c *child) line() (string, bool) {
	line, err := c.out.ReadString('\n')
	if err != nil {
		return "", false
	}
	return line[:len(line)-1], true
}

func (c *child) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Kill())
}

// wait reads the rest of the output and waits for the end.
func (c *child) wait() error {
	io.Copy(io.Discard, c.out) //nolint:errcheck // only to the end
	return c.cmd.Wait()
}
