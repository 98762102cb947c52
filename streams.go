package atrest

import (
	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// Streams is where streams of package stream get their keys from: the host's snapshots,
// exports and other files that are sealed under this cluster's storage keys. It is safe
// for concurrent use.
//
// A stream needs the key that it names for as long as it is kept, and nothing registers
// that: seal it again, or delete it, before the key is destroyed. What is to outlive its
// cluster is a backup, see [Node.WriteBackup].
type Streams struct{ n *Node }

var _ stream.Keys = (*Streams)(nil)

// Streams returns the way to the keys of streams. It may be called again and again.
func (n *Node) Streams() *Streams { return &Streams{n: n} }

// Streams returns the way to the keys of streams.
func (l *Local) Streams() *Streams { return l.node.Streams() }

// NewStreamKey is for [stream.NewWriter]. While the active storage key is not loaded it is
// the key before, as for values; the error matches [ErrRetry] while none may be used,
// [ErrOrder] before there are keys, [ErrConfig] in generation 1, [ErrClosed] after Close.
func (s *Streams) NewStreamKey() (id key.ID, salt [keystore.StreamSalt]byte, k key.DEK, err error) {
	switch n := s.n; {
	case n.closed():
		return id, salt, k, ErrClosed
	case n.first():
		return id, salt, k, configError("streams are of generation 2; this node runs in generation 1")
	case !n.State().Bootstrapped():
		return id, salt, k, errors.Wrap(ErrOrder, "atrest: a stream before there are keys")
	}
	id, salt, k, err = s.n.keys.NewStreamKey()
	if noKey(err) {
		err = retry(errors.Wrap(err, "atrest: the active storage key is not loaded; see Status"))
	}
	return id, salt, k, err
}

// StreamKey is for readers, after Close too. The error matches [ErrRetry] while the key
// that the stream names is not loaded, [keystore.ErrDestroyed], [keystore.ErrPurpose] for
// a Raft key, or [keystore.ErrUnknownKey].
func (s *Streams) StreamKey(id key.ID, salt [keystore.StreamSalt]byte) (key.DEK, error) {
	k, err := s.n.keys.StreamKey(id, salt)
	if errors.Is(err, keystore.ErrUnknownKey) {
		if have, ok := s.n.State().Key(id); ok && have.Purpose == key.Storage {
			return k, retry(errors.Wrap(err, "atrest: it is not loaded; see Status"))
		}
	}
	return k, err
}

// RandomNonces makes writers draw their nonces where counted ones are not safe: with
// [WithExtendedOnly].
func (s *Streams) RandomNonces() bool { return s.n.keys.RandomNonces() }
