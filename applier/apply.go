package applier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// ApplyBytes is Apply for an entry that is not parsed yet. One that was applied
// before is not even looked at, and one that is malformed is rejected.
func (s *State) ApplyBytes(index uint64, entry []byte) (*State, Outcome, error) {
	switch done, err := s.replayed(index); {
	case err != nil:
		return s, Outcome{}, err
	case done:
		return s, Outcome{Kind: NoOp, Why: ErrReplayed}, nil
	}
	e, err := s.gen.Parse(entry)
	if errors.Is(err, ErrMalformed) {
		// The rejection says the rest itself.
		detail := strings.TrimSuffix(strings.TrimPrefix(err.Error(), "applier: "), ": "+ErrMalformed.Error())
		return s, Outcome{Kind: Rejected, Why: &Rejection{Reason: ErrMalformed, Detail: detail}}, nil
	}
	if err != nil {
		return s, Outcome{}, err
	}
	return s.Apply(index, e)
}

// Apply returns the state that an entry leads to, and what became of the entry.
// The state is s itself unless the outcome is [Applied]. An error, after which
// there is no outcome, stops the replica. The entry is one that [Generation.Append]
// takes; its slices become part of the state and must not be changed any more.
func (s *State) Apply(index uint64, e Entry) (*State, Outcome, error) {
	switch done, err := s.replayed(index); {
	case err != nil:
		return s, Outcome{}, err
	case done:
		return s, Outcome{Kind: NoOp, Op: e.op(), Why: ErrReplayed}, nil
	}
	t := &transition{next: *s, index: index, op: e.op(), keysShared: true, writersShared: true}
	err := t.apply(e)
	var rejection *Rejection
	switch {
	case err == nil:
		t.next.index = index
		return &t.next, Outcome{Kind: Applied, Op: t.op, Keys: t.keys, Writers: t.writers, Registration: t.registered}, nil
	case errors.Is(err, ErrDuplicate):
		return s, Outcome{Kind: NoOp, Op: t.op, Why: ErrDuplicate}, nil
	case errors.As(err, &rejection):
		if planted.Has(planted.RejectedAdvances) {
			next := *s
			next.index = index
			return &next, Outcome{Kind: Rejected, Op: t.op, Why: rejection}, nil
		}
		return s, Outcome{Kind: Rejected, Op: t.op, Why: rejection}, nil
	default:
		return s, Outcome{}, err
	}
}

func (s *State) replayed(index uint64) (bool, error) {
	if index == 0 {
		return false, errors.Wrap(ErrIndex, "applier")
	}
	return index <= s.index, nil
}

// Trial says what would become of an entry if it came next.
func (s *State) Trial(e Entry) (Outcome, error) {
	_, o, err := s.Apply(s.index+1, e)
	return o, err
}

// transition is a state in the making. What it shares with the old one it copies
// before it changes it.
type transition struct {
	next  State
	index uint64
	op    Op

	keysShared, writersShared bool

	keys       []key.ID
	writers    []Writer
	registered Registered
}

func (t *transition) apply(e Entry) error {
	if first, ok := e.(Bootstrap); ok {
		return t.bootstrap(first)
	}
	if !t.next.Bootstrapped() {
		return t.reject(ErrNotBootstrapped, 0, 0)
	}
	switch e := e.(type) {
	case Registration:
		return t.register(e)
	case Rotation:
		return t.rotate(e)
	case Rewrap:
		return t.rewrap(e)
	case Stop:
		return t.stop(e)
	case Destroy:
		return t.destroy(e)
	case WriterGone:
		return t.writerGone(e)
	case BackupAdd:
		return t.backupAdd(e)
	case BackupForget:
		return t.backupForget(e)
	case EnableStorage:
		return t.enable(&t.next.storage, key.Storage, e.Key, e.Proposer)
	case EnableRaft:
		return t.enable(&t.next.raft, key.Raft, e.Key, e.Proposer)
	}
	return errors.Wrapf(ErrInvariant, "applier: entry %T", e)
}

func (t *transition) reject(reason error, id key.ID, n nodeid.ID) error {
	return &Rejection{Op: t.op, Reason: reason, Key: id, Node: n}
}

func (t *transition) rejectf(reason error, id key.ID, n nodeid.ID, format string, args ...any) error {
	return &Rejection{Op: t.op, Reason: reason, Key: id, Node: n, Detail: fmt.Sprintf(format, args...)}
}

// key returns a key for changing it.
func (t *transition) key(id key.ID) (*Key, error) {
	i, ok := t.next.find(id)
	if !ok {
		return nil, t.reject(ErrUnknownKey, id, 0)
	}
	t.ownKeys()
	return &t.next.keys[i], nil
}

func (t *transition) ownKeys() {
	if t.keysShared {
		t.next.keys, t.keysShared = slices.Clone(t.next.keys), false
	}
}

func (t *transition) changed(id key.ID) {
	if !slices.Contains(t.keys, id) {
		t.keys = append(t.keys, id)
	}
}

// insertKey adds a new key, which is active.
func (t *transition) insertKey(w WrappedKey, p key.Purpose) error {
	k := Key{ID: w.ID, Purpose: p, State: key.Active, Container: w.Wrap, Created: t.index}
	if err := t.describe(&k); err != nil {
		return err
	}
	if t.next.gen != Generation1 {
		for i := range t.next.keys {
			if other := &t.next.keys[i]; other.Check == k.Check {
				return t.rejectf(ErrKeyReused, w.ID, 0, "it is key %s", other.ID)
			}
		}
	}
	if len(t.next.keys) == MaxKeys {
		return t.rejectf(ErrLimit, w.ID, 0, "%d keys", MaxKeys)
	}
	if err := t.weigh(len(w.Wrap)); err != nil {
		return err
	}
	t.ownKeys()
	i, _ := t.next.find(w.ID)
	t.next.keys = slices.Insert(t.next.keys, i, k)
	t.changed(w.ID)
	return nil
}

// describe checks a key's container and takes the check value from it.
func (t *transition) describe(k *Key) error {
	if k.ID == 0 {
		return t.rejectf(ErrContainer, 0, 0, "%v", key.ErrReservedID)
	}
	h, err := t.next.header(k.Container)
	if err != nil {
		return t.rejectf(ErrContainer, k.ID, 0, "%v", err)
	}
	if t.next.gen == Generation1 {
		return nil
	}
	if h.ID != k.ID || h.Purpose != k.Purpose || h.Cluster != t.next.cluster {
		return t.rejectf(ErrContainer, k.ID, 0, "it is that of %v key %s of cluster %s", h.Purpose, h.ID, h.Cluster)
	}
	k.Check = h.Check
	return nil
}

// header reads the header of a wrapped key; generation 1 has none.
func (s *State) header(wrap []byte) (key.Header, error) {
	if s.gen == Generation1 {
		if len(wrap) == 0 || len(wrap) > MaxWrap1 {
			return key.Header{}, errors.Newf("a wrapped key of %d bytes, want 1 to %d", len(wrap), MaxWrap1)
		}
		return key.Header{}, nil
	}
	c, err := key.ParseContainer(wrap)
	return c.Header, err
}

// weigh counts more bytes of containers.
func (t *transition) weigh(more int) error {
	if t.next.containers+more > MaxContainers {
		return t.rejectf(ErrLimit, 0, 0, "%d bytes of containers", MaxContainers)
	}
	t.next.containers += more
	return nil
}
