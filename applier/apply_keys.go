package applier

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

func (t *transition) bootstrap(e Bootstrap) error {
	if t.next.Bootstrapped() {
		if t.same(e.Storage, key.Storage) && t.same(e.Raft, key.Raft) {
			return ErrDuplicate
		}
		return t.reject(ErrBootstrapped, 0, 0)
	}
	if e.Storage.ID == e.Raft.ID {
		return t.reject(ErrKeyExists, e.Raft.ID, 0)
	}
	if t.next.gen != Generation1 {
		h, err := t.next.header(e.Storage.Wrap)
		switch {
		case err != nil:
			return t.rejectf(ErrContainer, e.Storage.ID, 0, "%v", err)
		case h.Cluster.IsZero():
			return t.rejectf(ErrContainer, e.Storage.ID, 0, "it names no cluster")
		}
		t.next.cluster = h.Cluster
	}
	if err := t.insertKey(e.Storage, key.Storage); err != nil {
		return err
	}
	if err := t.insertKey(e.Raft, key.Raft); err != nil {
		return err
	}
	rows := slices.Clone(e.Writers) // in the order of the registry, so that each goes to its end
	slices.SortStableFunc(rows, func(a, b WriterRow) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Node.Node16(), b.Node.Node16()))
	})
	for _, row := range rows {
		if _, known := t.next.find(row.Key); !known {
			return t.reject(ErrForeignRow, row.Key, row.Node)
		}
		if err := t.reserve(row); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether a key is here as it would come.
func (t *transition) same(w WrappedKey, p key.Purpose) bool {
	k, ok := t.next.Key(w.ID)
	return ok && k.Purpose == p && k.Container != nil && bytes.Equal(k.Container, w.Wrap)
}

func (t *transition) rotate(e Rotation) error {
	if e.Proposer.Key != e.Key.ID {
		return t.reject(ErrForeignRow, e.Proposer.Key, e.Proposer.Node)
	}
	if _, taken := t.next.find(e.Key.ID); taken {
		if t.same(e.Key, e.Purpose) {
			return ErrDuplicate
		}
		return t.reject(ErrKeyExists, e.Key.ID, 0)
	}
	former, rotates := t.next.Active(e.Purpose)
	if err := t.insertKey(e.Key, e.Purpose); err != nil {
		return err
	}
	if rotates {
		k, err := t.key(former.ID)
		if err != nil {
			return err
		}
		k.State, k.Retired = key.OpenOnly, t.index
		t.changed(former.ID)
	}
	return t.reserve(e.Proposer)
}

func (t *transition) rewrap(e Rewrap) error {
	different := false
	for _, w := range e.Keys {
		k, err := t.key(w.ID)
		switch {
		case err != nil:
			return err
		case k.State == key.Destroyed:
			return t.reject(ErrKeyDestroyed, w.ID, 0)
		case bytes.Equal(k.Container, w.Wrap):
			continue
		}
		fresh := Key{ID: k.ID, Purpose: k.Purpose, Container: w.Wrap}
		if err := t.describe(&fresh); err != nil {
			return err
		}
		if fresh.Check != k.Check {
			return t.rejectf(ErrContainer, w.ID, 0, "it holds another key")
		}
		if err := t.weigh(len(w.Wrap) - len(k.Container)); err != nil {
			return err
		}
		k.Container, k.Rewrapped = w.Wrap, t.index
		t.changed(w.ID)
		different = true
	}
	if !different {
		return ErrDuplicate
	}
	return nil
}

func (t *transition) stop(e Stop) error {
	k, err := t.key(e.Key)
	switch {
	case err != nil:
		return err
	case k.State == key.Active:
		return t.reject(ErrKeyActive, e.Key, 0)
	case k.State != key.OpenOnly:
		return ErrDuplicate
	}
	k.State, k.Stopped = key.Stopped, t.index
	t.changed(e.Key)
	return nil
}

func (t *transition) destroy(e Destroy) error {
	k, err := t.key(e.Key)
	switch {
	case err != nil:
		return err
	case k.State == key.Destroyed:
		return ErrDuplicate
	case k.State != key.Stopped:
		return t.reject(ErrNotStopped, e.Key, 0)
	case k.Stopped != e.Stopped:
		return t.rejectf(ErrStopIndex, e.Key, 0, "got %d, want %d", e.Stopped, k.Stopped)
	}
	for _, b := range t.next.backups {
		if b.needs(e.Key) {
			return t.rejectf(ErrBackup, e.Key, 0, "backup %s", b.ID)
		}
	}
	if !planted.Has(planted.DestroyWithoutEvidence) {
		if err := t.proved(e); err != nil {
			return err
		}
	}
	t.next.containers -= len(k.Container)
	k.State, k.Container, k.Destroyed = key.Destroyed, nil, t.index
	t.dropRows(e.Key)
	t.changed(e.Key)
	return nil
}

// proved checks that every member, and every writer that may come back, has shown
// that it needs a key no more.
func (t *transition) proved(e Destroy) error {
	if len(e.Members) == 0 {
		return t.rejectf(ErrEvidence, e.Key, 0, "no members are named")
	}
	shown := map[nodeid.ID]bool{}
	for _, v := range e.Evidence {
		if need := v.need(e.Stopped); need != "" {
			return t.rejectf(ErrEvidence, e.Key, v.Node, "%s", need)
		}
		shown[v.Node] = true
	}
	for _, m := range e.Members {
		if m == 0 {
			return t.reject(ErrNodeZero, e.Key, 0)
		}
		if !shown[m] {
			return t.rejectf(ErrEvidence, e.Key, m, "this member has shown nothing")
		}
	}
	for _, w := range t.next.rows(e.Key) {
		if !shown[w.Node] && !t.next.Gone(w.Node) {
			return t.rejectf(ErrEvidence, e.Key, w.Node, "this node may have sealed under it, has shown nothing, and was not marked as gone")
		}
	}
	return nil
}

// need says what a node still needs a key for that was stopped at an index.
func (v Evidence) need(stopped uint64) string {
	switch {
	case v.Taken < stopped:
		return "the evidence is older than the stop"
	case v.Live != 0:
		return "values are sealed under it"
	case v.FirstLog <= stopped:
		return "the log reaches back to before the stop"
	case v.OldestSnapshot != 0 && v.OldestSnapshot < stopped:
		return "a snapshot is older than the stop"
	}
	return ""
}

func (t *transition) enable(c *Cutover, p key.Purpose, id key.ID, proposer WriterRow) error {
	if c.Active {
		return ErrDuplicate
	}
	if active, ok := t.next.Active(p); !ok || active.ID != id {
		return t.reject(ErrStaleMarker, id, 0)
	}
	if proposer.Key != id {
		return t.reject(ErrForeignRow, proposer.Key, proposer.Node)
	}
	*c = Cutover{Active: true, Index: t.index}
	return t.reserve(proposer)
}
