package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// ViolationError is something that must never happen. Rule is the same for all
// violations of a kind.
type ViolationError struct {
	Rule   string
	Detail string
	Line   int // of the script's steps, from 1; above their number: the healing at the end
	Step   string
}

func (v *ViolationError) Error() string {
	return fmt.Sprintf("sim: %s: %s (step %d: %s)", v.Rule, v.Detail, v.Line, v.Step)
}

// frameMagic begins a sealed Raft payload. It is written down here once more, from
// docs/FORMATS.md.
const frameMagic = "\xa7RP\x02"

// what becomes of a committed entry
type fate uint8

const (
	nothing  fate = iota // the engine's own
	rejected             // by its index, before it is opened
	change               // of keys
	write                // of a value
)

// verdict is what every replica has to make of an entry.
type verdict struct {
	fate    fate
	outcome applier.Outcome
	state   *applier.State // after it
	truth   *truth         // after it
}

// truth is what the store must hold: the number of each key's value, 0 for none.
type truth [valueKeys]uint64

// oracle knows what is right. Its methods are called by one goroutine at a time, but
// for sealed.
type oracle struct {
	c     *Cluster
	model *model
	// states has the key state by index, as far as it changed there.
	states map[uint64]*applier.State

	mu         sync.Mutex
	nonces     map[nonce]load // which process sealed with it
	loads      map[place]load
	generation int // of the log: the number of times a quorum was set back
}

type nonce struct {
	key   key.ID
	bytes [24]byte
}

// place is what only one load may count nonces under.
type place struct {
	key           key.ID
	node16, epoch uint16
}

type load struct{ process, generation int }

func newOracle(c *Cluster) *oracle {
	empty := applier.New(applier.Generation2)
	return &oracle{
		c:      c,
		model:  newModel(),
		states: map[uint64]*applier.State{0: empty},
		nonces: map[nonce]load{},
		loads:  map[place]load{},
	}
}

// before is the verdict on the entry before the one that is next.
func (o *oracle) before() verdict {
	if n := o.c.raft.last(); n > 0 {
		return o.c.raft.at(n).verdict
	}
	return verdict{state: o.states[0], truth: &truth{}}
}

// judge says what has to become of the next entry.
func (o *oracle) judge(e *entry) {
	before := o.before()
	e.state, e.truth = before.state, before.truth
	if e.data == nil {
		return
	}
	if o.rejects(e) {
		e.fate = rejected
		o.c.stats.RejectedPayloads++
		o.c.note("entry %d is rejected by its index", e.index)
		return
	}
	if !applier.IsEntry(e.plain) {
		e.fate = write
		k, n, err := parseValue(e.plain)
		if err != nil {
			o.c.violate("a command that nobody wrote", "entry %d: %v", e.index, err)
			return
		}
		o.c.note("entry %d writes key %d", e.index, k)
		t := *before.truth
		t[k] = n
		e.truth = &t
		return
	}
	e.fate = change
	next, outcome, err := before.state.ApplyBytes(e.index, e.plain)
	if err != nil {
		o.c.violate("an entry halts", "entry %d: %v", e.index, err)
		return
	}
	e.state, e.outcome = next, outcome
	if want := o.model.apply(e.index, e.plain); outcome.Kind != want {
		o.c.violate("wrong outcome", "entry %d (%v) is %v (%v), want %v", e.index, outcome.Op, outcome.Kind, outcome.Why, want)
	}
	if outcome.Kind != applier.Applied && !next.Equal(before.state) {
		o.c.violate("an entry without effect changes the key state", "entry %d (%v) is %v", e.index, outcome.Op, outcome.Kind)
	}
	if outcome.Kind == applier.Applied && next.Index() != e.index {
		o.c.violate("wrong index of the key state", "%d after entry %d", next.Index(), e.index)
	}
	if d := o.model.differs(next); d != "" {
		o.c.violate("wrong key state", "entry %d (%v, %v): %s", e.index, outcome.Op, outcome.Kind, d)
	}
	o.states[next.Index()] = next
	o.c.stats.entry(outcome)
	o.c.note("entry %d is %v: %v%s", e.index, outcome.Op, outcome.Kind, reason(outcome))
}

// reason is why an outcome is as it is, in words.
func reason(o applier.Outcome) string {
	if o.Why == nil {
		return ""
	}
	return " (" + o.Why.Error() + ")"
}

// rejects says whether an entry is rejected for its index and its frame.
func (o *oracle) rejects(e *entry) bool {
	cut := o.model.cutovers[key.Raft]
	if !isFrame(e.data) {
		return cut > 0 && e.index > cut
	}
	h, err := envelope.ParseHeader(e.data[len(frameMagic):])
	if err != nil {
		o.c.violate("a frame without an envelope", "entry %d: %v", e.index, err)
		return true
	}
	k := o.model.keys[h.KeyID]
	return k != nil && k.stopped > 0 && e.index > k.stopped
}

