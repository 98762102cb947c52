package atrest

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Builders make entries, best on the leader. Each tries its entry on a copy of the
// state: what would not be applied is an error, a *[applier.Rejection] or
// [applier.ErrDuplicate]. Propose the bytes as they are, by the same path as any
// payload; between building and committing things may change, so the outcome of
// the entry counts.

// built encodes an entry that is good for the present state.
func (n *Node) built(e applier.Entry) ([]byte, error) {
	o, err := n.State().Trial(e)
	switch {
	case err != nil:
		return nil, err
	case o.Kind == applier.Rejected:
		return nil, o.Why
	case o.Kind == applier.NoOp:
		return nil, errors.Wrapf(o.Why, "atrest: %v would change nothing", o.Op)
	}
	b, err := n.generation().Append(nil, e)
	if err != nil && n.first() {
		return nil, errors.CombineErrors(configError("generation 1 has no %v", o.Op), err)
	}
	return b, err
}

// NewBootstrap makes the entry with which encryption begins: a cluster id, the
// first storage key and the first Raft key, wrapped and verified. members are all
// members of the cluster, this one among them; two whose nonces could collide are
// refused.
func (n *Node) NewBootstrap(ctx context.Context, members []nodeid.Member) ([]byte, error) {
	if n.State().Bootstrapped() {
		return nil, &applier.Rejection{Op: applier.OpBootstrap, Reason: applier.ErrBootstrapped}
	}
	ids, err := n.founders(members)
	if err != nil {
		return nil, err
	}
	cluster := key.NewClusterID()
	e := applier.Bootstrap{}
	if e.Storage, err = n.newKey(ctx, cluster, key.Storage, 0); err != nil {
		return nil, err
	}
	if e.Raft, err = n.newKey(ctx, cluster, key.Raft, e.Storage.ID); err != nil {
		return nil, err
	}
	for _, id := range ids {
		e.Writers = append(e.Writers, applier.WriterRow{Key: e.Storage.ID, Node: id}, applier.WriterRow{Key: e.Raft.ID, Node: id})
	}
	return n.built(e)
}

