package stream

import (
	"context"
	"fmt"
	"io"

	"github.com/atrestdb/atrest/key"
)

// Reader opens a stream. It implements io.Reader and io.WriterTo, for use by one
// goroutine at a time, and may be dropped at any time.
//
// It never gives out a byte that was not authenticated, and io.EOF means that the
// stream is complete and that its source has no more. Any other error is final:
// what was read before it is what was sealed, but not all of it. No other error
// matches io.EOF, whatever the source, the destination of WriteTo or the context had
// to say.
type Reader struct {
	ctx     context.Context
	r       io.Reader
	h       *header
	seg     *segments
	crew    *crew
	segment int
	number  uint64 // of the segment that is next
	rest    []byte // of the oldest slot, not given out yet
	held    bool   // the oldest slot is being given out
	end     error  // what comes behind the segments at hand, nil: more
	err     error  // why there is no more
}

var _ io.WriterTo = (*Reader)(nil)

// NewReader reads the header of a stream from r, and returns a Reader of what was
// sealed for the place. The stream has to end where r does. The context counts as
// long as the Reader is used.
func NewReader(ctx context.Context, r io.Reader, keys Keys, at Place, opts ...Option) (*Reader, error) {
	o, err := readOptions(opts)
	if err != nil {
		return nil, err
	}
	h, _, seg, err := begin(ctx, r, keys, at)
	if err != nil {
		return nil, err
	}
	s := &Reader{ctx: ctx, r: r, h: h, seg: seg, segment: h.segment}
	s.crew = newCrew(o.workers, h.segment+Overhead, func(s *slot) {
		s.out, s.err = seg.open(s.dst, s.in, &s.aad, s.number, s.last)
	})
	return s, nil
}

// begin reads and opens a header, and says how long it is.
func begin(ctx context.Context, r io.Reader, keys Keys, at Place) (*header, int, *segments, error) {
	if err := at.check(); err != nil {
		return nil, 0, nil, err
	}
	if err := done(ctx); err != nil {
		return nil, 0, nil, err
	}
	h, b, err := readHeader(r)
	if err != nil {
		return nil, 0, nil, err
	}
	if h.label != at.Label {
		return nil, 0, nil, fmt.Errorf("%w: %q, not %q", ErrLabel, h.label, at.Label)
	}
	k, err := keys.StreamKey(h.id, h.salt)
	if err != nil {
		return nil, 0, nil, err
	}
	seg, err := openHeader(b, h, k, at.Data)
	if err != nil {
		return nil, 0, nil, err
	}
	return h, len(b), seg, nil
}

// KeyID returns the key that the stream was sealed under.
func (s *Reader) KeyID() key.ID { return s.h.id }

// Metadata returns the header's metadata, which is authentic. The caller must not
// change it.
func (s *Reader) Metadata() []byte { return s.h.metadata }

// Read reads up to len(p) bytes of plaintext, of one segment at most. It may use
// all of p while it runs.
func (s *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		var dst []byte
		if s.crew.most == 0 && len(p) >= s.segment {
			dst = p[:s.segment:s.segment]
		}
		if err := s.next(dst); err != nil {
			return 0, err
		}
		if dst != nil && len(s.rest) > 0 {
			n := len(s.rest)
			s.rest = nil
			return n, nil
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// WriteTo writes what is left of the plaintext to w. After an error of w the rest
// can still be read.
func (s *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		for len(s.rest) == 0 {
			if s.err == nil {
				s.next(nil) //nolint:errcheck // It is in s.err.
			}
			switch {
			case s.err == io.EOF: //nolint:errorlint // Nothing else is complete.
				return n, nil
			case s.err != nil:
				return n, s.err
			}
		}
		m, err := w.Write(s.rest)
		if m < 0 || m > len(s.rest) {
			return n, errWrite
		}
		n += int64(m)
		s.rest = s.rest[m:]
		switch {
		case err != nil:
			return n, notEnd(err)
		case len(s.rest) > 0:
			return n, io.ErrShortWrite
		}
	}
}

// next makes rest the plaintext of the next segment, which can be empty. It is
// opened into dst if that is not nil.
func (s *Reader) next(dst []byte) error {
	if s.held {
		s.held = false
		s.crew.release()
	}
	for s.end == nil && !s.crew.full() {
		s.end = s.fetch(dst)
	}
	if s.crew.empty() {
		return s.fail(s.end)
	}
	if err := done(s.ctx); err != nil {
		return s.fail(err)
	}
	slot := s.crew.oldest()
	if slot.err != nil {
		return s.fail(slot.err)
	}
	s.rest, s.held = slot.out, true
	return nil
}

// fetch reads a segment and has it opened. It returns what comes behind it, if
// that is known.
func (s *Reader) fetch(dst []byte) error {
	if err := done(s.ctx); err != nil {
		return err
	}
	slot := s.crew.free()
	n, end, err := readFull(s.r, slot.buf)
	switch {
	case err != nil:
		return fmt.Errorf("stream: read: %w", err)
	case n < Overhead:
		return errCut
	case s.number*uint64(s.segment)+uint64(n-Overhead) > capacity(s.segment):
		return ErrTooLong
	}
	slot.in, slot.dst, slot.number, slot.last = slot.buf[:n], dst, s.number, end
	s.number++
	s.crew.start()
	if end {
		return io.EOF
	}
	return nil
}

// errCut is not about cryptography: anybody can count.
var errCut = fmt.Errorf("%w: it ends before its last segment", ErrIntegrity)

func (s *Reader) fail(err error) error {
	s.err, s.rest, s.held = err, nil, false
	s.crew.stop()
	return err
}
