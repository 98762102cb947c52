package atrest

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

const (
	proposeTimeout = 5 * time.Second
	longestPause   = 5 * time.Second // between proposals
)

// registrar registers this load for each active key, again after each rotation,
// for as long as the node lives. Seals do not wait for it.
func (n *Node) registrar(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		ch := n.change()
		again, err := n.registerNext(ctx)
		switch {
		case err == nil && !again: // nothing to do
			pause = firstPause
			if n.wait(ctx, ch) != nil {
				return
			}
		case err == nil:
			pause = firstPause
		default:
			d := jitter(pause)
			n.observe(RegistrationFailed{Err: err, Again: d})
			pause = min(2*pause, longestPause)
			select {
			case <-ctx.Done():
			case <-ch:
			case <-time.After(d):
			}
		}
	}
}

// registerNext proposes the first registration that is due, and reports whether
// there was one.
func (n *Node) registerNext(ctx context.Context) (bool, error) {
	id, entry, err := n.due()
	if err != nil || id == 0 {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	if err := n.propose(ctx, entry); err != nil {
		return true, errors.Wrapf(err, "atrest: proposing the registration for key %s", id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.unregistered(); ok && !n.counted[id] && !n.superseded(id) {
		return true, errors.Newf("atrest: the registration for key %s was proposed and has not been applied here", id)
	}
	return true, nil
}

// due returns the entry to propose next, and takes a higher epoch before where
// another load of this node has registered ours. The id is 0 if nothing is due.
func (n *Node) due() (key.ID, []byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		id, ok := n.unregistered()
		if !ok {
			return 0, nil, nil
		}
		if n.superseded(id) {
			if err := n.raise(id); err != nil {
				return 0, nil, err
			}
			if n.epochs[id] == 0 {
				continue // none is left, which must not keep another key waiting
			}
		}
		entry, err := n.generation().Append(nil, n.registration(id))
		n.proposed[id] = n.epochs[id]
		return id, entry, err
	}
}

// registration is this load's, for a key. n.mu is held.
func (n *Node) registration(id key.ID) applier.Registration {
	return applier.Registration{Key: id, Node: n.id, Epoch: n.epochs[id], Load: n.load}
}

// unregistered returns an active key that this load has an epoch for and is not
// registered with. n.mu is held.
func (n *Node) unregistered() (key.ID, bool) {
	s := n.State()
	if s.Gone(n.id) || n.opts.extended {
		return 0, false // refused for ever, or not needed; seals go on with suite 0x03
	}
	for _, p := range purposes {
		k, ok := s.Active(p)
		if !ok || n.counted[k.ID] || n.epochs[k.ID] == 0 {
			continue
		}
		if row, ok := s.Writer(k.ID, n.id.Node16()); ok && row.Node != n.id {
			continue // another node has our place
		}
		return k.ID, true
	}
	return 0, false
}

// superseded reports whether the registry has an epoch of ours that is not below
// the one of this load. n.mu is held.
func (n *Node) superseded(id key.ID) bool {
	row, ok := n.State().Writer(id, n.id.Node16())
	return ok && row.Node == n.id && row.Last >= n.epochs[id]
}

// own reports whether a row is that of this load. In generation 1, where a row does not
// say, it is if this load has proposed it: the most that can be known. n.mu is held.
func (n *Node) own(row applier.Writer) bool {
	return row.Node == n.id && row.Load == n.load && row.Last == n.epochs[row.Key] &&
		(!n.first() || n.proposed[row.Key] == row.Last)
}

// raise takes an epoch above every known one. n.mu is held.
func (n *Node) raise(id key.ID) error {
	epoch := n.nextEpoch(n.State(), id)
	if epoch != 0 {
		err := n.file.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(id, epoch) })
		if err != nil {
			return err
		}
		if err := n.writeView(n.State()); err != nil {
			return err // before anything is sealed under it
		}
	}
	n.epochs[id] = epoch
	n.tellEpoch(claim{id: id, epoch: epoch})
	return n.recount(id)
}
