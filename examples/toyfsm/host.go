package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
)

// A cluster is what Raft is to a database: one log that every replica applies in
// the same order. Here it lies in memory, and the first replica leads.
type cluster struct {
	keks *kek.Set

	mu       sync.Mutex // of all that follows
	first    uint64     // index of log[0]
	log      [][]byte
	replicas []*replica
	snapshot snapshot // the newest one
}

// A snapshot is a replica's state at an index.
type snapshot struct {
	index  uint64
	values map[string]stored
	keys   []byte // the part of atrest
	keyed  bool   // it has some
}

// A replica is a database node: a map, and the encryption state beside it.
type replica struct {
	name    string
	node    *atrest.Node      // nil while it is down
	values  map[string]stored // its "disk"
	applied uint64            // as durable as values
	keyed   bool              // there are keys; as durable as values
}

// stored is a value as it lies on disk.
type stored struct {
	data   []byte
	sealed bool
}

// start opens a replica's encryption state and brings it to the end of the log.
// Its values, and the index up to which they are applied, survived.
func (c *cluster) start(ctx context.Context, r *replica, dir string) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.node, err = atrest.Open(ctx, atrest.Config{Dir: dir, Name: r.name, KEK: c.keks, Propose: c.proposeEntry})
	if err != nil {
		return err
	}
	if !slices.Contains(c.replicas, r) {
		c.replicas = append(c.replicas, r)
	}
	view := atrest.View{Applied: r.applied, First: c.first, HadKeys: r.keyed, Entries: c.entries}
	if c.snapshot.index > 0 { // it replaces what the log no longer has
		if err := r.node.Restore(ctx, c.snapshot.keys); err != nil {
			return err
		}
		view.Snapshot = c.snapshot.index
		if r.applied < c.snapshot.index {
			r.values, r.applied, r.keyed = maps.Clone(c.snapshot.values), c.snapshot.index, c.snapshot.keyed
			view.Applied = r.applied
		}
	}
	if err := r.node.CatchUp(ctx, view); err != nil {
		return err
	}
	err = c.entries(ctx, r.applied+1, c.last(), func(index uint64, data []byte) error {
		_, err := r.apply(index, data)
		return err
	})
	if err != nil {
		return err
	}
	return r.node.Ready(ctx)
}

// shutdown ends a replica's process. It may be proposing, which Close waits for.
func (c *cluster) shutdown(r *replica) error {
	c.mu.Lock()
	node := r.node
	r.node = nil
	c.mu.Unlock()
	return node.Close()
}

// entries reads the log for CatchUp and for replay.
func (c *cluster) entries(_ context.Context, from, to uint64, yield func(uint64, []byte) error) error {
	for i := max(from, c.first); i <= to; i++ {
		if err := yield(i, c.log[i-c.first]); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) last() uint64 { return c.first + uint64(len(c.log)) - 1 }

// propose seals a payload, puts it into the log and applies it everywhere, but for
// replicas that are down: they replay the log when they start.
func (c *cluster) propose(payload []byte) (outcome applier.Outcome, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leader := c.replicas[0].node
	if leader == nil {
		return outcome, errors.New("the leader is down")
	}
	data, err := leader.Raft().Seal(nil, payload)
	if err != nil {
		return outcome, err
	}
	c.log = append(c.log, data)
	for _, r := range c.replicas {
		if r.node == nil {
			continue
		}
		if outcome, err = r.apply(c.last(), data); err != nil && !errors.Is(err, atrest.ErrRejected) {
			return outcome, fmt.Errorf("replica %s stops: %w", r.name, err)
		}
	}
	return outcome, err
}

// proposeEntry is how nodes propose their own entries.
func (c *cluster) proposeEntry(_ context.Context, entry []byte) error {
	_, err := c.propose(entry)
	return err
}

// put is what a client calls. It must not be able to send an entry.
func (c *cluster) put(name, value string) error {
	payload := append(append([]byte(name), 0), value...)
	if err := c.replicas[0].node.CheckPayload(payload); err != nil {
		return err
	}
	_, err := c.propose(payload)
	return err
}

// README begins

// apply is the state machine.
func (r *replica) apply(index uint64, data []byte) (outcome applier.Outcome, err error) {
	payload, err := r.node.Raft().Open(nil, index, data)
	switch {
	case errors.Is(err, atrest.ErrRejected): // by every replica: the proposal has failed
	case err != nil:
		return outcome, err // stop, without advancing
	case r.node.IsEntry(payload):
		if outcome, err = r.node.Apply(index, payload); err != nil {
			return outcome, err
		}
	default:
		name, value, _ := bytes.Cut(payload, []byte{0})
		if err := r.store(string(name), value); err != nil {
			return outcome, err
		}
	}
	r.applied, r.keyed = index, r.node.State().Bootstrapped()
	return outcome, err
}

// store seals a value for its place. Every replica does so with a nonce of its
// own: their disks differ, their values do not.
func (r *replica) store(name string, value []byte) error {
	data, sealed, err := r.node.Storage().Seal(nil, value, []byte(name))
	if err != nil {
		return err
	}
	r.values[name] = stored{data, sealed}
	return nil
}

// README ends

// get opens a value.
func (r *replica) get(name string) (string, error) {
	v := r.values[name]
	value, err := r.node.Storage().Open(nil, v.data, []byte(name), v.sealed)
	return string(value), err
}

// compact takes a snapshot of the first replica and drops the log up to there.
func (c *cluster) compact() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.replicas[0]
	keys, err := r.node.Snapshot()
	if err != nil {
		return err
	}
	c.snapshot = snapshot{index: r.applied, values: maps.Clone(r.values), keys: keys, keyed: r.keyed}
	c.log, c.first = c.log[r.applied+1-c.first:], r.applied+1
	return nil
}
