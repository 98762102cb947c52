package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
)

const maxEmpty = 100

var (
	errRead  = errors.New("stream: source returned an impossible count")
	errWrite = errors.New("stream: destination returned an impossible count")
)

// readFull reads until b is full or the source ends, which is io.EOF itself, as
// io.Reader has it: an error that wraps it is one like any other.
func readFull(r io.Reader, b []byte) (n int, end bool, err error) {
	for empty := 0; n < len(b); {
		m, err := r.Read(b[n:])
		if m < 0 || m > len(b)-n {
			return n, false, errRead
		}
		n += m
		switch {
		case n == len(b):
			return n, false, nil // the error, if any, comes again
		case err == io.EOF:
			return n, true, nil
		case err != nil:
			return n, false, notEnd(err)
		case m > 0:
			empty = 0
		default:
			if empty++; empty == maxEmpty {
				return n, false, io.ErrNoProgress
			}
		}
	}
	return n, false, nil
}

// notEnd makes sure that an error of a source or a destination does not match
// io.EOF.
func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return notEndError{err}
	}
	return err
}

// notEndError matches what the error in it matches, but not io.EOF. So it does not
// unwrap.
type notEndError struct{ err error }

func (e notEndError) Error() string { return e.err.Error() }

// Is is for [errors.Is].
func (e notEndError) Is(target error) bool { return target != io.EOF && errors.Is(e.err, target) }

// As is for [errors.As].
func (e notEndError) As(target any) bool { return errors.As(e.err, target) }

// done returns why a context is done, or nil. The cause is told, but not wrapped: it
// may be the end of a source, or the verdict on another stream, as with a group of
// goroutines that all stop at the first error.
func done(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != err { //nolint:errorlint // One that wraps it says more.
		return fmt.Errorf("stream: %w: %v", err, cause) //nolint:errorlint // It must not match.
	}
	return fmt.Errorf("stream: %w", err)
}