func isFrame(b []byte) bool { return bytes.HasPrefix(b, []byte(frameMagic)) }

// truncate forgets what was decided above an index.
func (o *oracle) truncate(last uint64) {
	for i := range o.states {
		if i > last {
			delete(o.states, i)
		}
	}
	o.model = newModel()
	for _, e := range o.c.raft.between(1, last) {
		if e.fate == change {
			o.model.apply(e.index, e.plain)
		}
	}
	o.mu.Lock()
	o.generation++
	o.mu.Unlock()
}

// sealed looks at an envelope that a process made, where s is the key state that it
// had before. It may be called by several goroutines.
func (o *oracle) sealed(p *proc, purpose key.Purpose, env []byte, s *applier.State) {
	h, err := envelope.ParseHeader(env)
	if err != nil {
		o.c.violate("no envelope", "%s: %v", p, err)
		return
	}
	k, ok := s.Key(h.KeyID)
	switch {
	case !ok:
		o.c.violate("sealed under a key that nobody knows", "%s: key %s", p, h.KeyID)
	case k.Purpose != purpose:
		o.c.violate("sealed under a key of another purpose", "%s: key %s", p, k.ID)
	case k.State == key.Stopped || k.State == key.Destroyed:
		o.c.violate("sealed under a stopped key", "%s: key %s, which is %v", p, k.ID, k.State)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.c.stats.Envelopes++
	if k.State == key.OpenOnly {
		o.c.stats.Fallbacks++
	}
	n := nonce{key: h.KeyID}
	copy(n.bytes[:], env[envelope.HeaderSize:envelope.HeaderSize+h.Suite.NonceSize()])
	now := load{p.number, o.generation}
	// A quorum that forgot its log cannot know of registrations in what it forgot.
	// Then only the random start of counted nonces keeps them apart.
	forgotten := false
	if h.Suite == envelope.AES256GCM {
		o.c.stats.Counted++
		at := place{h.KeyID, binary.BigEndian.Uint16(n.bytes[:]), binary.BigEndian.Uint16(n.bytes[2:])}
		if was, shared := o.loads[at]; shared && was != now && was.generation == now.generation {
			o.c.violate("two loads share an epoch", "%s: key %s, node %04x, epoch %d", p, at.key, at.node16, at.epoch)
		}
		o.loads[at] = now
		forgotten = o.c.opts.Pinned && o.nonces[n].generation != now.generation
	}
	if by, used := o.nonces[n]; used && !forgotten {
		o.c.violate("a nonce is used twice", "%s: key %s, nonce %x, by process %d of log %d and now by %d of %d", p, n.key, n.bytes, by.process, by.generation, now.process, now.generation)
	}
	o.nonces[n] = now
}

// checkState compares a node with the log that it has applied.
func (o *oracle) checkState(p *proc, s *applier.State, applied uint64) {
	want := o.states[0]
	if applied > 0 {
		want = o.c.raft.at(applied).state
	}
	if s.Index() < want.Index() {
		o.c.violate("a node lacks entries", "%s applied %d, its key state is that of %d, want at least %d", p, applied, s.Index(), want.Index())
		return
	}
	same, ok := o.states[s.Index()]
	if !ok {
		o.c.violate("a key state that no entry led to", "%s: index %d", p, s.Index())
		return
	}
	if s != same && !bytes.Equal(s.AppendSnapshot(nil), same.AppendSnapshot(nil)) {
		o.c.violate("key states differ", "%s: index %d", p, s.Index())
	}
}

// checkValues opens what a node must have.
func (o *oracle) checkValues(p *proc, st store) {
	want := &truth{}
	if st.applied > 0 {
		want = o.c.raft.at(st.applied).truth
	}
	for k, n := range want {
		v := st.values[k]
		if n == 0 {
			if v.data != nil {
				o.c.violate("a value from nowhere", "%s: key %d", p, k)
			}
			continue
		}
		if v.data == nil {
			o.c.violate("a value is lost", "%s: key %d, applied %d", p, k, st.applied)
			continue
		}
		got, err := p.node.Storage().OpenContext(done, nil, v.data, location(k), v.sealed)
		switch {
		case err == nil && bytes.Equal(got, value(k, n)):
			o.c.stats.Opened++
		case err == nil:
			o.c.violate("another value", "%s: key %d holds %q, want %q", p, k, got, value(k, n))
		case errors.Is(err, atrest.ErrRetry) && p.m.kmsExcuse():
		case isDestroyed(err) && p.disk.staleStore:
		default:
			o.c.violate("a value does not open", "%s: key %d: %v", p, k, err)
		}
	}
}
