package atrest

import (
	"context"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/sidecar"
)

// View is what a host knows of its own log and store at start.
type View struct {
	// Applied is the index of the last entry whose effects the host's store holds
	// durably; 0 for a store in memory.
	Applied uint64
	// First is the index of the first entry that the log still holds. Where it
	// holds none, it is the index that the next one gets.
	First uint64
	// Snapshot is the index of the host's snapshot whose part was given to Restore
	// in this start, 0 if there was none.
	Snapshot uint64
	// HadKeys says that the store was written when this cluster had keys. It is what
	// notices that keys.json is lost. A host keeps it as a bit beside its applied
	// index, in the store and in snapshots: State().Bootstrapped() after the entry.
	HadKeys bool
	// Entries calls yield for the entries from one index up to and including
	// another, in order, as they lie in the log: sealed or not. Indexes may have
	// gaps; entries that carry no payload of the host may be left out. It stops at
	// the first error of yield and returns it, and calls nothing of the node.
	Entries func(ctx context.Context, from, to uint64, yield func(index uint64, payload []byte) error) error
}

// scanned is the number of entries from which on it is worth a write not to look
// through them again at the next start.
const scanned = 1024

// CatchUp brings the key state to where the host's store is: it applies what the
// log holds behind the state. It comes once, after Restore or Import if there is
// one, and before the host replays its log.
//
// It refuses to start where entries may be missing for good, and where keys.json is
// lost.
func (n *Node) CatchUp(ctx context.Context, v View) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed():
		return ErrClosed
	case n.phase != opened:
		return errors.Wrap(ErrOrder, "atrest: a second CatchUp")
	}
	if err := n.endTakeOver(v.Applied); err != nil {
		return err
	}
	if err := n.checkView(v); err != nil {
		return err
	}
	if err := n.scan(ctx, v); err != nil {
		return err
	}
	n.phase = caughtUp
	return n.mirrorAll(n.State())
}

func (n *Node) checkView(v View) error {
	s := n.State()
	if err := guard.KeysMissing(s.Bootstrapped(), v.HadKeys, n.file.Path()); err != nil {
		return err
	}
	if n.imported || n.begins(s, v) {
		return nil // there is nothing to be behind of
	}
	return guard.BehindLog(guard.Range{
		State: s.Index(), Applied: v.Applied, First: v.First, Through: n.file.Through(), Snapshot: v.Snapshot,
	})
}

// begins reports whether the key state begins with this start, or with one before
// that ended between its first write and CatchUp.
func (n *Node) begins(s *applier.State, v View) bool {
	if n.fresh && !s.Bootstrapped() {
		return true
	}
	untouched := s.Index() == 0 && n.file.Through() == 0
	return untouched && (!s.Bootstrapped() || v.First > v.Applied) // imported, and the log holds nothing
}

// scan applies the entries in the host's log that the host has applied and the
// state has not. n.mu is held.
func (n *Node) scan(ctx context.Context, v View) error {
	first := n.fresh || n.State().Index() == 0 && n.file.Through() == 0
	done := max(n.State().Index(), n.file.Through(), v.Snapshot)
	if v.Applied <= done {
		return nil
	}
	from := max(done+1, v.First)
	if from <= v.Applied {
		if v.Entries == nil {
			return configError("View.Entries is nil, and entries %d to %d have to be looked through", from, v.Applied)
		}
		err := v.Entries(ctx, from, v.Applied, func(index uint64, payload []byte) error {
			return n.rescan(ctx, index, payload)
		})
		if err != nil {
			return errors.Wrapf(err, "atrest: catching up with entries %d to %d of the log", from, v.Applied)
		}
	}
	if v.Applied-done < scanned && !first {
		return nil
	}
	return n.file.Update(func(tx *sidecar.Tx) error { return tx.SetThrough(v.Applied) })
}

// rescan applies one payload of the log if it is an entry. n.mu is held.
func (n *Node) rescan(ctx context.Context, index uint64, payload []byte) error {
	entry := payload
	if n.sealed(index, payload) {
		var err error
		entry, err = n.openAwaited(ctx, index, payload)
		if errors.Is(err, ErrRejected) {
			return nil
		}
		if err != nil {
			return err
		}
	} else if n.aboveCutover(index) {
		return nil // rejected when it was applied, or applied in generation 1
	}
	if !n.IsEntry(entry) {
		return nil
	}
	_, err := n.apply(index, entry)
	return err
}

// openAwaited opens a payload while n.mu is held, and lets go of it to wait for a
// key.
func (n *Node) openAwaited(ctx context.Context, index uint64, data []byte) ([]byte, error) {
	for {
		out, err := n.openFrame(nil, index, data)
		if !n.awaited(err) {
			return out, err
		}
		ch := n.changed
		n.mu.Unlock()
		err = n.wait(ctx, ch)
		n.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
}

// Compacted records durably that every entry up to an index was applied, so that
// the log may be compacted up to there. Call it before each compaction that no
// snapshot with this node's part covers.
func (n *Node) Compacted(through uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.phase == opened {
		return errors.Wrap(ErrOrder, "atrest: Compacted before CatchUp")
	}
	return n.file.Update(func(tx *sidecar.Tx) error { return tx.SetThrough(through) })
}

// Ready ends a start: the host has replayed its log and is about to serve. Last
// checks are made, and from now on this node registers itself in the background.
// Values can be sealed before it.
func (n *Node) Ready(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed():
		return ErrClosed
	case ctx.Err() != nil:
		return retry(ctx.Err())
	case n.phase == opened:
		return errors.Wrap(ErrOrder, "atrest: Ready before CatchUp")
	case n.phase == ready:
		return nil
	}
	if err := n.checkRows(n.State(), n.file.Epoch); err != nil {
		return err
	}
	if n.opts.several && n.State().RaftCutover().Active {
		return configError("the Raft cutover is in force, which is not possible with several groups")
	}
	n.phase = ready
	n.start(n.registrar)
	n.start(n.renewFileKey)
	return nil
}

// renewFileKey wraps the file key for the KEKs that are configured now.
func (n *Node) renewFileKey(ctx context.Context) {
	for pause := firstPause; !n.file.FileKeyCurrent(); pause = min(2*pause, longestTime) {
		err := n.file.Rewrap(ctx)
		n.observe(FileKeyRewrapped{Err: err})
		if err == nil || n.pause(ctx, jitter(pause)) != nil {
			return
		}
	}
}

// mirrorAll writes all rows of the registry into the host's store, if it wants
// them: a crash may have come between the state and the last ones.
func (n *Node) mirrorAll(s *applier.State) error {
	if n.opts.mirror == nil {
		return nil
	}
	rows := applier.RegistryRows(s)
	if len(rows) == 0 {
		return nil
	}
	return errors.Wrap(n.opts.mirror.SetRegistryRows(slices.Clip(rows)), "atrest: mirror of the writer registry")
}
