package atrest

import (
	"fmt"
	"io/fs"
	"maps"
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

// lockView keeps a process in generation 2 out, whose file keys.json would be.
func (n *Node) lockView() error {
	lock, err := n.opts.fsys.Lock(n.view + ".lock")
	if held := (*durable.LockedError)(nil); errors.As(err, &held) {
		return &sidecar.LockedError{Path: n.view, PID: held.PID, Err: err}
	}
	if err != nil {
		return errors.Wrapf(err, "atrest: %s", n.view)
	}
	n.lock = lock
	// Under the lock nobody else is writing the view.
	return errors.Wrapf(durable.Recover(n.opts.fsys, n.view), "atrest: %s", n.view)
}

func (n *Node) unlockView() error {
	if n.lock == nil {
		return nil
	}
	lock := n.lock
	n.lock = nil
	return lock.Close()
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
	for _, id := range slices.Sorted(maps.Keys(f.Keys)) {
		if _, known := s.Key(id); !known {
			return guard.ViewAhead(id, "that one does not have it")
		}
		if have, got := n.file.Epoch(id), f.Keys[id].Epoch; got > have {
			return guard.ViewAhead(id, fmt.Sprintf("it has epoch %d, and that one %d", got, have))
		}
	}
	if f.Applied > s.Index() {
		return guard.ViewAhead(0, fmt.Sprintf("it is of entry %d, and that one of entry %d", f.Applied, s.Index()))
	}
	return nil
}

// settleGenerations looks at the other one of the two files of a directory: what the
// reference system may have written since, or what an upgrade has left.
func (n *Node) settleGenerations(dir string, s *applier.State) error {
	if n.first() {
		return n.checkWritten(s)
	}
	meta := filepath.Join(dir, metaName)
	if _, err := n.opts.fsys.Lstat(meta); err != nil || !s.Bootstrapped() {
		return nil //nolint:nilerr // It is not there, or an upgrade has not come so far.
	}
	// If that fails the next start tries again: nobody needs the file.
	_ = n.retire(dir, meta)
	return nil
}

// writeView rewrites keys.json from what is durable. In a start that takes over it
// waits for CatchUp, which may refuse. n.mu is held.
func (n *Node) writeView(s *applier.State) error {
	if !n.first() || n.taking {
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
