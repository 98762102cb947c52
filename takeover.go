package atrest

import (
	"context"
	"runtime"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// found is the keys.json that is to be taken over, nil if there is none with keys.
func (n *Node) found() (*generation1.File, error) {
	f, err := n.readView()
	if err != nil || f == nil || len(f.Keys) == 0 {
		return nil, err
	}
	if !n.opts.first.TakeOver {
		return nil, guard.NotTakenOver(n.view)
	}
	info, err := n.opts.fsys.Lstat(n.view)
	if err != nil {
		return nil, errors.Wrapf(err, "atrest: %s", n.view)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, guard.Sidecar(errors.Wrapf(sidecar.ErrInsecureMode, "atrest: %s: got %04o, want 0600", n.view, mode))
	}
	if applied := n.opts.first.Applied; applied < f.Applied {
		return nil, configError("%s is as of entry %d, and Generation1.Applied is %d: let the reference system apply the log first", n.view, f.Applied, applied)
	}
	return f, nil
}

// takeOver makes keys.meta.json of what keys.json and the host's store say, once all has
// been looked at that refuses a start. CatchUp writes it.
func (n *Node) takeOver(ctx context.Context, dir string, f *generation1.File, opts []sidecar.Option) error {
	s, err := n.foundState(f)
	if err != nil {
		return err
	}
	if err := n.checkFound(ctx, s, f); err != nil {
		return err
	}
	if err := guard.Filesystem(n.opts.fsys, dir); err != nil {
		return err
	}
	timed, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	n.fresh, n.taking = true, true
	n.file, err = sidecar.Draft(timed, dir, uint64(n.id), n.keks, func(tx *sidecar.Tx) error {
		for id, k := range f.Keys {
			if k.Epoch > 0 {
				if err := tx.SetEpoch(id, k.Epoch); err != nil {
					return err
				}
			}
		}
		return tx.SetState(s.AppendJSON(nil))
	}, opts...)
	if err != nil {
		return n.refused(guard.Sidecar(err), dir)
	}
	return nil
}

// foundState is the state that a keys.json of the reference system stands for.
func (n *Node) foundState(f *generation1.File) (*applier.State, error) {
	found := applier.Found{
		Index: n.opts.first.Applied, Storage: f.Storage, Raft: f.Raft,
		StorageCutover: applier.Cutover{Active: f.StorageActive, Index: f.StorageCutover},
		RaftCutover:    applier.Cutover{Active: f.RaftCutover != 0, Index: f.RaftCutover},
		Writers:        n.opts.first.Registry,
	}
	for id, k := range f.Keys {
		found.Keys = append(found.Keys, applier.Key{ID: id, Purpose: k.Purpose, Container: k.Wrapped})
	}
	s, err := applier.TakeOver(found)
	return s, errors.Wrapf(err, "atrest: taking over %s", n.view)
}

// checkFound refuses what every start refuses, before a take-over is final.
func (n *Node) checkFound(ctx context.Context, s *applier.State, f *generation1.File) error {
	if err := n.checkRows(s, func(id key.ID) uint16 { return f.Keys[id].Epoch }); err != nil {
		return err
	}
	var results []guard.Unwrap
	for _, u := range n.unwrapKeys(ctx, slices.Collect(s.Keys())) {
		results = append(results, u.result())
	}
	if err := guard.Unwrapped(results); err != nil {
		return err
	}
	for _, p := range purposes {
		if k, ok := s.Active(p); ok {
			if err := guard.EpochExhausted(k.ID, f.Keys[k.ID].Epoch); err != nil {
				return err
			}
		}
	}
	return nil
}

// endTakeOver makes a take-over durable, where there is one in this start, unless the
// host is at another index: the state would be that of entries that it has not applied,
// or lack some. n.mu is held.
func (n *Node) endTakeOver(applied uint64) error {
	if !n.taking {
		return nil
	}
	if want := n.opts.first.Applied; applied != want && applied != 0 {
		return configError("Generation1.Applied is %d, and View.Applied %d: the state of a take-over is that of the host's applied index; nothing was taken over", want, applied)
	}
	if err := n.file.Publish(); err != nil {
		return err
	}
	n.taking = false
	if err := n.writeView(n.State()); err != nil {
		n.taking = true
		return err
	}
	defer n.wake()
	for _, p := range purposes {
		if err := n.settle(p); err != nil {
			return err
		}
	}
	return nil
}
