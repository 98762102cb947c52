//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInterrupted(t *testing.T) {
	for _, at := range []string{"sealing/0", "sealing/1", "sealing/30", "reading back/3", "searching/1", "control/0", "control/9"} {
		t.Run(at, func(t *testing.T) {
			s := newSite(t)
			process(t, "interrupted@"+at, nil, s.args()...).requireSentence(t, exitInterrupted, "interrupted")
			after := process(t, "", nil, s.args()...)
			if at[:7] == "sealing" {
				after.requireSentence(t, exitFailed, "did not finish")
			} else {
				after.requireOK(t)
			}
		})
	}
}

// A run that is killed leaves a store that opens. What is in it is verified,
// and what is not is said.
func TestKilled(t *testing.T) {
	for _, at := range []int{0, 1, siteFiles / 2, siteFiles/2 + 1, siteFiles} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			s := newSite(t)
			r := process(t, fmt.Sprintf("killed@sealing/%d", at), nil, s.args()...)
			require.Equal(t, -1, r.code, "%s\n%s", r.stdout, r.stderr)

			again := process(t, "", nil, s.args()...)
			again.requireSentence(t, exitFailed, "the run that filled -out did not finish")
			require.Equal(t, "1", again.row(t, "mismatches"))
			require.Equal(t, "0", again.row(t, "hits"))
			// What was written may still have been on its way to the log.
			var stored, of int
			_, err := fmt.Sscanf(again.stderr, "quickstart: FAILED: the run that filled -out did not finish: %d of %d files", &stored, &of)
			require.NoError(t, err)
			require.LessOrEqual(t, stored, at)
			require.Equal(t, siteFiles, of)
			require.Contains(t, again.stdout, fmt.Sprintf("%d of %d files are equal", stored, siteFiles))
		})
	}
}

// An unreadable file is found before anything is made.
func TestUnreadable(t *testing.T) {
	for _, name := range []string{"many/07", "a/b"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			self, err := os.Executable()
			require.NoError(t, err)
			if os.Getuid() == 0 {
				self = forNobody(t, s, self)
			}
			path := filepath.Join(s.in, filepath.FromSlash(name))
			require.NoError(t, os.Chmod(path, 0))
			t.Cleanup(func() { require.NoError(t, os.Chmod(path, 0o700)) })

			cmd := exec.Command(self, s.args()...)
			if os.Getuid() == 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			}
			finish(t, cmd, "", []string{"GOCOVERDIR=" + filepath.Dir(s.in)}).requireSentence(t, exitRefused, path)
			require.NoDirExists(t, s.out)
			require.NoFileExists(t, s.kek)
		})
	}
}

const nobody = 65534

// forNobody gives the site to an ordinary user, because root can read
// everything, and returns a program which that user can run.
func forNobody(t *testing.T, s site, self string) string {
	t.Helper()
	root := filepath.Dir(s.in)
	require.NoError(t, os.Chmod(filepath.Dir(root), 0o755))
	program := filepath.Join(root, "program")
	from, err := os.Open(self)
	require.NoError(t, err)
	defer func() { require.NoError(t, from.Close()) }()
	to, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	require.NoError(t, os.Chown(root, nobody, nobody))
	return program
}
