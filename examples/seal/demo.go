package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/atrestdb/atrest/examples/internal/bars"
)

const demoSize = 1 << 20

// demonstrate seals a temporary file, opens it, and damages it.
func demonstrate(ctx context.Context, stdout io.Writer, p bars.Start) error {
	dir, err := os.MkdirTemp("", "atrest-seal-")
	if err != nil {
		return err
	}
	err = demonstrateIn(ctx, dir, stdout, p)
	return errors.Join(err, os.RemoveAll(dir))
}

func demonstrateIn(ctx context.Context, dir string, stdout io.Writer, p bars.Start) error {
	say := func(format string, args ...any) { fmt.Fprintf(stdout, format+"\n", args...) }
	at := func(name string) string { return filepath.Join(dir, name) }
	plain := make([]byte, demoSize)
	rand.Read(plain)
	master := make([]byte, 32)
	rand.Read(master)
	if err := errors.Join(os.WriteFile(at("kek"), master, 0o600), os.WriteFile(at("clear"), plain, 0o600)); err != nil {
		return err
	}
	do := func(open bool, in, out string) error {
		j := job{kek: at("kek"), open: open, in: at(in), out: at(out), stdout: io.Discard, progress: p}
		return j.run(ctx)
	}

	if err := do(false, "clear", "sealed"); err != nil {
		return err
	}
	sealed, err := os.Stat(at("sealed"))
	if err != nil {
		return err
	}
	say("sealed   %d bytes as %d", len(plain), sealed.Size())

	if err := do(true, "sealed", "opened"); err != nil {
		return err
	}
	opened, err := os.ReadFile(at("opened"))
	if err != nil {
		return err
	}
	if !bytes.Equal(plain, opened) {
		return errors.New("what was opened is not what was sealed")
	}
	say("opened   all %d bytes are what they were", len(opened))

	if err := flip(at("sealed"), sealed.Size()/2); err != nil {
		return err
	}
	say("damaged  one bit in the middle")
	err = do(true, "sealed", "opened again")
	if err == nil || !errors.As(err, new(refusal)) {
		return errors.Join(errors.New("a damaged file was not refused"), err)
	}
	if _, err := os.Lstat(at("opened again")); err == nil {
		return errors.New("something of a damaged file was left")
	}
	say("refused  it is damaged, and nothing of it was left")
	return nil
}

// flip changes a bit of a file.
func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	if err == nil {
		b[0] ^= 1
		_, err = f.WriteAt(b[:], at)
	}
	return errors.Join(err, f.Close())
}
