package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/atrestdb/atrest/examples/internal/bars"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// An input is a file or a pipe.
type input struct {
	name  string
	r     io.Reader
	size  int64 // -1 if nobody knows
	close func()
}

// A readError is about the input.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

func (j *job) input(ctx context.Context) (*input, error) {
	if j.in == "-" {
		return &input{name: "standard input", r: pipe{ctx: ctx, r: j.stdin}, size: -1, close: func() {}}, nil
	}
	// A named pipe opens when somebody opens its other end.
	f, err := await(ctx, func() (*os.File, error) { return os.Open(j.in) })
	if err != nil {
		return nil, refuse("-in %s cannot be read: %w", j.in, reason(err))
	}
	in := &input{name: "-in " + j.in, r: f, size: -1, close: func() { _ = f.Close() }}
	info, err := f.Stat()
	switch {
	case err == nil && info.IsDir():
		err = errors.New("it is a directory")
		fallthrough
	case err != nil:
		in.close()
		return nil, refuse("%s cannot be read: %w", in.name, reason(err))
	case info.Mode().IsRegular():
		in.size = info.Size()
	default:
		in.r = pipe{ctx: ctx, r: f}
	}
	return in, nil
}

// A counted reader moves a bar.
type counted struct {
	r io.Reader
	b bars.Bar
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.b.Add(n)
	if err != nil && err != io.EOF { // an error around io.EOF is not the end
		err = readError{err}
	}
	return n, err
}

// into lets fill write the output, and a file only appears if it has.
func (j *job) into(ctx context.Context, fill func(io.Writer) error) error {
	if j.out == "-" {
		return fill(pipe{ctx: ctx, w: j.stdout})
	}
	f, err := create(j.out)
	if err != nil {
		return refuse("-out %s cannot be made: %w", j.out, reason(err))
	}
	defer f.abort()
	if err := fill(f); err != nil {
		return err
	}
	return f.commit()
}

func (j *job) sealing(ctx context.Context, in *input, keks *kek.Set) error {
	b := j.progress(ctx, "sealing", in.size)
	defer b.Done()
	return j.told(in, j.into(ctx, func(w io.Writer) error {
		return seal(ctx, w, counted{in.r, b}, keks)
	}))
}

func (j *job) opening(ctx context.Context, in *input, keks *kek.Set) error {
	b := j.progress(ctx, "opening", in.size)
	defer b.Done()
	r, err := open(ctx, counted{in.r, b}, keks)
	if err != nil {
		return j.told(in, err)
	}
	return j.told(in, j.into(ctx, func(w io.Writer) error {
		_, err := r.WriteTo(w)
		return err
	}))
}

// told says in one sentence what is wrong, and who has to do something about it.
func (j *job) told(in *input, err error) error {
	_, reading := errors.AsType[readError](err)
	switch {
	case err == nil, errors.As(err, new(refusal)):
		return err
	case reading:
		return fmt.Errorf("%s cannot be read to its end: %w", in.name, reason(err))
	case !j.open:
		return fmt.Errorf("%s cannot be written: %w", j.output(), reason(err))
	case errors.Is(err, stream.ErrUnsupported):
		return refuse("%s was sealed by a later version of this program", in.name)
	case errors.Is(err, stream.ErrFormat), errors.Is(err, stream.ErrLabel):
		return refuse("%s was not sealed by this program, or its beginning is damaged", in.name)
	case errors.Is(err, kek.ErrWrongKey):
		return refuse("%s does not open with -kek %s: it was sealed under another KEK, or its beginning is damaged", in.name, j.kek)
	case errors.Is(err, stream.ErrIntegrity), errors.Is(err, keystore.ErrUnknownKey), errors.Is(err, keystore.ErrPurpose), errors.Is(err, key.ErrContainer):
		return refuse("%s is damaged or incomplete, so %s", in.name, j.left())
	}
	return fmt.Errorf("%s cannot be written: %w", j.output(), reason(err))
}

func (j *job) output() string {
	if j.out == "-" {
		return "standard output"
	}
	return "-out " + j.out
}

// left is what is there of a damaged file.
func (j *job) left() string {
	if j.out == "-" {
		return "what came out before is authentic, but not all of it"
	}
	return "nothing was written"
}

// reason drops from an error of package os what the sentence around it says.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}
