package atrest

import (
	"context"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
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
