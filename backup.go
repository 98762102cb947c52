package atrest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// A backup is
//
//	a7 'B' 'K' 02 | index 8 | backup id 16 | length 4 | snapshot's part | stream
//
// The stream holds the host's data and behind it the SHA-256 of that. Its associated
// data is index, backup id and the SHA-256 of the part.
const (
	backupMagic = "\xa7BK\x02"
	backupHead  = len(backupMagic) + 8 + 16 + 4
	backupLabel = "atrest/backup"

	// maxPart is more than the largest key state takes.
	maxPart = 64 << 20
)

// BackupInfo says what a backup is.
type BackupInfo struct {
	ID      applier.BackupID
	Index   uint64 // of the log, at which the data was taken
	Cluster key.ClusterID
	Key     key.ID   // that the data is sealed under
	Keys    []key.ID // that the backup brings, ascending; the caller's
	// Of the data. They are zero until it has been read to its end.
	Bytes  uint64
	Digest [sha256.Size]byte
}

// String is the information in one line.
func (i BackupInfo) String() string {
	return fmt.Sprintf("backup %s of cluster %s at index %d: %d bytes under key %s, SHA-256 %x, %d keys",
		i.ID, i.Cluster, i.Index, i.Bytes, i.Key, i.Digest, len(i.Keys))
}

// WriteBackup writes a backup to w that opens with the KEK alone: the key state, and
// sealed the data that write writes. The data is the host's, as of index in its log.
// Values in it stay sealed as they are stored; the host writes beside each whether it
// is.
//
// The backup is registered before the data is taken, see [Node.NewBackup], so that none
// of its keys is destroyed while it exists. One that is not, that was registered after
// index or before the last rotation, is [ErrOrder]; [ErrRetry] says that the active
// storage key is not loaded.
//
// write takes its view of the host's store before it writes the first byte, or is given
// one that was taken before: what it writes may not have changed since. Making w durable
// is the host's. After an error w does not have a backup: remove it and propose
// [Node.NewBackupForgotten].
func (n *Node) WriteBackup(ctx context.Context, w io.Writer, id applier.BackupID, index uint64, write func(w io.Writer) error) (BackupInfo, error) {
	var k streamKey
	var err error
	if k.id, k.salt, k.key, err = n.Streams().NewStreamKey(); err != nil {
		return BackupInfo{}, err
	}
	// The state comes after the key, so that it has it.
	snap, err := n.Snapshot()
	if err != nil {
		return BackupInfo{}, err
	}
	p, err := parsePart(snap)
	if err != nil {
		return BackupInfo{}, err
	}
	if now, _ := p.state.Active(key.Storage); now.ID != k.id {
		return BackupInfo{}, retry(errors.Newf("atrest: key %s is the active one and is not loaded, or was not a moment ago; see Status", now.ID))
	}
	if err := registered(p.state, id, k.id, index); err != nil {
		return BackupInfo{}, err
	}
	info := infoOf(p.state, id, index)
	info.Key = k.id
	if _, err := io.Copy(w, bytes.NewReader(appendHead(nil, info, snap))); err != nil {
		return BackupInfo{}, errors.Wrap(err, "atrest: write backup")
	}
	if err := n.writeData(ctx, w, k, &info, snap, write); err != nil {
		return BackupInfo{}, errors.Wrap(err, "atrest: write backup")
	}
	return info, nil
}

// streamKey is the key of one new stream. It implements [stream.Keys].
type streamKey struct {
	id   key.ID
	salt [keystore.StreamSalt]byte
	key  key.DEK
}

// NewStreamKey returns the key.
func (k streamKey) NewStreamKey() (key.ID, [keystore.StreamSalt]byte, key.DEK, error) {
	return k.id, k.salt, k.key, nil
}

// StreamKey is for readers, of which there is none.
func (k streamKey) StreamKey(id key.ID, _ [keystore.StreamSalt]byte) (key.DEK, error) {
	return key.DEK{}, &keystore.KeyError{ID: id, Err: keystore.ErrUnknownKey}
}

// registered refuses a backup whose registration does not name the key that was active
// after its data was taken. If it names that one, no rotation came between the two, so
// whoever registered all keys registered all that the data needs. Data from before the
// registration may need a key that was destroyed by then.
func registered(s *applier.State, id applier.BackupID, active key.ID, index uint64) error {
	for b := range s.Backups() {
		switch {
		case b.ID != id:
		case index < b.Index:
			return errors.Wrapf(ErrOrder, "atrest: backup %s was registered at %d, and its data is as of %d: take it anew", id, b.Index, index)
		case slices.Contains(b.Keys, active):
			return nil
		default:
			return errors.Wrapf(ErrOrder, "atrest: backup %s was registered without key %s, which is active now; register another one", id, active)
		}
	}
	return errors.Wrapf(ErrOrder, "atrest: backup %s is not registered: propose NewBackup first", id)
}

func infoOf(s *applier.State, id applier.BackupID, index uint64) BackupInfo {
	return BackupInfo{ID: id, Index: index, Cluster: s.Cluster(), Keys: undestroyed(s)}
}

func appendHead(dst []byte, i BackupInfo, snap []byte) []byte {
	dst = append(dst, backupMagic...)
	dst = binary.BigEndian.AppendUint64(dst, i.Index)
	dst = append(dst, i.ID[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(snap)))
	return append(dst, snap...)
}

// backupPlace binds the data to what stands before it.
func backupPlace(i BackupInfo, snap []byte) stream.Place {
	data := binary.BigEndian.AppendUint64(nil, i.Index)
	data = append(data, i.ID[:]...)
	digest := sha256.Sum256(snap)
	return stream.Place{Label: backupLabel, Data: append(data, digest[:]...)}
}

func (n *Node) writeData(ctx context.Context, w io.Writer, k streamKey, info *BackupInfo, snap []byte, write func(io.Writer) error) error {
	// A machine may be cloned while it writes a backup.
	s, err := stream.NewWriter(ctx, w, k, backupPlace(*info, snap), stream.WithRandomNonces())
	if err != nil {
		return err
	}
	defer s.Abort()
	d := digestWriter{w: s, hash: sha256.New(), first: func() error { return n.stillActive(k.id) }}
	if err := write(&d); err != nil {
		return err
	}
	if d.err != nil {
		return d.err // write has looked away
	}
	info.Bytes = d.n
	d.hash.Sum(info.Digest[:0])
	if _, err := s.Write(info.Digest[:]); err != nil {
		return err
	}
	return s.Close()
}

// stillActive refuses data of which the host may have taken its view after a rotation
// that the key state of the backup does not have.
func (n *Node) stillActive(id key.ID) error {
	if now, _ := n.State().Active(key.Storage); now.ID != id {
		return errors.Wrapf(ErrOrder, "atrest: key %s became active before the data was there; register another backup", now.ID)
	}
	return nil
}

type digestWriter struct {
	w     io.Writer
	first func() error // is asked at the first byte
	hash  hash.Hash
	n     uint64
	err   error // the first one
}

func (d *digestWriter) Write(b []byte) (n int, err error) {
	if d.err == nil && d.n == 0 {
		d.err = d.first()
	}
	if d.err != nil {
		return 0, d.err
	}
	n, d.err = d.w.Write(b)
	d.hash.Write(b[:n])
	d.n += uint64(n)
	return n, d.err
}
