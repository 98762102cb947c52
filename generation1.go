package atrest

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// Generation1 is what a host knows of a directory that the reference system wrote, at
// the first start in generation-1 mode. Later starts do not look at it.
type Generation1 struct {
	// Applied is the host's durable applied index.
	Applied uint64
	// Registry has the rows of the writer registry in the host's store.
	Registry []applier.RegistryRow
}

// WithGeneration1 runs the node in the formats of generation 1: bare opcodes, 60-byte
// wraps without associated data, Raft payloads of suite 0x01 without a frame, and
// keys.json in version 2, which is a view that is rewritten after every change; the
// truth is keys.meta.json beside it. All members run in it or none. [Upgrade] is the
// way out.
//
// Generation 1 has no suite whose nonces are safe by themselves: call [Node.Admit]
// before every write that does not come through the log, and rotate before a key's
// epochs are used up, because then the node does not start. There are no rewraps, stops
// and destroys.
func WithGeneration1(g Generation1) Option { return func(o *options) { o.first = &g } }

// metaName is the file of version 3 beside a view of version 2.
const metaName = guard.MetaName

// first reports whether the node runs in generation-1 mode.
func (n *Node) first() bool { return n.opts.first != nil }

func (n *Node) generation() applier.Generation {
	if n.first() {
		return applier.Generation1
	}
	return applier.Generation2
}

// frame is what a sealed Raft payload begins with.
func (n *Node) frame() string {
	if n.first() {
		return ""
	}
	return raftMagic
}

// sealed reports whether a payload has to be opened: where the frame does not say so,
// the index does.
func (n *Node) sealed(index uint64, data []byte) bool {
	if n.first() {
		return len(data) > 0 && n.aboveCutover(index)
	}
	return framed(data)
}

// openFirst opens keys.meta.json, or makes it from what the reference system left.
func (n *Node) openFirst(ctx context.Context, dir string) error {
	n.view = filepath.Join(dir, generation1.FileName)
	opts := []sidecar.Option{sidecar.WithFS(n.opts.fsys), sidecar.WithName(metaName)}
	var err error
	n.file, err = sidecar.Open(ctx, dir, uint64(n.id), n.keks, opts...)
	if errors.Is(err, fs.ErrNotExist) {
		n.fresh = true
		n.file, err = sidecar.Replace(ctx, dir, uint64(n.id), n.keks, func(tx *sidecar.Tx) error {
			found, err := n.readView()
			if err != nil {
				return err
			}
			return n.takeOver(tx, found)
		}, opts...)
	}
	if err != nil {
		return n.refused(guard.Sidecar(err), dir)
	}
	// Under the lock nobody else is writing the view.
	return errors.Wrapf(durable.Recover(n.opts.fsys, n.view), "atrest: %s", n.view)
}

// readView reads keys.json; nil if there is none.
func (n *Node) readView() (*generation1.File, error) {
	b, _, err := durable.ReadFile(n.opts.fsys, n.view, generation1.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // There is none.
	}
	if err != nil {
		return nil, guard.View(errors.Wrap(err, "atrest: the keys of generation 1"))
	}
	f, err := generation1.Parse(b)
	return f, guard.View(errors.Wrapf(err, "atrest: %s", n.view))
}

