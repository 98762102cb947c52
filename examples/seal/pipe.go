package main

import (
	"bytes"
	"context"
	"io"
)

// await runs a system call that may wait for the other end of a pipe, and gives it up when
// the context is done.
func await[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	var none T
	if err := ctx.Err(); err != nil { // the call before may still be running
		return none, err
	}
	go func() {
		v, err := call()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// A pipe can be given up while nothing comes from it or goes into it. The calls have
// buffers of their own, because the caller's is the caller's again when it gets an error.
type pipe struct {
	ctx context.Context
	r   io.Reader
	w   io.Writer
}

func (p pipe) Read(b []byte) (int, error) {
	buf := make([]byte, len(b))
	n, err := await(p.ctx, func() (int, error) { return p.r.Read(buf) })
	return copy(b, buf[:n]), err
}

func (p pipe) Write(b []byte) (int, error) {
	buf := bytes.Clone(b)
	return await(p.ctx, func() (int, error) { return p.w.Write(buf) })
}
