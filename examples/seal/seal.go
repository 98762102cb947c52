package main

import (
	"bytes"
	"context"
	"errors"
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

// seal seals what r has. The wrapped DEK goes into the stream's metadata, so that the
// stream needs nothing but the KEK to open.
func seal(ctx context.Context, w io.Writer, r io.Reader, keks *kek.Set) error {
	keys, container, err := newKeys(ctx, keks)
	if err != nil {
		return err
	}
	s, err := stream.NewWriter(ctx, w, keys, place, stream.WithMetadata(container), workers)
	if err != nil {
		return err
	}
	defer s.Abort()
	if _, err := s.ReadFrom(r); err != nil {
		return err
	}
	return s.Close()
}

// open begins to open a stream.
func open(ctx context.Context, r io.Reader, keks *kek.Set) (*stream.Reader, error) {
	var head bytes.Buffer
	h, err := stream.ReadHeader(io.TeeReader(r, &head))
	if err != nil {
		return nil, err
	}
	keys, err := keysOf(ctx, keks, metadata(head.Bytes(), h))
	if err != nil {
		return nil, err
	}
	return stream.NewReader(ctx, io.MultiReader(&head, r), keys, place, workers)
}

// metadata takes the metadata from a header, see docs/FORMATS.md: 48 bytes, the label, the
// metadata, and 64 bytes that authenticate it. Nobody has done that yet, but these metadata
// are a container, which says itself whether it is one, and the stream's reader checks them
// with the key that was in it.
func metadata(head []byte, h stream.Header) []byte {
	return head[48+len(h.Label) : len(head)-64]
}
