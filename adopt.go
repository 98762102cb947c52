package atrest

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// adopted checks that another member's new state is one that goes on from this node's
// of generation 1.
func (n *Node) adopted(ctx context.Context, old *applier.State, snap []byte) (*applier.State, error) {
	p, err := parsePart(snap)
	if err != nil {
		return nil, err
	}
	if p.state.Generation() != applier.Generation2 || !p.state.Bootstrapped() {
		return nil, errors.Wrap(ErrSnapshot, "atrest: it is not of a member that was upgraded")
	}
	k, _ := p.state.Key(p.key)
	_, dek, err := n.unwrapContainer(ctx, k.ID, k.Container)
	if err != nil {
		return nil, failedKEK(err, "unwrap", k.ID)
	}
	if err := verifyWith(dek, p); err != nil {
		return nil, err
	}
	if p.state.Index() < old.Index() {
		return nil, errors.Wrapf(ErrSnapshot, "atrest: its key state is that of %d, and this node's that of %d: "+
			"the first member to be upgraded is one that has applied everything; the one that was not joins again with an empty directory",
			p.state.Index(), old.Index())
	}
	if err := succeeds(old, p.state); err != nil {
		return nil, err
	}
	keys := slices.Collect(old.Keys())
	return p.state, inParallel(len(keys), func(i int) error { return n.sameDEK(ctx, keys[i], p.state) })
}

// succeeds refuses a state that forgets what another one knew: a cutover, after which a
// value would be stored in clear, a key, or an epoch that somebody has used.
func succeeds(old, next *applier.State) error {
	if was := old.StorageCutover(); !keeps(was, next.StorageCutover()) {
		return errors.Wrapf(ErrOtherCluster, "atrest: it does not have this node's storage cutover at entry %d", was.Index)
	}
	if was := old.RaftCutover(); !keeps(was, next.RaftCutover()) {
		return errors.Wrapf(ErrOtherCluster, "atrest: it does not have this node's Raft cutover at entry %d", was.Index)
	}
	for k := range old.Keys() {
		if other, ok := next.Key(k.ID); !ok || other.Purpose != k.Purpose || other.State == key.Destroyed {
			return errors.Wrapf(ErrOtherCluster, "atrest: it does not have key %s of this node", k.ID)
		}
		for row := range old.Writers(k.ID) {
			if other, ok := next.Writer(k.ID, row.Node.Node16()); !ok || other.Node != row.Node || other.Last < row.Last {
				return errors.Wrapf(ErrOtherCluster, "atrest: it lacks epoch %d of node %s for key %s", row.Last, row.Node, k.ID)
			}
		}
	}
	return nil
}

// keeps reports whether a cutover is still there. Index 0 is that of one whose entry is
// not known.
func keeps(was, is applier.Cutover) bool {
	known := was.Index != 0 && is.Index != 0
	return !was.Active || is.Active && (!known || was.Index == is.Index)
}

// sameDEK unwraps a key in both forms: this node's KEKs open the new one, and it is what
// was sealed under here.
func (n *Node) sameDEK(ctx context.Context, k applier.Key, next *applier.State) error {
	_, was, err := n.unwrap(ctx, k.ID, k.Container)
	if err != nil {
		return failedKEK(err, "unwrap", k.ID)
	}
	other, _ := next.Key(k.ID)
	_, is, err := n.unwrapContainer(ctx, k.ID, other.Container)
	if err != nil {
		return failedKEK(err, "unwrap", k.ID)
	}
	if !key.EqualDEK(was, is) {
		return errors.Wrapf(ErrOtherCluster, "atrest: key %s is another one there", k.ID)
	}
	return nil
}
