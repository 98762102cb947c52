package stream

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/atrestdb/atrest/key"
)

// cached is how many segments a ReaderAt keeps opened.
const cached = 4

// ReaderAt opens a stream anywhere. It is safe for concurrent use.
//
// Like a [Reader] it gives out authenticated bytes only, and nothing but the end of
// the plaintext is io.EOF. Its size is authentic as well; that the segments in
// between are all there shows when they are read.
type ReaderAt struct {
	ctx     context.Context
	r       io.ReaderAt
	h       *header
	seg     *segments
	head    int64 // length of the header
	segment int64
	last    int64 // number of the last segment
	tail    int64 // bytes of plaintext in it

	mu    sync.Mutex
	cache [cached]*opened
	clock uint64
	spare sync.Pool // of *opened
}

var _ io.ReaderAt = (*ReaderAt)(nil)

// opened is an opened segment. As long as it is pinned it stays that one.
type opened struct {
	number int64
	pins   int
	used   uint64

	mu    sync.Mutex // of the rest, until ready
	ready bool
	buf   []byte
	plain []byte
	aad   aad
}

// NewReaderAt reads the header of the stream that r holds in size bytes, and opens
// its last segment, so that one that was cut off is refused at once. The context
// counts as long as the ReaderAt is used. There is nothing to close.
func NewReaderAt(ctx context.Context, r io.ReaderAt, size int64, keys Keys, at Place) (*ReaderAt, error) {
	h, head, seg, err := begin(ctx, io.NewSectionReader(r, 0, size), keys, at)
	if err != nil {
		return nil, err
	}
	full := int64(h.segment) + Overhead
	body := size - int64(head)
	s := &ReaderAt{
		ctx: ctx, r: r, h: h, seg: seg,
		head: int64(head), segment: int64(h.segment), last: body / full, tail: body%full - Overhead,
	}
	if s.tail < 0 {
		return nil, errCut
	}
	if uint64(s.last) >= MaxSegments || uint64(s.Size()) > capacity(h.segment) {
		return nil, ErrTooLong
	}
	o, err := s.pin(s.last)
	if err != nil {
		return nil, err
	}
	s.unpin(o)
	return s, nil
}

// KeyID returns the key that the stream was sealed under.
func (s *ReaderAt) KeyID() key.ID { return s.h.id }

// Metadata returns the header's metadata, which is authentic. The caller must not
// change it.
func (s *ReaderAt) Metadata() []byte { return s.h.metadata }

// Size returns the length of the plaintext.
func (s *ReaderAt) Size() int64 { return s.last*s.segment + s.tail }

var errOffset = fmt.Errorf("%w: negative offset", ErrArgument)

// ReadAt reads plaintext as io.ReaderAt has it. It may use all of p while it runs.
func (s *ReaderAt) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errOffset
	}
	for n < len(p) {
		if off >= s.Size() {
			return n, io.EOF
		}
		m, err := s.readFrom(p[n:], off/s.segment, off%s.segment)
		if err != nil {
			return n, err
		}
		n, off = n+m, off+int64(m)
	}
	return n, nil
}

// readFrom reads what segment number has from offset at on.
func (s *ReaderAt) readFrom(p []byte, number, at int64) (int, error) {
	o, err := s.pin(number)
	if err != nil {
		return 0, err
	}
	defer s.unpin(o)
	return copy(p, o.plain[at:]), nil
}

// pin returns an opened segment that stays as it is until unpin. Who comes while
// another goroutine opens it waits for that.
func (s *ReaderAt) pin(number int64) (*opened, error) {
	o := s.take(number)
	if err := s.ready(o); err != nil {
		s.unpin(o)
		return nil, err
	}
	return o, nil
}

// take pins the place of a segment in the cache, the one that was not used for the
// longest time if it has none. With all of them pinned it is one of its own.
func (s *ReaderAt) take(number int64) *opened {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	oldest := -1
	for i, o := range s.cache {
		if o != nil && o.number == number {
			o.pins++
			o.used = s.clock
			return o
		}
		switch {
		case o != nil && o.pins > 0:
		case oldest < 0 || o == nil || s.cache[oldest] != nil && o.used < s.cache[oldest].used:
			oldest = i
		}
	}
	if oldest < 0 {
		o, ok := s.spare.Get().(*opened)
		if !ok {
			o = new(opened)
		}
		o.reset(number)
		return o
	}
	o := s.cache[oldest]
	if o == nil {
		o = new(opened)
		s.cache[oldest] = o
	}
	o.reset(number)
	o.used = s.clock
	return o
}

func (o *opened) reset(number int64) { o.number, o.pins, o.ready, o.plain = number, 1, false, nil }

func (s *ReaderAt) unpin(o *opened) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.pins--
	for _, c := range s.cache {
		if c == o {
			return
		}
	}
	s.spare.Put(o)
}

// ready opens a segment if nobody has yet.
func (s *ReaderAt) ready(o *opened) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ready {
		return nil
	}
	if err := done(s.ctx); err != nil {
		return err
	}
	full := s.segment + Overhead
	size := full
	if o.number == s.last {
		size = s.tail + Overhead
	}
	if int64(cap(o.buf)) < size {
		o.buf = make([]byte, size)
	}
	sealed := o.buf[:size]
	switch n, err := s.r.ReadAt(sealed, s.head+o.number*full); {
	case n == len(sealed):
	case n < 0 || n > len(sealed):
		return errRead
	case err == nil || err == io.EOF:
		return errCut
	default:
		return fmt.Errorf("stream: read: %w", notEnd(err))
	}
	plain, err := s.seg.open(nil, sealed, &o.aad, uint64(o.number), o.number == s.last)
	if err != nil {
		return err
	}
	o.plain, o.ready = plain, true
	return nil
}
