// Seal seals a file or a pipe, and opens what it has sealed.
//
//	go run ./seal -kek FILE [-in FILE] [-out FILE]
//	go run ./seal -kek FILE -open [-in FILE] [-out FILE]
//
// A name that is "-" or missing is standard input or output. The KEK is a file of 32
// random bytes that nobody else may read:
//
//	(umask 077; head -c 32 /dev/urandom > FILE)
//
// Without any argument the program shows on a temporary file what it does. How it uses
// atrest is in seal.go.
//
// A file appears under the name of -out when it is complete, and not before, and takes the
// place of no other; only where the file system has no links, as on FAT, one that comes
// in the very last moment is replaced. What goes to a pipe while a damaged file is opened is
// authentic, but not all of it: the exit code says so.
//
// An interrupt, SIGTERM or SIGHUP leaves nothing. A program that is killed, or loses power,
// leaves OUT.*.tmp beside -out OUT, in the clear if it was opening. The next run that makes
// OUT removes it; when several make OUT at once, one does, and the others fail.
//
// The exit code is 0 if all is well, 2 if what was given is not as it must be, such as a
// damaged file or the wrong KEK, 1 if something else is in the way, such as a full disk, and
// 130 if the program was interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

const (
	exitFailed      = 1
	exitRefused     = 2
	exitInterrupted = 130
)

// A refusal is about what the program was given.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, bars.Terminal(os.Stderr))
	stop()
	os.Exit(code)
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, p bars.Start) int {
	j := job{stdin: stdin, stdout: stdout, progress: p}
	err := j.parse(args)
	switch {
	case err != nil:
	case len(args) == 0:
		err = demonstrate(ctx, stdout, p)
	default:
		err = j.run(ctx)
	}
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "seal: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(stderr, "seal: "+strings.Join(strings.Fields(err.Error()), " "))
	if _, ok := errors.AsType[refusal](err); ok {
		return exitRefused
	}
	return exitFailed
}

// A job is one run of the program.
type job struct {
	kek, in, out string
	open         bool
	stdin        io.Reader
	stdout       io.Writer
	progress     bars.Start
}

func (j *job) parse(args []string) error {
	flags := flag.NewFlagSet("seal", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&j.kek, "kek", "", "file with the 32 bytes of the key encryption key")
	flags.BoolVar(&j.open, "open", false, "open instead of seal")
	flags.StringVar(&j.in, "in", "-", "file to read, - for standard input")
	flags.StringVar(&j.out, "out", "-", "file to make, - for standard output")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(j.stdout, "Usage: seal -kek FILE [-open] [-in FILE] [-out FILE]")
		flags.SetOutput(j.stdout)
		flags.PrintDefaults()
		fmt.Fprintln(j.stdout, "Nothing is replaced. A run that is killed leaves OUT.*.tmp beside -out OUT, in the clear\n"+
			"if it was opening, which the next run that makes OUT removes.")
		return err
	case err != nil:
		return refusal{err}
	case flags.NArg() > 0:
		return refuse("unexpected argument %q", flags.Arg(0))
	case j.in == "" || j.out == "":
		return refuse("-in and -out need a name, or - for standard input and output")
	case j.kek == "" && len(args) > 0:
		return refuse("-kek is needed: a file of 32 random bytes that nobody else may read")
	}
	return nil
}

func (j *job) run(ctx context.Context) error {
	if j.out == "-" && isTerminal(j.stdout) {
		if !j.open {
			return refuse("what is sealed is not for a terminal: give -out FILE, or a pipe")
		}
		j.progress = bars.Silent // which would be drawn into what is opened
	}
	keks, err := readKEK(j.kek)
	if err != nil {
		return err
	}
	in, err := j.input(ctx)
	if err != nil {
		return err
	}
	defer in.close()
	if j.out != "-" {
		if err := checkFree(j.out); err != nil { // now rather than after all the work
			return err
		}
	}
	if j.open {
		return j.opening(ctx, in, keks)
	}
	return j.sealing(ctx, in, keks)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
