package atrest

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"path/filepath"
	"runtime"
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

// Generation1 is what a host says of a directory in generation-1 mode. The zero value
// is that of a new cluster, and of every start after the first.
type Generation1 struct {
	// TakeOver is true for the one start that takes over the keys.json of the
	// reference system. Nothing authenticates that file: whoever may write to the
	// directory decides in that start what is active, what is sealed and which key
	// is which. Later starts believe keys.meta.json alone, and refuse to go on where
	// it is missing.
	TakeOver bool
	// Applied is the host's durable applied index, for a start that takes over: that of
	// keys.json or above it, and the one that [View] has. Where the store is in memory,
	// and View has 0, it is that of the last entry that the reference system applied.
	Applied uint64
	// Registry has the rows of the writer registry in the host's store, for a start
	// that takes over. [WithMirror] keeps them there.
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
		return !n.neverSealed(data) && n.aboveCutover(index)
	}
	return framed(data)
}

// neverSealed is true of an empty payload in generation 1.
func (n *Node) neverSealed(data []byte) bool { return n.first() && len(data) == 0 }

// openFirst opens keys.meta.json, or takes over what the reference system left, or begins.
func (n *Node) openFirst(ctx context.Context, dir string) error {
	n.view = filepath.Join(dir, generation1.FileName)
	if err := n.lockView(); err != nil {
		return n.refused(guard.Sidecar(err), dir)
	}
	opts := []sidecar.Option{sidecar.WithFS(n.opts.fsys), sidecar.WithName(metaName)}
	timed, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	file, err := sidecar.Open(timed, dir, uint64(n.id), n.keks, opts...)
	missing := errors.Is(err, fs.ErrNotExist)
	var found *generation1.File
	if missing || err == nil && n.opts.first.TakeOver && string(file.State()) == "null" && file.Through() == 0 {
		var refusal error
		if found, refusal = n.found(); refusal != nil {
			return errors.CombineErrors(refusal, closeIf(file))
		}
	}
	switch {
	case found != nil:
		if err := closeIf(file); err != nil {
			return err
		}
		return n.takeOver(ctx, dir, found, opts)
	case missing:
		n.fresh = true
		file, err = sidecar.Create(timed, dir, uint64(n.id), n.keks, opts...)
	}
	if err != nil {
		return n.refused(guard.Sidecar(err), dir)
	}
	n.file = file
	return nil
}

func closeIf(f *sidecar.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

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
	n.fresh, n.tookOver = true, true
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

// writeView rewrites keys.json from what is durable. In a start that takes over it
// waits for CatchUp, which may refuse. n.mu is held.
func (n *Node) writeView(s *applier.State) error {
	if !n.first() || n.tookOver {
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

// endTakeOver makes a take-over durable, where there is one in this start, unless the
// host is at another index: the state would be that of entries that it has not applied,
// or lack some. n.mu is held.
func (n *Node) endTakeOver(applied uint64) error {
	if !n.tookOver {
		return nil
	}
	if want := n.opts.first.Applied; applied != want && applied != 0 {
		return configError("Generation1.Applied is %d, and View.Applied %d: the state of a take-over is that of the host's applied index; nothing was taken over", want, applied)
	}
	if err := n.file.Publish(); err != nil {
		return err
	}
	n.tookOver = false
	if err := n.writeView(n.State()); err != nil {
		n.tookOver = true
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

// exhausted refuses to begin with a state that generation 1 has no safe nonces for. That
// a running node comes to one is no refusal: it seals nothing until the next rotation.
func (n *Node) exhausted(s *applier.State) error {
	if !n.first() {
		return nil
	}
	for _, c := range n.claims(s) {
		if c.epoch == 0 {
			return guard.EpochExhausted(c.id, math.MaxUint16)
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
	return guard.EpochExhausted(id, math.MaxUint16)
}

// Admit returns once the active storage key is one that this load is registered for, so
// that no other load can count the same nonces. In generation-1 mode a host calls it
// before each write that does not come through the log; in generation 2 it returns at
// once, because seals need no registration there.
//
// It is as sure as generation 1 can be. A rotation that commits after it is sealed under
// at once, by an epoch of this load's own that is not registered yet; and of two loads
// that ran from copies of one directory and proposed the same epoch, neither learns that
// the row is the other's. There the random start of every count is what keeps nonces
// apart.
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
