package stream

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
)

// ErrOutcomeUnknown says that replacing a file failed at the end: it is the old one
// or the new one, and either may be back after a power loss. Nobody may act on it
// until [RecoverFile] has returned nil and the file was read.
var ErrOutcomeUnknown = durable.ErrOutcomeUnknown

// ErrNotRegular says that a path names something else than a regular file, such as
// a directory or a symbolic link.
var ErrNotRegular = durable.ErrNotRegular

// fileError is an error of package durable under this package's name.
type fileError struct{ err error }

func (e fileError) Error() string { return "stream: " + strings.TrimPrefix(e.err.Error(), "durable: ") }
func (e fileError) Unwrap() error { return e.err }

// FileWriter is a [Writer] to a file. The file appears under its name, or takes the
// place of an older one, when Close has sealed the stream; until then it has a name
// that nobody looks for.
type FileWriter struct {
	w *Writer
	f *durable.Replacement
}

var (
	_ io.WriteCloser = (*FileWriter)(nil)
	_ io.ReaderFrom  = (*FileWriter)(nil)
)

// CreateFile begins a stream to a file with mode 0600. The caller closes it, or
// gives it up with Abort. One process at a time does this with a path. Where the
// path is a symbolic link, the file takes the place of the link, and what the link
// points to stays as it is.
func CreateFile(ctx context.Context, path string, keys Keys, at Place, opts ...Option) (*FileWriter, error) {
	return createFile(ctx, durable.OS, path, keys, at, opts)
}

func createFile(ctx context.Context, fsys durable.FS, path string, keys Keys, at Place, opts []Option) (*FileWriter, error) {
	f, err := durable.Replace(fsys, path)
	if err != nil {
		return nil, fileError{err}
	}
	w, err := NewWriter(ctx, f, keys, at, opts...)
	if err != nil {
		f.Abort()
		return nil, err
	}
	return &FileWriter{w: w, f: f}, nil
}

// KeyID is [Writer.KeyID].
func (f *FileWriter) KeyID() key.ID { return f.w.KeyID() }

// Write is [Writer.Write].
func (f *FileWriter) Write(b []byte) (int, error) { return f.w.Write(b) }

// ReadFrom is [Writer.ReadFrom].
func (f *FileWriter) ReadFrom(r io.Reader) (int64, error) { return f.w.ReadFrom(r) }

// Close seals the last segment and puts the file in its place. When it returns nil
// the file survives a power loss. When the error matches [ErrOutcomeUnknown], see
// there; after any other the old file is there, untouched.
func (f *FileWriter) Close() error {
	if err := f.w.Close(); err != nil {
		f.f.Abort()
		return err
	}
	if err := f.f.Commit(); err != nil {
		return fileError{err}
	}
	return nil
}

// Abort removes what was written and leaves the old file. After Close it does
// nothing.
func (f *FileWriter) Abort() {
	f.w.Abort()
	f.f.Abort()
}

// WriteFile seals what src has up to its end into the file at path, which it
// replaces or creates. What it returns means what it means for [FileWriter.Close].
func WriteFile(ctx context.Context, path string, src io.Reader, keys Keys, at Place, opts ...Option) error {
	return writeFile(ctx, durable.OS, path, src, keys, at, opts)
}

func writeFile(ctx context.Context, fsys durable.FS, path string, src io.Reader, keys Keys, at Place, opts []Option) error {
	f, err := createFile(ctx, fsys, path, keys, at, opts)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.ReadFrom(src); err != nil {
		return err
	}
	return f.Close()
}

// RecoverFile makes the file at path safe to act on after a process died, or met
// [ErrOutcomeUnknown], while it was replacing it: it removes what such a process
// left beside it. Nobody may be replacing the file meanwhile.
func RecoverFile(path string) error {
	if err := durable.Recover(durable.OS, path); err != nil {
		return fileError{err}
	}
	return nil
}

// FileReader is a [Reader] of a file.
type FileReader struct {
	*Reader
	f durable.File
}

// OpenFile opens the stream in the regular file at path. The caller closes it.
// Anything else at path is [ErrNotRegular], a symbolic link included, whatever it
// points to; the folders on the way to it may be links.
func OpenFile(ctx context.Context, path string, keys Keys, at Place, opts ...Option) (*FileReader, error) {
	return openFile(ctx, durable.OS, path, keys, at, opts)
}

func openFile(ctx context.Context, fsys durable.FS, path string, keys Keys, at Place, opts []Option) (*FileReader, error) {
	f, _, err := durable.OpenRead(fsys, path)
	if err != nil {
		return nil, fileError{err}
	}
	r, err := NewReader(ctx, f, keys, at, opts...)
	if err != nil {
		f.Close() //nolint:errcheck // Nothing was written.
		return nil, err
	}
	return &FileReader{Reader: r, f: f}, nil
}

// Close closes the file.
func (f *FileReader) Close() error { return f.f.Close() }

// FileReaderAt is a [ReaderAt] of a file.
type FileReaderAt struct {
	*ReaderAt
	f durable.File
}

var errNoReadAt = errors.New("stream: file cannot be read at an offset")

// OpenFileAt opens the stream in the regular file at path, as [OpenFile] does, for
// reading anywhere. The caller closes it.
func OpenFileAt(ctx context.Context, path string, keys Keys, at Place) (*FileReaderAt, error) {
	return openFileAt(ctx, durable.OS, path, keys, at)
}

func openFileAt(ctx context.Context, fsys durable.FS, path string, keys Keys, at Place) (*FileReaderAt, error) {
	f, size, err := durable.OpenRead(fsys, path)
	if err != nil {
		return nil, fileError{err}
	}
	r, ok := f.(io.ReaderAt)
	if !ok {
		f.Close() //nolint:errcheck // Nothing was written.
		return nil, errNoReadAt
	}
	s, err := NewReaderAt(ctx, r, size, keys, at)
	if err != nil {
		f.Close() //nolint:errcheck // Nothing was written.
		return nil, err
	}
	return &FileReaderAt{ReaderAt: s, f: f}, nil
}

// Close closes the file.
func (f *FileReaderAt) Close() error { return f.f.Close() }
