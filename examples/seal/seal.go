package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// place is what every stream of this program is bound to. A program that knows where a
// file belongs puts that into Data.
var place = stream.Place{Label: "examples/seal"}

// workers is how many segments are sealed or opened at once.
var workers = stream.WithWorkers(min(4, runtime.GOMAXPROCS(0)))

// readKEK reads the key that wraps the others.
func readKEK(path string) (*kek.Set, error) {
	k, err := kek.File(path)
	if err != nil {
		return nil, refuse("-kek %s cannot be used: %w", path, reason(err))
	}
	return kek.NewSet(k)
}

// newKeys makes a DEK for one stream, and the container with the DEK in it, wrapped:
// who has the KEK and the container has the DEK.
func newKeys(ctx context.Context, keks *kek.Set) (keys *keystore.Store, container []byte, err error) {
	id, dek := key.NewID(), key.NewDEK()
	if container, err = keks.WrapDEK(ctx, key.NewClusterID(), id, key.Storage, dek); err != nil {
		return nil, nil, err
	}
	if keys, err = keystore.New(); err != nil {
		return nil, nil, err
	}
	return keys, container, errors.Join(keys.Install(id, key.Storage, dek), keys.Activate(id))
}

// keysOf takes the DEK from the container.
func keysOf(ctx context.Context, keks *kek.Set, container []byte) (*keystore.Store, error) {
	h, dek, err := keks.UnwrapDEK(ctx, container)
	if err != nil {
		return nil, err
	}
	keys, err := keystore.New()
	if err != nil {
		return nil, err
	}
	err = keys.Install(h.ID, h.Purpose, dek)
	return keys, err
}

// A sink takes a stream. Nothing is there before Close, if it is a file.
type sink interface {
	io.ReaderFrom
	Close() error
	Abort()
}

// seal seals what r has. The wrapped DEK goes into the stream's metadata, so that the
// stream needs nothing but the KEK to open.
func seal(ctx context.Context, r io.Reader, keks *kek.Set, create func(keys *keystore.Store, opts ...stream.Option) (sink, error)) error {
	keys, container, err := newKeys(ctx, keks)
	if err != nil {
		return err
	}
	w, err := create(keys, stream.WithMetadata(container), workers)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.ReadFrom(r); err != nil {
		return err
	}
	return w.Close()
}

// open begins to open a stream.
func open(ctx context.Context, r io.Reader, keks *kek.Set) (*stream.Reader, error) {
	b := bufio.NewReaderSize(r, headSize)
	container, err := metadata(b)
	if err != nil {
		return nil, err
	}
	keys, err := keysOf(ctx, keks, container)
	if err != nil {
		return nil, err
	}
	return stream.NewReader(ctx, b, keys, place, workers)
}

// The head of a stream, see docs/FORMATS.md: 48 bytes, the label, the metadata.
const (
	fixedSize = 48
	headSize  = fixedSize + stream.MaxLabel + stream.MaxMetadata
)

// metadata looks ahead for the metadata of a stream, which are not authentic yet: they are
// a container, which says itself whether it is, and the stream's reader checks them with
// the key that was in it.
func metadata(b *bufio.Reader) ([]byte, error) {
	fixed, err := peek(b, fixedSize)
	if err != nil {
		return nil, err
	}
	if string(fixed[:3]) != "\xa7SM" {
		return nil, stream.ErrFormat
	}
	from := fixedSize + int(fixed[45])
	n := int(binary.BigEndian.Uint16(fixed[46:]))
	if from+n > headSize {
		return nil, stream.ErrFormat
	}
	head, err := peek(b, from+n)
	if err != nil {
		return nil, err
	}
	return head[from:], nil
}

func peek(b *bufio.Reader, n int) ([]byte, error) {
	head, err := b.Peek(n)
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: it ends in its header", stream.ErrFormat)
	}
	return head, err
}
