package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/durable"
)

// version returns what version n of the file is: it says n, then repeats itself
// for up to some pages.
func version(n int) []byte {
	head := fmt.Sprintf("%d\n", n)
	r := rand.New(rand.NewPCG(uint64(n), 0))
	return append([]byte(head), bytes.Repeat([]byte(head), r.IntN(1<<14)/len(head))...)
}

// readVersion returns 0 for a missing file, and an error for one that is no
// whole version.
func readVersion(path string) (int, error) {
	got, err := content(durable.OS, path)
	if err != nil || got == nil {
		return 0, err
	}
	head, _, _ := bytes.Cut(got, []byte("\n"))
	n, err := strconv.Atoi(string(head))
	if err == nil && !bytes.Equal(got, version(n)) {
		err = errors.New("not a whole version")
	}
	return n, err
}

// writeChild replaces the file by one version after the other and says the
// number of each that it has written, until it is killed.
func writeChild(path string) error {
	if _, err := durable.OS.Lock(path + ".lock"); err != nil {
		return err
	}
	if err := durable.Recover(durable.OS, path); err != nil {
		return err
	}
	n, err := readVersion(path)
	for ; err == nil; n++ {
		if _, err = fmt.Println(n); err == nil {
			err = durable.WriteFile(durable.OS, path, version(n+1))
		}
	}
	return err
}

// A process is killed at random instants, and another goes on where it was.
func TestKill(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "f")
	last, kills, temps := 0, 0, 0
	for begin := time.Now(); kills < 5 || kills < 100 && time.Since(begin) < 2*time.Second; kills++ {
		acked := killOnce(t, r, path)
		require.GreaterOrEqual(t, acked, last, "seed %d", seed)
		n, err := readVersion(path)
		require.NoError(t, err, "seed %d", seed)
		require.GreaterOrEqual(t, n, acked, "an acknowledged version is lost; seed %d", seed)
		require.LessOrEqual(t, n, acked+1, "seed %d", seed)
		last = n

		names, err := durable.OS.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		temps += len(names) - 2
	}
	t.Logf("seed %d: %d kills, %d versions, %d left a temporary file", seed, kills, last, temps)
	require.Positive(t, last)
	require.NoError(t, durable.Recover(durable.OS, path))
	names, err := durable.OS.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, []string{"f", "f.lock"}, names)
}

// killOnce returns the last version that the killed process acknowledged.
func killOnce(t *testing.T, r *rand.Rand, path string) int {
	t.Helper()
	c := start(t, "write", path)
	acked := -1
	next := func() bool {
		line, ok := c.line()
		if !ok {
			return false
		}
		n, err := strconv.Atoi(line)
		require.NoError(t, err)
		if acked >= 0 {
			require.Equal(t, acked+1, n)
		}
		acked = n
		return true
	}
	for range 1 + r.IntN(10) {
		require.True(t, next(), "the process ended by itself")
	}
	killed := make(chan error, 1)
	time.AfterFunc(time.Duration(r.IntN(2000))*time.Microsecond, func() { killed <- c.cmd.Process.Signal(os.Kill) })
	for next() {
		continue
	}
	require.NoError(t, <-killed)
	require.Error(t, c.wait())
	return acked
}
