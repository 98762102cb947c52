package atrest

import (
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// Node is what a host's state machine calls for each committed entry.
var _ applier.Applier = (*Node)(nil)

// Apply applies a committed entry, in log order, and returns once its effect is
// durable here. An entry that a former start applied, or that a snapshot brought,
// does nothing. The outcome is the same on every replica; it is for the proposer.
//
// After an error the host stops without advancing its applied index, and after a
// restart it gets the same entry again, which does nothing if it was made durable
// before the error. Entries of a later
// version of this library are such an error, because skipping what others apply
// would be a divergence.
func (n *Node) Apply(index uint64, entry []byte) (applier.Outcome, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase == opened {
		return applier.Outcome{}, errors.Wrap(ErrOrder, "atrest: Apply before CatchUp")
	}
	return n.apply(index, entry)
}

// apply is Apply with n.mu held.
func (n *Node) apply(index uint64, entry []byte) (applier.Outcome, error) {
	if n.closed() {
		return applier.Outcome{}, ErrClosed
	}
	next, outcome, err := n.State().ApplyBytes(index, entry)
	if err != nil {
		return applier.Outcome{}, errors.Wrapf(err, "atrest: entry %d", index)
	}
	if outcome.Kind == applier.Applied {
		if err := n.commit(next, outcome); err != nil {
			return applier.Outcome{}, errors.Wrapf(err, "atrest: entry %d (%v)", index, outcome.Op)
		}
	}
	n.observe(EntryApplied{Index: index, Outcome: outcome})
	return outcome, nil
}

// commit makes a state durable and then visible. n.mu is held.
func (n *Node) commit(next *applier.State, o applier.Outcome) error {
	if err := n.write(next, n.ours(o.Writers)); err != nil {
		return err
	}
	n.publish(next)
	n.register(o)
	if err := n.sync(next, o.Keys, nil, nil); err != nil {
		return err
	}
	return n.mirror(o.Writers)
}

// register notes that an entry registered this load: from now on its epoch is
// known to be its own.
func (n *Node) register(o applier.Outcome) {
	if o.Registration == applier.NotRegistered {
		return
	}
	for _, w := range o.Writers {
		if n.own(w) {
			n.counted[w.Key] = true
			n.observe(Registered{Key: w.Key, Epoch: w.Last})
		}
	}
}

// mirror writes rows of the registry into the host's store, if it wants them.
func (n *Node) mirror(rows []applier.Writer) error {
	if n.opts.mirror == nil || len(rows) == 0 {
		return nil
	}
	return errors.Wrap(n.opts.mirror.SetRegistryRows(applier.RowsOf(rows)), "atrest: mirror of the writer registry")
}

// takePrepared returns the DEK that Prepare unwrapped for a key.
func (n *Node) takePrepared(k applier.Key) (key.DEK, bool) {
	if n.first() {
		k.Check = headerFirst(k.ID, k.Container).Check
	}
	return n.prepared.take(k, time.Now())
}
