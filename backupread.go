package atrest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// Backup is a backup that is being read. It is an io.Reader of the host's data, which
// gives out nothing that was not authenticated; io.EOF means that all was read and is
// what was written. It is used by one goroutine at a time.
type Backup struct {
	info BackupInfo
	part []byte
	src  *stream.Reader
	hash hash.Hash
	n    uint64
	buf  []byte
	from int   // what lies before it in buf was given out
	to   int   // end of what was read into buf
	eof  bool  // buf has all that is left
	err  error // why there is no more
}

// ReadBackup opens a backup with nothing but the KEK. It unwraps the keys that the
// backup brings, verifies the key state with one of them and opens the data with
// another. Of the options, [WithKEKTimeout] and [WithObserver] count. The context
// counts as long as the Backup is used.
//
// What is not a whole backup, or does not open with these KEKs, is [ErrBackup], here or
// when the data is read, with [ErrVersion] beside it where a later version wrote it;
// [kek.ErrWrongKey] where the KEK is not the right one or the wrap of a key is damaged. An
// error that matches [ErrRetry] means that a KEK could not be reached.
func ReadBackup(ctx context.Context, r io.Reader, keks *kek.Set, opts ...Option) (*Backup, error) {
	n, err := scratch(keks, opts)
	if err != nil {
		return nil, err
	}
	defer n.cancel()
	b, err := n.readBackup(ctx, r)
	if err != nil {
		return nil, badBackup(err)
	}
	return b, nil
}

// scratch is a node without a directory, for its keystore and its way to the KEKs. Its
// cancel is called when it has served.
func scratch(keks *kek.Set, opts []Option) (*Node, error) {
	if keks == nil {
		return nil, guard.KEK(nil)
	}
	o := with(opts)
	o.first = nil
	if err := o.check(); err != nil {
		return nil, err
	}
	return newNode(Config{KEK: keks}, o)
}

func (n *Node) readBackup(ctx context.Context, r io.Reader) (*Backup, error) {
	id, index, snap, err := readHead(ctx, r)
	if err != nil {
		return nil, err
	}
	p, err := parsePart(snap)
	switch {
	case err != nil:
		return nil, err
	case p.state.Generation() != applier.Generation2 || !p.state.Bootstrapped():
		return nil, errors.Wrap(ErrSnapshot, "atrest: a key state that no backup has")
	}
	if err := n.takeKeys(ctx, p); err != nil {
		return nil, err
	}
	b := &Backup{info: infoOf(p.state, id, index), part: snap, hash: sha256.New(), buf: make([]byte, stream.DefaultSegment)}
	if b.src, err = stream.NewReader(ctx, r, n.keys, backupPlace(b.info, snap)); err != nil {
		return nil, err
	}
	b.info.Key = b.src.KeyID()
	return b, nil
}

// readHead reads up to where the stream begins.
func readHead(ctx context.Context, r io.Reader) (id applier.BackupID, index uint64, snap []byte, err error) {
	b, err := readExactly(ctx, r, backupHead)
	if err != nil {
		return id, 0, nil, err
	}
	const version = len(backupMagic) - 1
	switch {
	case string(b[:version]) != backupMagic[:version]:
		return id, 0, nil, damaged(errors.Newf("atrest: it begins with % x", b[:len(backupMagic)]))
	case b[version] != backupMagic[version]:
		return id, 0, nil, damaged(errors.Wrapf(ErrVersion, "atrest: version %d of backups", b[version]))
	}
	index = binary.BigEndian.Uint64(b[len(backupMagic):])
	copy(id[:], b[len(backupMagic)+8:])
	size := binary.BigEndian.Uint32(b[backupHead-4:])
	if size > maxPart {
		return id, 0, nil, damaged(errors.Newf("atrest: key state of %d bytes", size))
	}
	snap, err = readExactly(ctx, r, int(size))
	return id, index, snap, err
}

// readExactly reads n bytes into memory that grows with what is there. The end of the
// source before that is damage; every other error is the source's, whatever it is.
func readExactly(ctx context.Context, r io.Reader, n int) ([]byte, error) {
	const piece, patience = 64 << 10, 100
	b := make([]byte, 0, min(n, piece))
	for empty := 0; len(b) < n; {
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		b = slices.Grow(b, min(n-len(b), piece))
		room := b[len(b):min(n, cap(b))]
		got, err := r.Read(room)
		if got < 0 || got > len(room) {
			return nil, errors.Newf("atrest: read backup: the source says that it read %d bytes into %d", got, len(room))
		}
		b = b[:len(b)+got]
		if empty++; got > 0 {
			empty = 0
		}
		switch {
		case len(b) == n:
		case err == nil && empty == patience:
			return nil, errors.Wrap(io.ErrNoProgress, "atrest: read backup")
		case err == nil:
		case err == io.EOF: // and not one that wraps it
			return nil, damaged(errors.Newf("atrest: it ends after %d of the %d bytes of its head or key state", len(b), n))
		default:
			return nil, errors.Wrap(err, "atrest: read backup")
		}
	}
	return b, nil
}

