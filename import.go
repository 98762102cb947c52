package atrest

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// Import starts a new cluster from a snapshot's part that a backup of another one
// holds, whose data the host has put in place. It is called on one node that has
// no keys and no peers yet, before CatchUp; the others join by snapshot.
//
// The new cluster has an id of its own, and active keys of its own that this call
// makes. The keys of the backup open what it holds and seal nothing more; they are
// wrapped anew under the new id. Values go on being sealed if they were, and Raft
// payloads are in clear until a new cutover.
//
// After an error that matches [kek.ErrWrongKey] the directory's own file was made with
// the wrong KEK as well: begin again with an empty directory and the right one.
func (n *Node) Import(ctx context.Context, snap []byte) error {
	if n.State().Bootstrapped() && !n.first() {
		return errors.Wrap(ErrOrder, "atrest: Import into a node that has keys; start with an empty directory")
	}
	p, old, err := n.importable(ctx, snap)
	if err != nil {
		return err
	}
	next, deks, err := n.transplant(ctx, p.state, old)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed():
		return ErrClosed
	case n.phase != opened || n.State().Bootstrapped():
		return errors.Wrap(ErrOrder, "atrest: Import comes before CatchUp, once")
	}
	n.imported = true
	return n.replace(next, deks)
}

// importable reads a part, and unwraps and verifies what is in it.
func (n *Node) importable(ctx context.Context, snap []byte) (part, map[key.ID]key.DEK, error) {
	if n.first() {
		return part{}, nil, configError("Import begins a cluster of generation 2; this node runs in generation 1")
	}
	p, err := parsePart(snap)
	switch {
	case err != nil:
		return part{}, nil, err
	case !p.state.Bootstrapped():
		return part{}, nil, errors.Wrap(ErrSnapshot, "atrest: it holds no keys; there is nothing to import, bootstrap instead")
	case p.state.Generation() != applier.Generation2:
		return part{}, nil, errors.Wrapf(ErrSnapshot, "atrest: it is of %v; a cluster of that is upgraded, not imported", p.state.Generation())
	}
	deks, err := n.verifyUnwrapped(ctx, p)
	if err != nil {
		return part{}, nil, err
	}
	return p, deks, n.completed(ctx, p.state, deks)
}

// completed unwraps what is still missing of a state's keys: without one of them some
// values would never open.
func (n *Node) completed(ctx context.Context, s *applier.State, deks map[key.ID]key.DEK) error {
	for k := range s.Keys() {
		if _, ok := deks[k.ID]; ok || k.State == key.Destroyed {
			continue
		}
		_, dek, err := n.unwrap(ctx, k.ID, k.Container)
		switch {
		case err == nil:
			deks[k.ID] = dek
		case wrongKey(err):
			return marked{errors.Wrapf(err, "atrest: no configured KEK opens key %s", k.ID), ErrSnapshot}
		default:
			return retry(errors.Wrapf(err, "atrest: key %s cannot be unwrapped", k.ID))
		}
	}
	return nil
}

// transplant makes the state of the new cluster and returns all its DEKs.
func (n *Node) transplant(ctx context.Context, old *applier.State, deks map[key.ID]key.DEK) (*applier.State, map[key.ID]key.DEK, error) {
	cluster := key.NewClusterID()
	all := map[key.ID]key.DEK{}
	var wrapped []applier.WrappedKey
	for k := range old.Keys() {
		if k.State == key.Destroyed {
			continue
		}
		dek := deks[k.ID]
		w, err := n.wrap(ctx, cluster, k.ID, k.Purpose, dek)
		if err != nil {
			return nil, nil, err
		}
		wrapped = append(wrapped, w)
		all[k.ID] = dek
	}
	fresh := map[key.Purpose]applier.WrappedKey{}
	for _, p := range purposes {
		id, dek := unusedID(old, fresh[key.Storage].ID), key.NewDEK()
		w, err := n.wrap(ctx, cluster, id, p, dek)
		if err != nil {
			return nil, nil, err
		}
		fresh[p], all[id] = w, dek
	}
	next, err := applier.Import(old, cluster, wrapped, fresh[key.Storage], fresh[key.Raft])
	return next, all, err
}

// unusedID returns an id that a state does not know and that is not among others.
func unusedID(s *applier.State, others ...key.ID) key.ID {
	for {
		id := key.NewID()
		if _, known := s.Key(id); !known && !slices.Contains(others, id) {
			return id
		}
	}
}
