package atrest

import (
	"context"
	"crypto/rand"
	"io/fs"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar"
)

// Open takes the directory of a node into use: it locks it, refuses to start
// where that would do harm, unwraps all keys, and takes an epoch of its own for
// each active one. A directory without keys.json gets one.
//
// The errors of package guard say what an operator has to do. One that matches
// [ErrRetry] may pass: no active key could be unwrapped, because the key service
// did not answer. Close ends the node.
func Open(ctx context.Context, cfg Config, opts ...Option) (*Node, error) {
	o := with(opts)
	if err := cfg.check(o); err != nil {
		return nil, err
	}
	n, err := newNode(cfg, o)
	if err != nil {
		return nil, err
	}
	if err := n.open(ctx, cfg); err != nil {
		if errors.Is(err, guard.ErrKEKUnreachable) {
			err = retry(err)
		}
		return nil, errors.CombineErrors(err, n.Close())
	}
	return n, nil
}

func newNode(cfg Config, o options) (*Node, error) {
	n := &Node{
		opts:     o,
		name:     cfg.Name,
		id:       nodeid.Derive(cfg.Name),
		keks:     cfg.KEK,
		propose:  cfg.Propose,
		epochs:   map[key.ID]uint16{},
		counted:  map[key.ID]bool{},
		proposed: map[key.ID]uint16{},
		spent:    map[key.ID]bool{},
		loaded:   map[key.ID]bool{},
		missing:  map[key.ID]*missing{},
		changed:  make(chan struct{}),
		calls:    make(chan struct{}, maxCalls),
	}
	if !n.first() {
		rand.Read(n.load[:]) // generation 1 has no place for it
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.state.Store(applier.New(n.generation()))
	storeOpts := []keystore.Option{keystore.WithLimits(o.limits), keystore.WithObserver(meter{n}), keystore.WithSealing(o.sealing...)}
	if o.extended {
		storeOpts = append(storeOpts, keystore.WithExtendedOnly())
	}
	var err error
	if n.keys, err = keystore.New(storeOpts...); err != nil {
		return nil, configError("limits: %v", err)
	}
	return n, nil
}

func (n *Node) open(ctx context.Context, cfg Config) error {
	n.observe(HardwareFavours{Suite: envelope.Favoured()})
	if err := guard.Members(n.opts.members); err != nil {
		return err
	}
	if err := n.openFile(ctx, cfg.Dir); err != nil {
		return err
	}
	if err := guard.Filesystem(n.opts.fsys, cfg.Dir); err != nil {
		return err
	}
	state, err := n.stored()
	if err != nil {
		return err
	}
	if err := n.checkRows(state, n.file.Epoch); err != nil {
		return err
	}
	if err := n.settleGenerations(cfg.Dir, state); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	deks, err := n.unwrapAll(ctx, state)
	if err != nil {
		return err
	}
	return n.adopt(state, deks)
}

// openFile opens keys.json or makes it, and holds the directory's lock then.
func (n *Node) openFile(ctx context.Context, dir string) error {
	if n.first() {
		return n.openFirst(ctx, dir)
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	file, err := sidecar.Open(ctx, dir, uint64(n.id), n.keks, sidecar.WithFS(n.opts.fsys))
	if errors.Is(err, fs.ErrNotExist) {
		n.fresh = true
		if err := guard.NotGeneration1(n.opts.fsys, dir); err != nil {
			return err
		}
		file, err = sidecar.Create(ctx, dir, uint64(n.id), n.keks, sidecar.WithFS(n.opts.fsys))
	}
	if err != nil {
		return n.refused(guard.Sidecar(err), dir)
	}
	n.file = file
	return nil
}

// stored is the key state in the file.
func (n *Node) stored() (*applier.State, error) {
	text := n.file.State()
	if string(text) == "null" {
		return applier.New(n.generation()), nil
	}
	s, err := applier.ParseJSON(text)
	if err == nil && s.Generation() != n.generation() {
		err = errors.Newf("it is of %v, and this node runs in %v", s.Generation(), n.generation())
	}
	return s, errors.Wrapf(err, "atrest: the key state in %s", n.file.Path())
}

// refused finds out whether an error that is no refusal is what a file system says
// that cannot keep files durable.
func (n *Node) refused(err error, dir string) error {
	if errors.As(err, new(*guard.Refusal)) {
		return err
	}
	if why := guard.Filesystem(n.opts.fsys, dir); errors.Is(why, guard.ErrFilesystem) {
		return why
	}
	return err
}

// checkRows compares what the registry says about this node with the epochs that its
// own file has.
func (n *Node) checkRows(s *applier.State, epoch func(key.ID) uint16) error {
	for k := range s.Keys() {
		row, ok := s.Writer(k.ID, n.id.Node16())
		if !ok {
			continue
		}
		if err := guard.EpochRollback(n.id, epoch(k.ID), row); err != nil {
			return err
		}
	}
	return nil
}

// adopt takes the state that the file holds into use. n.mu is held.
func (n *Node) adopt(s *applier.State, deks map[key.ID]key.DEK) error {
	n.publish(s)
	if err := n.exhausted(s); err != nil {
		return err
	}
	used := n.reserved(s)
	if err := n.write(s, n.ownRows(s)); err != nil {
		return err
	}
	return n.syncAll(s, deks, used)
}