// takeKeys unwraps the keys of a part into the keystore: first the one that
// authenticates it, then the others.
func (n *Node) takeKeys(ctx context.Context, p part) error {
	var first, others []applier.Key
	for k := range p.state.Keys() {
		switch {
		case k.ID == p.key:
			first = append(first, k)
		case k.State != key.Destroyed:
			others = append(others, k)
		}
	}
	if err := n.take(ctx, first); err != nil {
		return err
	}
	if err := n.verify(p); err != nil {
		return err
	}
	return n.take(ctx, others)
}

func (n *Node) take(ctx context.Context, keys []applier.Key) error {
	for _, u := range n.unwrapKeys(ctx, keys) {
		switch {
		case u.err == nil:
			if err := n.keys.Install(u.key.ID, u.key.Purpose, u.dek); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return ended(ctx)
		case wrongKey(u.err):
			return damaged(errors.Wrapf(u.err, "atrest: key %s of the backup: no configured KEK opens it", u.key.ID))
		default:
			return retry(errors.Wrapf(u.err, "atrest: key %s of the backup cannot be unwrapped", u.key.ID))
		}
	}
	return nil
}

// ended is the error of a context that is done. What it was ended for stands in the text
// alone: it is no verdict on what is read here.
func ended(ctx context.Context) error {
	return errors.Wrapf(ctx.Err(), "atrest: read backup: %v", context.Cause(ctx))
}

// Info says what the backup is, as far as it was read.
func (b *Backup) Info() BackupInfo { return b.info }

// Part is the key state: give it to [Node.Import] or [ImportLocal]. The caller must not
// change it.
func (b *Backup) Part() []byte { return b.part }

// Read reads data.
func (b *Backup) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.to-b.from <= sha256.Size { // the last bytes may be the digest
		switch {
		case b.err != nil:
			return 0, b.err
		case b.eof:
			b.err = b.end()
		default:
			b.fill()
		}
	}
	n := copy(p, b.buf[b.from:b.to-sha256.Size])
	b.hash.Write(p[:n])
	b.from += n
	b.n += uint64(n)
	return n, nil
}

func (b *Backup) fill() {
	b.to = copy(b.buf, b.buf[b.from:b.to])
	b.from = 0
	n, err := b.src.Read(b.buf[b.to:])
	b.to += n
	switch {
	case err == io.EOF: //nolint:errorlint // An error that wraps it is not the end.
		b.eof = true
	case err != nil:
		b.err = badBackup(err)
		b.to = b.from // nobody knows whether it is data
	}
}

// end compares the digest, once all before it was given out.
func (b *Backup) end() error {
	digest := b.buf[b.from:b.to]
	if len(digest) != sha256.Size || !bytes.Equal(b.hash.Sum(nil), digest) {
		return damaged(errors.New("atrest: its digest is not that of its data"))
	}
	b.info.Bytes = b.n
	copy(b.info.Digest[:], digest)
	return io.EOF
}

// VerifyBackup reads a backup to its end as [ReadBackup] does and writes nothing. When
// it returns nil, the backup is whole and opens with these KEKs.
func VerifyBackup(ctx context.Context, r io.Reader, keks *kek.Set, opts ...Option) (BackupInfo, error) {
	b, err := ReadBackup(ctx, r, keks, opts...)
	if err != nil {
		return BackupInfo{}, err
	}
	if _, err := io.Copy(io.Discard, b); err != nil {
		return BackupInfo{}, err
	}
	return b.info, nil
}

// damaged makes an error one that also matches ErrBackup.
func damaged(err error) error { return marked{err, ErrBackup} }

// badBackup makes what is wrong with the bytes ErrBackup. What is wrong with their
// source or with the context stays what it is.
func badBackup(err error) error {
	if errors.Is(err, ErrBackup) {
		return err
	}
	for _, is := range []error{
		ErrSnapshot,
		stream.ErrIntegrity, stream.ErrFormat, stream.ErrUnsupported, stream.ErrLabel,
		keystore.ErrUnknownKey, keystore.ErrPurpose,
	} {
		if errors.Is(err, is) {
			return damaged(err)
		}
	}
	return err
}
