package stream

import (
	"context"
	"io"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
)

// ParsedHeader is all of a header, for tests of the parser.
type ParsedHeader struct {
	ID       key.ID
	Segment  int
	Label    string
	Metadata []byte
}

// ParseHeader parses what r begins with and returns it with its bytes, and with
// what it marshals to before it is sealed.
func ParseHeader(r io.Reader) (h ParsedHeader, whole, again []byte, err error) {
	p, b, err := readHeader(r)
	if err != nil {
		return ParsedHeader{}, nil, nil, err
	}
	return ParsedHeader{ID: p.id, Segment: p.segment, Label: p.label, Metadata: p.metadata}, b, p.append(nil), nil
}

// SetNumber makes a writer that has written nothing go on as if it had written so
// many full segments.
func SetNumber(w *Writer, number uint64) {
	w.number = number
	w.left = capacity(w.segment) - number*uint64(w.segment)
}

// SetReaderNumber makes a reader expect that segment next.
func SetReaderNumber(r *Reader, number uint64) { r.number = number }

// Capacity is how many bytes fit into a stream.
var Capacity = capacity

// CreateFileOn and the like work on any file system.
func CreateFileOn(ctx context.Context, fsys durable.FS, path string, keys Keys, at Place, opts ...Option) (*FileWriter, error) {
	return createFile(ctx, fsys, path, keys, at, opts)
}

func WriteFileOn(ctx context.Context, fsys durable.FS, path string, src io.Reader, keys Keys, at Place, opts ...Option) error {
	return writeFile(ctx, fsys, path, src, keys, at, opts)
}

func OpenFileOn(ctx context.Context, fsys durable.FS, path string, keys Keys, at Place, opts ...Option) (*FileReader, error) {
	return openFile(ctx, fsys, path, keys, at, opts)
}

func OpenFileAtOn(ctx context.Context, fsys durable.FS, path string, keys Keys, at Place) (*FileReaderAt, error) {
	return openFileAt(ctx, fsys, path, keys, at)
}
