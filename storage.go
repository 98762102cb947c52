package atrest

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// Storage seals and opens stored values.
type Storage struct {
	n    *Node
	keys *keystore.Storage
}

// Storage returns the way to stored values. It may be called again and again.
func (n *Node) Storage() *Storage { return &Storage{n: n, keys: n.keys.Storage()} }

// Seal appends to dst what to store for a value at a location: before the storage
// cutover the value itself, and sealed is false; after it an envelope. The host
// keeps sealed with the value. Memory is used as [envelope.Sealer.SealStorage]
// says.
//
// While no key is loaded that may seal, Seal waits until there is one or the node
// is closed.
func (s *Storage) Seal(dst, value, location []byte) (out []byte, sealed bool, err error) {
	if !s.n.values.Load() {
		return append(dst, value...), false, nil
	}
	if out, err = s.keys.Seal(dst, value, location); err == nil {
		return out, true, nil
	}
	return s.sealSlowly(context.Background(), dst, value, location, err)
}

// SealContext is Seal that waits no longer than the context lasts.
func (s *Storage) SealContext(ctx context.Context, dst, value, location []byte) (out []byte, sealed bool, err error) {
	if !s.n.values.Load() {
		return append(dst, value...), false, nil
	}
	if out, err = s.keys.Seal(dst, value, location); err == nil {
		return out, true, nil
	}
	return s.sealSlowly(ctx, dst, value, location, err)
}

// sealSlowly waits for a key if that is what is wrong.
func (s *Storage) sealSlowly(ctx context.Context, dst, value, location []byte, err error) ([]byte, bool, error) {
	for noKey(err) {
		ch := s.n.change()
		var out []byte
		if out, err = s.keys.Seal(dst, value, location); err == nil {
			return out, true, nil
		}
		if !noKey(err) {
			break
		}
		if werr := s.n.wait(ctx, ch); werr != nil {
			err = errors.Wrap(werr, "atrest: waiting for a storage key that may seal; see Status for what is missing")
			break
		}
	}
	s.n.observe(SealFailed{Purpose: key.Storage, Reason: err})
	return nil, false, err
}

// Open appends to dst the value that is stored at a location, where sealed is
// what Seal had returned with it. The result is never nil. Memory is used as
// [envelope.Cipher.OpenStorage] says.
//
// A value that was changed, or that was sealed for another location, is
// [envelope.ErrIntegrity]. Open waits for a key of this cluster that is not loaded
// yet, until it is or the node is closed.
func (s *Storage) Open(dst, stored, location []byte, sealed bool) ([]byte, error) {
	return s.OpenContext(context.Background(), dst, stored, location, sealed)
}

// OpenContext is Open that waits no longer than the context lasts.
func (s *Storage) OpenContext(ctx context.Context, dst, stored, location []byte, sealed bool) ([]byte, error) {
	if !sealed {
		return s.openClear(dst, stored)
	}
	out, err := s.keys.Open(dst, stored, location)
	if err == nil {
		return out, nil
	}
	return s.openSlowly(ctx, dst, stored, location, err)
}

func (s *Storage) openClear(dst, stored []byte) ([]byte, error) {
	if s.n.opts.strict && s.n.values.Load() {
		return nil, s.n.openFailed(key.Storage, 0, errors.Wrap(ErrCleartext, "atrest"))
	}
	if dst == nil {
		dst = []byte{}
	}
	return append(dst, stored...), nil
}

// openSlowly waits for a key if that is what is wrong.
func (s *Storage) openSlowly(ctx context.Context, dst, stored, location []byte, err error) ([]byte, error) {
	var id key.ID
	for errors.Is(err, keystore.ErrUnknownKey) {
		ch := s.n.change()
		h, herr := envelope.ParseHeader(stored)
		if herr != nil {
			return nil, s.n.openFailed(key.Storage, 0, herr)
		}
		id = h.KeyID
		if _, known := s.n.State().Key(id); !known && !s.n.opts.several {
			break
		}
		var out []byte
		if out, err = s.keys.Open(dst, stored, location); err == nil {
			return out, nil
		}
		if !errors.Is(err, keystore.ErrUnknownKey) {
			break
		}
		if werr := s.n.wait(ctx, ch); werr != nil {
			err = errors.Wrapf(werr, "atrest: waiting for key %s; see Status for what is missing", id)
			break
		}
	}
	return nil, s.n.openFailed(key.Storage, id, err)
}
