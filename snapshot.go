package atrest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
)

// A snapshot's part is
//
//	a7 'S' 'N' 02 | id of the MAC key 4 | MAC 32 | key state
//
// with HMAC-SHA256 over the key state, under the subkey for snapshotLabel. A state
// without keys has nothing to make a MAC with: id and MAC are zero.
const (
	snapshotMagic = "\xa7SN\x02"
	snapshotHead  = len(snapshotMagic) + 4 + sha256.Size
	snapshotLabel = "atrest/v2/state"
)

// Snapshot returns this node's part of a host's snapshot: the key state, to which
// the host's own data at this moment belongs. Call it where the host's state
// machine is at the point in time of the snapshot; a later call is as good, an
// earlier one is not.
//
// The result matches [ErrRetry] while no key is loaded though there are keys.
func (n *Node) Snapshot() ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed() {
		return nil, ErrClosed
	}
	s := n.State()
	out := append(make([]byte, 0, 4096), snapshotMagic...)
	out = append(out, make([]byte, snapshotHead-len(out))...)
	out = s.AppendSnapshot(out)
	if !s.Bootstrapped() {
		return out, nil
	}
	id, ok := n.macKey(s)
	if !ok {
		return nil, retry(errors.New("atrest: no key is loaded that could authenticate a snapshot; see Status for what is missing"))
	}
	mac, err := n.keys.MAC(id, snapshotLabel, out[snapshotHead:])
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(out[len(snapshotMagic):], uint32(id))
	copy(out[len(snapshotMagic)+4:], mac[:])
	return out, nil
}

// macKey is the active storage key, or else the lowest key that is loaded and not
// stopped.
func (n *Node) macKey(s *applier.State) (key.ID, bool) {
	for _, p := range purposes {
		if k, ok := s.Active(p); ok && n.loaded[k.ID] {
			return k.ID, true
		}
	}
	for k := range s.Keys() {
		if n.loaded[k.ID] && k.State == key.OpenOnly {
			return k.ID, true
		}
	}
	return 0, false
}

// part is what a snapshot says, as long as nobody has checked its MAC.
type part struct {
	state *applier.State
	key   key.ID // 0: a state without keys
	mac   [sha256.Size]byte
	text  []byte // what the MAC is over; not a copy
}

func parsePart(b []byte) (part, error) {
	if len(b) < snapshotHead || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return part{}, errors.Wrapf(ErrSnapshot, "atrest: %d bytes that do not begin as one does", len(b))
	}
	s, err := applier.ParseSnapshot(b[snapshotHead:])
	if err != nil {
		return part{}, errors.Wrapf(ErrSnapshot, "atrest: %v", err)
	}
	p := part{state: s, text: b[snapshotHead:], key: key.ID(binary.BigEndian.Uint32(b[len(snapshotMagic):]))}
	copy(p.mac[:], b[len(snapshotMagic)+4:])
	if k, ok := s.Key(p.key); s.Bootstrapped() && (!ok || k.State == key.Destroyed || k.State == key.Stopped) {
		return part{}, errors.Wrapf(ErrSnapshot, "atrest: its MAC is under key %s, which it does not have in use", p.key)
	}
	if !s.Bootstrapped() && (p.key != 0 || p.mac != [sha256.Size]byte{}) {
		return part{}, errors.Wrap(ErrSnapshot, "atrest: a MAC without keys")
	}
	return p, nil
}

// Restore takes the part of a snapshot of this cluster that the host installs, or
// finds at start. It has no effect unless its state is newer than the node's. Once
// it returns nil, the node can open all that the snapshot holds, as soon as the
// keys are loaded that [Node.Status] names.
//
// An error that matches [ErrRetry] means that no KEK could be reached to
// authenticate the snapshot; then, as after any error, nothing has changed.
func (n *Node) Restore(ctx context.Context, snap []byte) error {
	p, err := parsePart(snap)
	if err != nil {
		return err
	}
	if n.upgradedSince(p.state) {
		if n.has(p.key) {
			return n.verify(p)
		}
		return nil // it has no effect
	}
	deks, err := n.authenticate(ctx, p)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed():
		return ErrClosed
	case n.taking:
		return errors.Wrap(ErrOrder, "atrest: Restore in a start that takes over; CatchUp first, and restore in the next start")
	}
	now := n.State()
	if err := guard.Divergence(now, p.state); err != nil {
		return err
	}
	if !p.state.Newer(now) {
		return nil
	}
	return n.replace(p.state, deks)
}

