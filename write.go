package atrest

import (
	"iter"
	"math"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/sidecar"
)

// purposes in the order in which things are done for them.
var purposes = [...]key.Purpose{key.Storage, key.Raft}

// claim is what this load takes of an active key before it seals under it.
type claim struct {
	id      key.ID
	epoch   uint16 // 0: all are used up
	reserve envelope.Usage
}

// write makes a state durable, in one write together with what it asks of this
// node: an epoch and a first reservation for each active key that has none in
// this load, and for no key an epoch below that of our row in the registry.
// Nothing is written if nothing changes. n.mu is held.
func (n *Node) write(next *applier.State, rows iter.Seq[applier.Writer], more ...func(*sidecar.Tx) error) error {
	claims := n.claims(next)
	err := n.file.Update(func(tx *sidecar.Tx) error {
		if next != n.State() {
			n.text = next.AppendJSON(n.text[:0])
			if err := tx.SetState(n.text); err != nil {
				return err
			}
		}
		for row := range rows {
			if err := n.keepUp(tx, row); err != nil {
				return err
			}
		}
		for _, c := range claims {
			if err := c.take(tx); err != nil {
				return err
			}
		}
		for _, f := range more {
			if err := f(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range claims {
		n.epochs[c.id] = c.epoch
		n.tellEpoch(c)
	}
	return n.writeView(next)
}

// claims are for the active keys that this load has none for yet.
func (n *Node) claims(s *applier.State) (cs []claim) {
	for _, p := range purposes {
		k, ok := s.Active(p)
		if !ok {
			continue
		}
		if _, taken := n.epochs[k.ID]; taken {
			continue
		}
		u := n.file.Reserved(k.ID)
		cs = append(cs, claim{
			id:      k.ID,
			epoch:   n.nextEpoch(s, k.ID),
			reserve: envelope.Usage{Seals: u.Seals + keystore.ChunkSeals, Bytes: u.Bytes + keystore.ChunkBytes},
		})
	}
	return cs
}

func (c claim) take(tx *sidecar.Tx) error {
	if c.epoch != 0 {
		if err := tx.SetEpoch(c.id, c.epoch); err != nil {
			return err
		}
	}
	return tx.SetReserved(c.id, sidecar.Usage(c.reserve))
}

// nextEpoch is above every epoch that this node has taken for a key and above
// its row in the registry, or 0 if there is none left.
func (n *Node) nextEpoch(s *applier.State, id key.ID) uint16 {
	last := n.file.Epoch(id)
	if row, ok := s.Writer(id, n.id.Node16()); ok && row.Node == n.id {
		last = max(last, row.Last)
	}
	switch {
	case last == math.MaxUint16:
		return 0
	case last > 0 && planted.Has(planted.EpochBumpSkipped):
		return last
	}
	return last + 1
}

// keepUp records the epoch of a row of ours where it is above what the file has:
// the row is then of a time that this directory has forgotten.
func (n *Node) keepUp(tx *sidecar.Tx, row applier.Writer) error {
	if row.Last <= tx.Epoch(row.Key) && !planted.Has(planted.ReplayLowersEpoch) {
		return nil
	}
	return tx.SetEpoch(row.Key, row.Last)
}

// ownRows yields this node's rows in the registry of a state.
func (n *Node) ownRows(s *applier.State) iter.Seq[applier.Writer] {
	return func(yield func(applier.Writer) bool) {
		for k := range s.Keys() {
			if row, ok := s.Writer(k.ID, n.id.Node16()); ok && row.Node == n.id && !yield(row) {
				return
			}
		}
	}
}

// ours yields those of the rows that are this node's.
func (n *Node) ours(rows []applier.Writer) iter.Seq[applier.Writer] {
	return func(yield func(applier.Writer) bool) {
		for _, row := range rows {
			if row.Node == n.id && !yield(row) {
				return
			}
		}
	}
}

// reserved is how much of each key the file says may have been used.
func (n *Node) reserved(s *applier.State) map[key.ID]envelope.Usage {
	used := map[key.ID]envelope.Usage{}
	for k := range s.Keys() {
		if u := n.file.Reserved(k.ID); u != (sidecar.Usage{}) {
			used[k.ID] = envelope.Usage(u)
		}
	}
	return used
}

// usedBefore is how much of a key that is not loaded may have been used by earlier
// loads: what is reserved, without what this load has claimed and not begun to use.
func (n *Node) usedBefore(id key.ID) envelope.Usage {
	u := envelope.Usage(n.file.Reserved(id))
	if _, claimed := n.epochs[id]; claimed {
		u.Seals -= keystore.ChunkSeals
		u.Bytes -= keystore.ChunkBytes
	}
	return u
}

// epochsLow is from where on a rotation is advised: a key has 65,535 epochs for
// each node, and each start takes one.
const epochsLow = 0xff00

func (n *Node) tellEpoch(c claim) {
	switch {
	case c.epoch == 0:
		n.observe(EpochsExhausted{Key: c.id})
	case c.epoch >= epochsLow:
		n.observe(EpochsLow{Key: c.id, Epoch: c.epoch})
	}
}
