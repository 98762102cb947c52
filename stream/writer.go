package stream

import (
	"context"
	"fmt"
	"io"

	"github.com/atrestdb/atrest/key"
)

// Writer seals what is written to it. It implements io.Writer and io.ReaderFrom,
// for use by one goroutine at a time.
//
// An error is final: what was written is not, and never becomes, a valid stream.
type Writer struct {
	ctx     context.Context
	w       io.Writer
	id      key.ID
	seg     *segments
	crew    *crew
	segment int
	fill    int    // bytes of plaintext in the slot that is next
	number  uint64 // of the segment that is next
	left    uint64 // bytes that may come yet
	err     error  // why no more can be written
	closed  bool   // by Close, without an error
}

var (
	_ io.WriteCloser = (*Writer)(nil)
	_ io.ReaderFrom  = (*Writer)(nil)
)

var errAborted = fmt.Errorf("%w: aborted", ErrClosed)

// NewWriter begins a stream to w and writes its header. The caller closes the
// Writer; w itself is never closed. The context counts until then: once it is done
// the next segment fails.
func NewWriter(ctx context.Context, w io.Writer, keys Keys, at Place, opts ...Option) (*Writer, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	if err := at.check(); err != nil {
		return nil, err
	}
	if err := done(ctx); err != nil {
		return nil, err
	}
	h := &header{segment: o.segment, label: at.Label, metadata: o.metadata}
	id, salt, k, err := keys.NewStreamKey()
	if err != nil {
		return nil, err
	}
	h.id, h.salt = id, salt
	b, seg, err := sealHeader(h.append(make([]byte, 0, h.size())), h, k, at.Data)
	if err != nil {
		return nil, err
	}
	seg.draw = o.random || draws(keys)
	s := &Writer{ctx: ctx, w: w, id: id, seg: seg, segment: o.segment, left: capacity(o.segment)}
	if err := s.put(b); err != nil {
		return nil, err
	}
	s.crew = newCrew(o.workers, o.segment+Overhead, func(s *slot) {
		s.out = seg.seal(s.buf, s.in, &s.aad, s.number, s.last)
	})
	return s, nil
}

// draws reports whether keys ask for random nonces.
func draws(keys Keys) bool {
	k, ok := keys.(interface{ RandomNonces() bool })
	return ok && k.RandomNonces()
}

// KeyID returns the key that the stream is sealed under.
func (s *Writer) KeyID() key.ID { return s.id }

// Write seals b. Bytes may stay in a buffer until the segment is full. The number
// that it returns is how many of b it took; with an error they may not have
// reached the destination.
func (s *Writer) Write(b []byte) (n int, err error) {
	if s.err != nil {
		return 0, s.err
	}
	lent := false // b is being read by the crew
	for n < len(b) && err == nil {
		switch {
		case s.left == 0:
			err = s.fail(ErrTooLong)
		case s.fill == 0 && len(b)-n >= s.segment && s.left >= uint64(s.segment) && s.lends(len(b)):
			lent = true
			s.left -= uint64(s.segment)
			n, err = n+s.segment, s.start(b[n:n+s.segment], false)
		default:
			m := copy(s.room(), b[n:])
			n, err = n+m, s.filled(m)
		}
	}
	if lent && err == nil {
		err = s.flush()
	}
	return n, err
}

// lends reports whether to seal right out of the n bytes of a caller. With several
// workers that is worth while if what the call must wait for at its end is little
// beside the rest.
func (s *Writer) lends(n int) bool {
	return s.crew.most == 0 || n >= 4*len(s.crew.ring)*s.segment
}

// ReadFrom seals what r has up to its end, which is io.EOF itself. Any other error
// of r, one that wraps io.EOF included, is returned, but does not match io.EOF, and
// is final for the Writer too: a stream that lacks some of its source must not
// become a valid one.
func (s *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	if s.err != nil {
		return 0, s.err
	}
	for empty := 0; ; {
		room := s.room()
		if len(room) == 0 {
			room = make([]byte, 1) // to see whether r has more
		}
		m, readErr := r.Read(room)
		switch {
		case m < 0 || m > len(room):
			return n, s.fail(errRead)
		case m > 0 && s.left == 0:
			return n, s.fail(ErrTooLong)
		case m > 0:
			empty = 0
		}
		n += int64(m)
		if err := s.filled(m); err != nil {
			return n, err
		}
		switch {
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, s.fail(notEnd(readErr))
		case m == 0:
			if empty++; empty == maxEmpty {
				return n, s.fail(io.ErrNoProgress)
			}
		}
	}
}

// room is where plaintext is collected; empty if the stream can get no longer.
func (s *Writer) room() []byte {
	buf := s.seg.plain(s.crew.free().buf, s.segment)[s.fill:]
	return buf[:min(uint64(len(buf)), s.left)]
}

// filled takes note of n bytes more in the room.
func (s *Writer) filled(n int) error {
	s.left -= uint64(n)
	s.fill += n
	if s.fill < s.segment {
		return nil
	}
	return s.start(s.seg.plain(s.crew.free().buf, s.segment), false)
}

// start has the next segment sealed, and writes one when all slots are in use.
func (s *Writer) start(plaintext []byte, last bool) error {
	if err := done(s.ctx); err != nil {
		return s.fail(err)
	}
	slot := s.crew.free()
	slot.in, slot.number, slot.last = plaintext, s.number, last
	s.fill = 0
	s.number++
	s.crew.start()
	if s.crew.full() {
		return s.write()
	}
	return nil
}

// write writes the oldest segment.
func (s *Writer) write() error {
	if err := s.put(s.crew.oldest().out); err != nil {
		return s.fail(err)
	}
	s.crew.release()
	return nil
}

// flush writes all segments that were started.
func (s *Writer) flush() error {
	for !s.crew.empty() {
		if err := s.write(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Writer) put(b []byte) error {
	n, err := s.w.Write(b)
	switch {
	case err != nil:
		return fmt.Errorf("stream: write: %w", notEnd(err))
	case n < 0 || n > len(b):
		return errWrite
	case n < len(b):
		return fmt.Errorf("stream: write: %w", io.ErrShortWrite)
	}
	return nil
}

func (s *Writer) fail(err error) error {
	s.err = err
	s.crew.stop()
	return err
}

// Close seals and writes the last segment. Only when it returns nil is the stream
// complete. After that it returns nil again.
//
// A deferred Close would complete a stream that was not written to its end: defer
// [Writer.Abort], and return the error of Close.
func (s *Writer) Close() error {
	switch {
	case s.closed:
		return nil
	case s.err != nil:
		return s.err
	}
	if err := s.start(s.seg.plain(s.crew.free().buf, s.fill), true); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.closed = true
	s.fail(ErrClosed) //nolint:errcheck // What later calls get.
	return nil
}

// Abort gives the stream up. What was written so far does not open as a whole
// stream. After Close it does nothing.
func (s *Writer) Abort() {
	if s.err == nil {
		s.fail(errAborted) //nolint:errcheck // What later calls get.
	}
}
