package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// process runs the program in a process of its own.
func process(t *testing.T, mode string, env []string, args ...string) result {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	return finish(t, exec.CommandContext(t.Context(), self, args...), mode, env)
}

func finish(t *testing.T, cmd *exec.Cmd, mode string, env []string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Env = append(append(os.Environ(), "QUICKSTART_TEST="+mode, "GORACE=atexit_sleep_ms=0"), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func TestExitCodes(t *testing.T) {
	s := newSite(t)
	process(t, "", nil, "-in", s.in+"x").requireSentence(t, 2, "does not exist")
	process(t, "", nil, s.args()...).requireOK(t)
	process(t, "", nil, s.args()...).requireOK(t)
	edit(t, s.in+"/large", "0", "1")
	process(t, "", nil, s.args()...).requireSentence(t, 1, "has changed on disk")
}

// Under fips140=only everything that is not approved fails, in whatever package
// it is called.
func TestStrictFIPSMode(t *testing.T) {
	s := newSite(t)
	strict := []string{"GODEBUG=fips140=only"}
	process(t, "", strict, s.args()...).requireOK(t)
	process(t, "", strict, s.args()...).requireOK(t)
	process(t, "", nil, s.args()...).requireOK(t)
}

func TestInUseByAnotherProcess(t *testing.T) {
	s := newSite(t).filled(t)
	st := openTestStore(t, s)
	defer func() { require.NoError(t, st.close()) }()
	process(t, "", nil, s.args()...).requireSentence(t, 2, "process "+strconv.Itoa(os.Getpid()))
}

// A full disk ends the run, and no clear text stays behind.
func TestDiskFull(t *testing.T) {
	for _, at := range []string{"sealing/0", "sealing/20", "control/0", "control/20"} {
		t.Run(at, func(t *testing.T) {
			s := newSite(t)
			process(t, "full@"+at, nil, s.args()...).requireSentence(t, exitRefused, "no space left on the disk of ")
			after := process(t, "", nil, s.args()...)
			if at[:7] == "sealing" {
				after.requireSentence(t, exitFailed, "did not finish")
			} else {
				after.requireOK(t)
			}
		})
	}
}
