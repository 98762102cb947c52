// Quickstart stores a directory of real files sealed in a Pebble database,
// rotates the key half way, closes and opens everything again, compares every
// file with what comes back, and then searches the disk for anything that
// should not lie there in clear.
//
//	go run ./quickstart -in DIR -out DIR2 -kek FILE
//
// How a program uses atrest is in store.go. Values are sealed, keys are not:
// the paths of the files can be read by anyone who has the disk.
//
// A search that finds nothing proves something only if it would have found
// what is there, so the same search is run over an unsealed copy, which is
// removed afterwards.
//
// The exit code is 0 if all is well, 1 if a file differs, something lies in
// clear, the control fails or an earlier run did not finish, 2 if the program
// cannot do its work, and 130 if it was interrupted.
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

const (
	exitFailed      = 1
	exitRefused     = 2
	exitInterrupted = 130
)

// errFailed is the verdict that something is wrong with the data.
var errFailed = errors.New("FAILED")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr, bars.Terminal(os.Stderr))
	stop()
	os.Exit(code)
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, p bars.Start) int {
	j := job{stdout: stdout, progress: p}
	err := j.parse(args)
	if err == nil {
		err = j.run(ctx)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "quickstart: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "quickstart: "+oneLine(err))
	if errors.Is(err, errFailed) {
		return exitFailed
	}
	return exitRefused
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func (j *job) parse(args []string) error {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&j.in, "in", "", "directory of files to store (default: the source tree of the Go standard library,\nor what -out was filled from)")
	flags.StringVar(&j.out, "out", "", "directory of the sealed store (default: a new temporary directory)")
	flags.StringVar(&j.kek, "kek", "", "file with the 32 bytes of the key encryption key, made if -out is new\n(default: the path of -out with .kek at its end)")
	flags.Uint64Var(&j.seed, "seed", 0, "seed of the random samples (default: a random one)")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(j.stdout, "Usage: quickstart [-in DIR] [-out DIR] [-kek FILE] [-seed N]")
		flags.SetOutput(j.stdout)
		flags.PrintDefaults()
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		return err
	}
	if j.seed == 0 {
		var b [8]byte
		rand.Read(b[:])
		j.seed = binary.LittleEndian.Uint64(b[:])
	}
	if j.kek == "" && j.out != "" {
		j.kek = filepath.Clean(j.out) + ".kek"
	}
	return nil
}

// defaultInput is the source tree of the standard library.
func defaultInput(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("the Go source tree was not found, name a directory with -in: go env GOROOT: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "src"), nil
}