// checkWritten refuses a keys.json that something else than this node has written since.
// One that cannot be read, or is not there, is written again.
func (n *Node) checkWritten(s *applier.State) error {
	f, err := n.readView()
	switch {
	case errors.Is(err, generation1.ErrVersion):
		return err
	case err != nil || f == nil:
		return nil //nolint:nilerr // It is only a view.
	}
	var ids []key.ID
	for id, k := range f.Keys {
		if k.Epoch > n.file.Epoch(id) {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		id := slices.Min(ids)
		return guard.ViewAhead(id, fmt.Sprintf("it has epoch %d, and that one %d", f.Keys[id].Epoch, n.file.Epoch(id)))
	}
	if f.Applied > s.Index() {
		return guard.ViewAhead(0, fmt.Sprintf("it is of entry %d, and that one of entry %d", f.Applied, s.Index()))
	}
	return nil
}

// takeOver makes keys.meta.json of what keys.json and the host's store say.
func (n *Node) takeOver(tx *sidecar.Tx, f *generation1.File) error {
	if f == nil {
		return nil
	}
	found := applier.Found{
		Index: max(n.opts.first.Applied, f.Applied), Storage: f.Storage, Raft: f.Raft,
		StorageCutover: applier.Cutover{Active: f.StorageActive, Index: f.StorageCutover},
		RaftCutover:    applier.Cutover{Active: f.RaftCutover != 0, Index: f.RaftCutover},
		Writers:        n.opts.first.Registry,
	}
	for id, k := range f.Keys {
		found.Keys = append(found.Keys, applier.Key{ID: id, Purpose: k.Purpose, Container: k.Wrapped})
		if k.Epoch > 0 {
			if err := tx.SetEpoch(id, k.Epoch); err != nil {
				return err
			}
		}
	}
	s, err := applier.TakeOver(found)
	if err != nil {
		return err
	}
	return tx.SetState(s.AppendJSON(nil))
}

// writeView rewrites keys.json from what is durable. n.mu is held.
func (n *Node) writeView(s *applier.State) error {
	if !n.first() {
		return nil
	}
	old, err := n.readView()
	if err != nil {
		old = nil // it is only a view
	}
	f := &generation1.File{
		Version: 2, Applied: s.Index(), StorageActive: s.StorageCutover().Active,
		StorageCutover: s.StorageCutover().Index, RaftCutover: s.RaftCutover().Index, Keys: map[key.ID]generation1.Key{},
	}
	for _, p := range purposes {
		k, _ := s.Active(p)
		if p == key.Storage {
			f.Storage = k.ID
		} else {
			f.Raft = k.ID
		}
	}
	for k := range s.Keys() {
		created := time.Now().UTC().Format(time.RFC3339)
		if old != nil && old.Keys[k.ID].Created != "" {
			created = old.Keys[k.ID].Created
		}
		f.Keys[k.ID] = generation1.Key{Purpose: k.Purpose, Wrapped: k.Container, Created: created, Epoch: n.file.Epoch(k.ID)}
	}
	b, err := f.Append(nil)
	if err != nil {
		return err
	}
	return errors.Wrapf(durable.WriteFile(n.opts.fsys, n.view, b), "atrest: %s, the view of %s", n.view, n.file.Path())
}

// exhausted refuses what generation 1 has no safe nonces for.
func (n *Node) exhausted(claims []claim) error {
	if !n.first() {
		return nil
	}
	for _, c := range claims {
		if c.epoch == 0 {
			return guard.EpochExhausted(c.id, n.file.Epoch(c.id))
		}
	}
	return nil
}

// recount goes on under an epoch that was raised, where seals do not wait for the
// registration, and under none where none is left. n.mu is held.
func (n *Node) recount(id key.ID) error {
	k, ok := n.State().Key(id)
	if !n.first() || !ok {
		return nil
	}
	n.spent[id] = n.epochs[id] == 0
	if n.epochs[id] != 0 {
		return n.settle(k.Purpose)
	}
	if have, sealing := n.keys.Active(k.Purpose); sealing && have == id {
		if err := n.keys.Deactivate(k.Purpose); err != nil {
			return err
		}
	}
	return guard.EpochExhausted(id, n.file.Epoch(id))
}

// Admit returns once the active storage key is one that this load is registered for, so
// that no other load can count the same nonces. In generation-1 mode a host calls it
// before each write that does not come through the log; in generation 2 it returns at
// once, because seals need no registration there.
func (n *Node) Admit(ctx context.Context) error {
	for {
		ch := n.change()
		if n.admitted() {
			return nil
		}
		if err := n.wait(ctx, ch); err != nil {
			return errors.Wrap(err, "atrest: waiting for the registration of this load")
		}
	}
}

func (n *Node) admitted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.first() || !n.values.Load() {
		return true
	}
	k, ok := n.State().Active(key.Storage)
	return ok && n.counted[k.ID]
}
