package atrest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
)

// propose is the host's own way to the log. Nodes take it to register.
func (m *member) propose(ctx context.Context, entry []byte) error {
	m.w.mu.Lock()
	n := m.node
	m.w.mu.Unlock()
	if n == nil {
		return errors.New("not a member")
	}
	data, err := n.Raft().Seal(nil, entry)
	if err != nil {
		return err
	}
	p := &proposal{from: m, data: data, done: make(chan struct{})}
	m.w.mu.Lock()
	m.w.pending = append(m.w.pending, p)
	m.w.mu.Unlock()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		m.w.mu.Lock()
		defer m.w.mu.Unlock()
		m.w.pending = slices.DeleteFunc(m.w.pending, func(q *proposal) bool { return q == p })
		return ctx.Err()
	}
}

// append puts what was proposed into the log.
func (w *world) append(data []byte) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, data)
	return uint64(len(w.log))
}

// commit proposes a payload through a member, and returns its index once nothing
// moves any more.
func (w *world) commit(m *member, payload []byte) uint64 {
	w.t.Helper()
	data, err := m.node.Raft().Seal(nil, payload)
	require.NoError(w.t, err)
	i := w.append(data)
	w.settle()
	return i
}

// put writes a value through the log.
func (w *world) put(m *member, k, v string) uint64 {
	w.t.Helper()
	return w.commit(m, []byte("put "+k+" "+v))
}

// settle lets all members apply the log, and commits the registrations that they
// propose, until nothing moves any more.
func (w *world) settle() {
	for {
		w.feedAll()
		synctest.Wait()
		if w.answer() {
			synctest.Wait()
		}
		if !w.order() && !w.behind() {
			break
		}
	}
	w.check()
}

// advance lets time pass.
func (w *world) advance(d time.Duration) {
	w.settle()
	<-time.After(d)
	w.settle()
}

// feedAll starts members that have something to apply.
func (w *world) feedAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.members {
		if m.idle() {
			m.feeding = true
			go m.feed()
		}
	}
}

// idle reports whether a member could apply something and does not. w.mu is held.
func (m *member) idle() bool {
	return !m.feeding && !m.apart && m.node != nil && m.halted == nil && m.disk.applied < uint64(len(m.w.log))
}

func (w *world) behind() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.members, (*member).idle)
}

// answer lets those know whose proposals they have applied.
func (w *world) answer() bool {
	answered := false
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = slices.DeleteFunc(w.pending, func(p *proposal) bool {
		if p.index == 0 || p.from.disk.applied < p.index {
			return false
		}
		close(p.done)
		answered = true
		return true
	})
	return answered
}

// order appends the next proposal to the log, always in the same order.
func (w *world) order() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hold {
		return false
	}
	var next *proposal
	for _, p := range w.pending {
		if p.index == 0 && (next == nil || p.from.name < next.from.name) {
			next = p
		}
	}
	if next == nil {
		return false
	}
	w.log = append(w.log, next.data)
	next.index = uint64(len(w.log))
	return true
}

// feed applies the log as far as it goes.
func (m *member) feed() {
	w := m.w
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { m.feeding = false }()
	for {
		n, i := m.node, m.disk.applied+1
		if n == nil || m.apart || m.halted != nil || i > uint64(len(w.log)) {
			return
		}
		data, store := w.log[i-1], m.disk.store
		w.mu.Unlock()
		store, outcome, err := m.apply(n, i, data, store)
		w.mu.Lock()
		if m.node != n {
			return
		}
		if err != nil {
			m.halted = err
			outcome = "halts: " + err.Error()
		} else {
			m.disk.applied, m.disk.store, m.past[i] = i, store, store
		}
		if w.outcomes[i] == nil {
			w.outcomes[i] = map[string]string{}
		}
		w.outcomes[i][m.name] = outcome
	}
}

// apply is the host's state machine.
func (m *member) apply(n *atrest.Node, i uint64, data []byte, store map[string]value) (map[string]value, string, error) {
	payload, err := n.Raft().Open(nil, i, data)
	if errors.Is(err, atrest.ErrRejected) {
		return store, "payload rejected: " + err.Error(), nil
	}
	if err != nil {
		return nil, "", err
	}
	if n.IsEntry(payload) {
		o, err := n.Apply(i, payload)
		return store, entryText(payload, o), err
	}
	f := strings.Fields(string(payload))
	if len(f) != 3 || f[0] != "put" {
		return store, fmt.Sprintf("no command: %q", payload), nil
	}
	out, sealed, err := n.Storage().Seal(nil, []byte(f[2]), []byte(f[1]))
	if err != nil {
		return nil, "", err
	}
	m.w.used(m.name, out, sealed)
	store = maps.Clone(store)
	store[f[1]] = value{out, sealed}
	return store, fmt.Sprintf("put %s", f[1]), nil
}

// entryText says what an entry wanted, and what became of it.
func entryText(entry []byte, o applier.Outcome) string {
	what := o.Op.String()
	switch e, _ := applier.Generation2.Parse(entry); e := e.(type) {
	case nil:
		what = "entry"
	case applier.Registration:
		what = fmt.Sprintf("registration of %s for %s, epoch %d", e.Node, e.Key, e.Epoch)
	case applier.Rotation:
		what = fmt.Sprintf("rotation to %s", e.Key.ID)
	case applier.Stop:
		what = fmt.Sprintf("stop of %s", e.Key)
	case applier.Destroy:
		what = fmt.Sprintf("destruction of %s", e.Key)
	}
	s := fmt.Sprintf("%s: %v", what, o.Kind)
	if o.Why != nil {
		s += ": " + o.Why.Error()
	}
	return s
}

// used notes a nonce that a sealed value shows; no two have the same.
func (w *world) used(who string, out []byte, sealed bool) {
	if !sealed {
		return
	}
	h := must(envelope.ParseHeader(out))
	nonce := fmt.Sprintf("%v %v %x", h.KeyID, h.Suite, out[envelope.HeaderSize:][:h.Suite.NonceSize()])
	w.mu.Lock()
	defer w.mu.Unlock()
	if by, ok := w.nonces[nonce]; ok {
		w.t.Errorf("%s and %s both used %s", by, who, nonce)
	}
	w.nonces[nonce] = who
}

// check holds the cluster to what is always so: members with the same State index
// have the same State.
func (w *world) check() {
	states := map[uint64]*applier.State{}
	for _, m := range w.members {
		if m.node == nil {
			continue
		}
		s := m.node.State()
		if other := states[s.Index()]; other != nil && other.Cluster() == s.Cluster() && other.Digest() != s.Digest() {
			w.t.Errorf("%s has another state at %d than others", m.name, s.Index())
		}
		states[s.Index()] = s
	}
}