// upgradedSince is true of a state of generation 1 that this node has gone on from: the
// host's snapshot is from before the upgrade, and its part not newer.
func (n *Node) upgradedSince(s *applier.State) bool {
	now := n.State()
	if s.Generation() != applier.Generation1 || now.Generation() != applier.Generation2 ||
		!now.Bootstrapped() || s.Index() > now.Index() {
		return false
	}
	for k := range s.Keys() {
		if have, ok := now.Key(k.ID); !ok || have.Purpose != k.Purpose {
			return false
		}
	}
	return true
}

// authenticate returns the DEKs that it unwrapped on the way.
func (n *Node) authenticate(ctx context.Context, p part) (map[key.ID]key.DEK, error) {
	if err := n.sameCluster(p.state); err != nil || !p.state.Bootstrapped() {
		return nil, err
	}
	if planted.Has(planted.MACUnchecked) {
		return nil, nil //nolint:nilnil // A planted bug.
	}
	n.mu.Lock()
	loaded := n.loaded[p.key]
	n.mu.Unlock()
	if loaded {
		return nil, n.verify(p)
	}
	return n.verifyUnwrapped(ctx, p)
}

// sameCluster refuses what can be refused without a key.
func (n *Node) sameCluster(s *applier.State) error {
	now := n.State()
	if s.Generation() != now.Generation() {
		return errors.Wrapf(ErrSnapshot, "atrest: it is of %v, and this node runs in %v", s.Generation(), now.Generation())
	}
	if !now.Bootstrapped() || !s.Bootstrapped() {
		return nil // nothing authenticates a state without keys, and it is older than any with keys
	}
	if s.Cluster() != now.Cluster() {
		return errors.Wrapf(ErrOtherCluster, "atrest: got cluster %s, want %s; to start a new cluster from it, Import it into an empty node", s.Cluster(), now.Cluster())
	}
	return nil
}

func (n *Node) verify(p part) error {
	if err := n.keys.VerifyMAC(p.key, snapshotLabel, p.mac[:], p.text); err != nil {
		return errors.Wrapf(ErrSnapshot, "atrest: %v", err)
	}
	return nil
}

// verifyUnwrapped unwraps the keys of a state that are not here, and verifies it
// with the one that made its MAC. Nothing of it is used before.
func (n *Node) verifyUnwrapped(ctx context.Context, p part) (map[key.ID]key.DEK, error) {
	var keys []applier.Key
	for k := range p.state.Keys() {
		if k.State != key.Destroyed && !n.has(k.ID) {
			keys = append(keys, k)
		}
	}
	deks := map[key.ID]key.DEK{}
	for _, u := range n.unwrapKeys(ctx, keys) {
		switch {
		case u.err == nil:
			deks[u.key.ID] = u.dek
		case u.key.ID == p.key && wrongKey(u.err):
			return nil, marked{errors.Wrapf(u.err, "atrest: no configured KEK opens key %s, under which its MAC was made", p.key), ErrSnapshot}
		case u.key.ID == p.key:
			return nil, retry(errors.Wrapf(u.err, "atrest: key %s authenticates the snapshot and cannot be unwrapped", p.key))
		}
	}
	dek, ok := deks[p.key]
	if !ok {
		return deks, n.verify(p) // it arrived meanwhile
	}
	return deks, verifyWith(dek, p)
}

func (n *Node) has(id key.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loaded[id]
}

// replace takes another state of this cluster into use. n.mu is held.
func (n *Node) replace(s *applier.State, deks map[key.ID]key.DEK) error {
	if err := n.exhausted(s); err != nil {
		return err
	}
	used := n.reserved(s)
	if err := n.write(s, n.ownRows(s)); err != nil {
		return err
	}
	n.publish(s)
	n.recognize(s)
	if err := n.syncAll(s, deks, used); err != nil {
		return err
	}
	return n.mirrorAll(s)
}

// recognize finds registrations of this load in a state that was not applied here
// entry by entry. n.mu is held.
func (n *Node) recognize(s *applier.State) {
	for row := range n.ownRows(s) {
		if n.own(row) && !n.counted[row.Key] {
			n.counted[row.Key] = true
			n.observe(Registered{Key: row.Key, Epoch: row.Last})
		}
	}
}