// founders are the ids of the members, once each. An id that is not given follows
// from the name.
func (n *Node) founders(members []nodeid.Member) ([]nodeid.ID, error) {
	members = slices.Clone(members)
	var ids []nodeid.ID
	for i, m := range members {
		switch id := nodeid.Derive(m.Name); {
		case m == nodeid.Member{}:
			return nil, errors.Newf("atrest: member %d of %d has neither name nor id", i+1, len(members))
		case m.ID == 0:
			members[i].ID = id
		case m.Name != "" && m.ID != id:
			return nil, errors.Newf("atrest: member %s cannot have the id %s, its name gives %s", m.Name, m.ID, id)
		}
		ids = append(ids, members[i].ID)
	}
	if err := guard.Members(members); err != nil {
		return nil, err
	}
	if !slices.Contains(ids, n.id) {
		return nil, errors.Newf("atrest: this node, %v, is not among the %d members", nodeid.Member{Name: n.name, ID: n.id}, len(members))
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// NewRotation makes the entry that brings a new key of a purpose and makes it the
// active one.
func (n *Node) NewRotation(ctx context.Context, p key.Purpose) ([]byte, error) {
	s := n.State()
	if !s.Bootstrapped() {
		return nil, &applier.Rejection{Op: applier.OpRotateDEK, Reason: applier.ErrNotBootstrapped}
	}
	if !p.Valid() {
		return nil, errors.Wrapf(key.ErrPurpose, "atrest: %v", p)
	}
	w, err := n.newKey(ctx, s.Cluster(), p, 0)
	if err != nil {
		return nil, err
	}
	return n.built(applier.Rotation{Key: w, Purpose: p, Proposer: applier.WriterRow{Key: w.ID, Node: n.id}})
}

// newKey makes a DEK, wraps it, and keeps it until its entry commits.
func (n *Node) newKey(ctx context.Context, cluster key.ClusterID, p key.Purpose, other key.ID) (applier.WrappedKey, error) {
	id, dek := unusedID(n.State(), other), key.NewDEK()
	w, err := n.wrap(ctx, cluster, id, p, dek)
	if err != nil {
		return w, err
	}
	h := key.Header{Cluster: cluster, ID: id, Purpose: p, Check: key.CheckOf(dek)}
	if n.first() {
		h = headerFirst(id, w.Wrap)
	}
	n.keep(h, dek)
	return w, nil
}

// keep keeps a DEK until its entry commits, unless the node has it already.
func (n *Node) keep(h key.Header, dek key.DEK) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.loaded[h.ID] {
		n.prepared.keep(h, dek, time.Now())
	}
}

// NewRewrap makes the entries that wrap keys for the KEKs that this node has now,
// under the same ids; without ids all keys that are not destroyed. They come in as
// many entries as the size of one allows, in an order that does not matter.
func (n *Node) NewRewrap(ctx context.Context, ids ...key.ID) ([][]byte, error) {
	s := n.State()
	if len(ids) == 0 {
		ids = undestroyed(s)
	}
	ids = set(ids)
	keys := make([]applier.WrappedKey, len(ids))
	err := inParallel(len(ids), func(i int) (err error) {
		keys[i], err = n.rewrap(ctx, s, ids[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for batch := range batches(keys) {
		entry, err := n.built(applier.Rewrap{Keys: batch})
		switch {
		case err == nil:
			entries = append(entries, entry)
		case !errors.Is(err, applier.ErrDuplicate): // which it is where the KEKs wrap alike each time
			return nil, err
		}
	}
	return entries, nil
}

// batches are the keys in groups of which each fits into an entry.
func batches(keys []applier.WrappedKey) iter.Seq[[]applier.WrappedKey] {
	return func(yield func([]applier.WrappedKey) bool) {
		for len(keys) > 0 {
			n, size := 0, rewrapOverhead
			for ; n < len(keys); n++ {
				if size += len(keys[n].Wrap) + rewrapOverhead; n > 0 && size > applier.MaxRewrap {
					break
				}
			}
			if !yield(keys[:n:n]) {
				return
			}
			keys = keys[n:]
		}
	}
}

// rewrapOverhead is more than an entry needs beside a container, and than it has
// before the first.
const rewrapOverhead = 16

// rewrap wraps one key anew; the result was unwrapped again.
func (n *Node) rewrap(ctx context.Context, s *applier.State, id key.ID) (applier.WrappedKey, error) {
	k, ok := s.Key(id)
	switch {
	case !ok:
		return applier.WrappedKey{}, &applier.Rejection{Op: applier.OpRewrapDEKs, Reason: applier.ErrUnknownKey, Key: id}
	case k.State == key.Destroyed:
		return applier.WrappedKey{}, &applier.Rejection{Op: applier.OpRewrapDEKs, Reason: applier.ErrKeyDestroyed, Key: id}
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	start := time.Now()
	container, err := n.keks.RewrapDEK(ctx, k.Container)
	n.observe(KEKCall{Op: "rewrap", Key: id, Took: time.Since(start), Err: err})
	if err != nil {
		return applier.WrappedKey{}, failedKEK(err, "rewrap", id)
	}
	return applier.WrappedKey{ID: id, Wrap: container}, nil
}

// NewStop makes the entry after which nothing is sealed under a key any more.
func (n *Node) NewStop(id key.ID) ([]byte, error) { return n.built(applier.Stop{Key: id}) }

// NewDestroy makes the entry that gives up a stopped key. members are all members
// of the cluster; evidence is needed of each of them and of every node that may
// have sealed under the key and was not marked as gone.
func (n *Node) NewDestroy(id key.ID, members []nodeid.ID, evidence []applier.Evidence) ([]byte, error) {
	k, ok := n.State().Key(id)
	if !ok {
		return nil, &applier.Rejection{Op: applier.OpDestroy, Reason: applier.ErrUnknownKey, Key: id}
	}
	evidence = slices.Clone(evidence)
	slices.SortFunc(evidence, func(a, b applier.Evidence) int { return cmp.Compare(a.Node, b.Node) })
	return n.built(applier.Destroy{Key: id, Stopped: k.Stopped, Members: set(members), Evidence: slices.Compact(evidence)})
}

// NewWriterGone makes the entry that says that a node will never come back: it
// owes no evidence, and cannot register any more.
func (n *Node) NewWriterGone(node nodeid.ID) ([]byte, error) {
	return n.built(applier.WriterGone{Node: node})
}

// NewBackup makes the entry that registers a backup, so that none of the keys it
// needs is destroyed; without ids all keys that are not destroyed.
func (n *Node) NewBackup(backup applier.BackupID, ids ...key.ID) ([]byte, error) {
	if len(ids) == 0 {
		ids = undestroyed(n.State())
	}
	return n.built(applier.BackupAdd{Backup: backup, Keys: set(ids)})
}

// NewBackupForgotten makes the entry that says that a backup exists no more.
func (n *Node) NewBackupForgotten(backup applier.BackupID) ([]byte, error) {
	return n.built(applier.BackupForget{Backup: backup})
}

// NewEnableStorage makes the entry of the storage cutover: values that are applied
// after it are sealed. There is no way back.
func (n *Node) NewEnableStorage() ([]byte, error) {
	k, _ := n.State().Active(key.Storage)
	return n.built(applier.EnableStorage{Key: k.ID, Proposer: applier.WriterRow{Key: k.ID, Node: n.id}})
}

// NewEnableRaft makes the entry of the Raft cutover: payloads with a higher index
// are sealed, and rejected if they are not. There is no way back.
func (n *Node) NewEnableRaft() ([]byte, error) {
	if n.opts.several {
		return nil, configError("the Raft cutover is not possible with several groups")
	}
	k, _ := n.State().Active(key.Raft)
	return n.built(applier.EnableRaft{Key: k.ID, Proposer: applier.WriterRow{Key: k.ID, Node: n.id}})
}

// NewRegistration makes the entry that registers this load for the active key of a
// purpose. Nodes propose it themselves, from Ready on; a host needs it only where
// it does so in its own way.
func (n *Node) NewRegistration(p key.Purpose) ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k, ok := n.State().Active(p)
	if !ok {
		return nil, &applier.Rejection{Op: applier.OpRegistration, Reason: applier.ErrNotBootstrapped}
	}
	if n.epochs[k.ID] == 0 {
		return nil, errors.Newf("atrest: this node has no epoch left for key %s; rotate it", k.ID)
	}
	entry, err := n.built(n.registration(k.ID))
	if err == nil {
		n.proposed[k.ID] = n.epochs[k.ID]
	}
	return entry, err
}

// undestroyed are the ids of the keys that a state has a container of.
func undestroyed(s *applier.State) (ids []key.ID) {
	for k := range s.Keys() {
		if k.State != key.Destroyed {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// set returns a sorted copy without repetitions, as entries want it.
func set[E cmp.Ordered](list []E) []E {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}
