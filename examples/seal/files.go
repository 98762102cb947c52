package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

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
		return &input{name: "standard input", r: &pipe{ctx: ctx, r: j.stdin}, size: -1, close: func() {}}, nil
	}
	f, err := os.Open(j.in)
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
		in.r = &pipe{ctx: ctx, r: f}
	}
	return in, nil
}

// A pipe can be given up while nothing comes from it.
type pipe struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (p *pipe) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	type result struct {
		b   []byte
		err error
	}
	done := make(chan result, 1)
	buf := make([]byte, len(b)) // not b, which is the caller's again when this returns
	go func() {
		n, err := p.r.Read(buf)
		done <- result{buf[:n], err}
	}()
	select {
	case r := <-done:
		return copy(b, r.b), r.err
	case <-p.ctx.Done():
		p.err = p.ctx.Err()
		return 0, p.err
	}
}

// A counted reader moves a bar.
type counted struct {
	r io.Reader
	b bars.Bar
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.b.Add(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readError{err}
	}
	return n, err
}

// checkFree refuses to replace a file.
func checkFree(out string) error {
	if out == "-" {
		return nil
	}
	switch _, err := os.Lstat(out); {
	case err == nil:
		return refuse("-out %s exists, and is not replaced", out)
	case !errors.Is(err, fs.ErrNotExist):
		return refuse("-out %s cannot be made: %w", out, reason(err))
	}
	return nil
}

func (j *job) sealing(ctx context.Context, in *input, keks *kek.Set) error {
	b := j.progress(ctx, "sealing", in.size)
	defer b.Done()
	err := seal(ctx, counted{in.r, b}, keks, func(keys *keystore.Store, opts ...stream.Option) (sink, error) {
		if j.out == "-" {
			return stream.NewWriter(ctx, j.stdout, keys, place, opts...)
		}
		w, err := stream.CreateFile(ctx, j.out, keys, place, opts...)
		if err != nil {
			return nil, refuse("-out %s cannot be made: %w", j.out, reason(err))
		}
		return w, nil
	})
	return j.told(in, err)
}

func (j *job) opening(ctx context.Context, in *input, keks *kek.Set) error {
	b := j.progress(ctx, "opening", in.size)
	defer b.Done()
	r, err := open(ctx, counted{in.r, b}, keks)
	if err != nil {
		return j.told(in, err)
	}
	if j.out == "-" {
		_, err := r.WriteTo(j.stdout)
		return j.told(in, err)
	}
	w, err := createClear(j.out)
	if err != nil {
		return refuse("-out %s cannot be made: %w", j.out, reason(err))
	}
	defer w.abort()
	if _, err := r.WriteTo(w.f); err != nil {
		return j.told(in, err)
	}
	return j.told(in, w.commit(j.out))
}

// A clearFile has a name that nobody looks for until all of it is there.
type clearFile struct{ f *os.File }

func createClear(path string) (*clearFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	return &clearFile{f}, err
}

func (c *clearFile) abort() {
	if c.f != nil {
		_ = c.f.Close()
		_ = os.Remove(c.f.Name())
	}
}

func (c *clearFile) commit(path string) error {
	if err := errors.Join(c.f.Sync(), c.f.Close()); err != nil {
		return err
	}
	if err := os.Rename(c.f.Name(), path); err != nil {
		return err
	}
	c.f = nil
	return nil
}

// told says in one sentence what is wrong, and who has to do something about it.
func (j *job) told(in *input, err error) error {
	_, reading := errors.AsType[readError](err)
	_, container := errors.AsType[*kek.UnwrapError](err)
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
	case container:
		return fmt.Errorf("-kek %s cannot be asked: %w", j.kek, err)
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
