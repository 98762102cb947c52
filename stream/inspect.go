package stream

import (
	"context"
	"io"

	"github.com/atrestdb/atrest/key"
)

// Header is what the header of a stream says in the clear, without its metadata.
type Header struct {
	KeyID       key.ID // of the storage key that the stream needs
	Suite       byte   // 1: AES-256-GCM
	SegmentSize int
	Label       string
}

func (h *header) public() Header {
	return Header{KeyID: h.id, Suite: suiteGCM, SegmentSize: h.segment, Label: h.label}
}

// ReadHeader reads the header that r begins with, and needs no key: it tells which
// key a stream cannot do without. Nothing of it is authenticated. Whoever can write
// the stream can write what he likes there, so it shows which key to look for, and
// not that a key is needed no more. It leaves out the metadata, which only a [Reader]
// shows, and reads no more than the header, of at most 17 KiB.
func ReadHeader(r io.Reader) (Header, error) {
	h, _, err := readHeader(r)
	if err != nil {
		return Header{}, err
	}
	return h.public(), nil
}

// Verify reads a stream to its end as a [Reader] does, and keeps nothing of it. When
// it returns nil, the stream is whole and opens in this place with these keys, and
// the header is authentic.
func Verify(ctx context.Context, r io.Reader, keys Keys, at Place, opts ...Option) (Header, error) {
	s, err := NewReader(ctx, r, keys, at, opts...)
	if err != nil {
		return Header{}, err
	}
	if _, err := s.WriteTo(io.Discard); err != nil {
		return Header{}, err
	}
	return s.h.public(), nil
}
