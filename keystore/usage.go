package keystore

import (
	"sync"
	"sync/atomic"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// Limits is how much may be sealed under one key before it is due for rotation.
//
// With Refuse, never more than the limits is sealed, and a seal beyond them is
// [ErrBudget]. A goroutine that seals alone gets exactly up to them: a seal that
// finds no budget takes back what lies unused. Of goroutines that get there at the
// same moment some may be refused while others hold what is left; it is not lost.
type Limits struct {
	Seals  uint64
	Bytes  uint64 // of plaintext
	Refuse bool   // refuse beyond them instead of only saying so
}

// DefaultLimits says that a rotation is due after 2^32 seals or 64 TiB, and
// refuses nothing.
var DefaultLimits = Limits{Seals: 1 << 32, Bytes: 1 << 46}

// Counts are reserved in chunks, so that who keeps them durable writes rarely. An
// activation asks for one more than was used before.
const (
	ChunkSeals = 1 << 20
	ChunkBytes = 1 << 34 // of plaintext
)

const maxCount = 1 << 62 // of what comes from elsewhere, so that no sum overflows

// Observer is told about the use of keys. It is called from a goroutine that
// seals or activates, with no lock held, and must return at once; it may call
// the Store.
type Observer interface {
	// NeedReserve asks for it to be made durable that as much as upTo may have
	// been used of a key, so that a later process does not count from less. When
	// that is done, [Store.Reserved] takes note of it. Seals do not wait for it. The
	// request comes at activation, where the answer should come before the call
	// returns, and then whenever half of the former chunk of 2^20 seals or 16 GiB is
	// used: the answer has the other half's time. Two requests may arrive in either
	// order; the larger one covers the other.
	NeedReserve(id key.ID, upTo envelope.Usage)
	// RotationDue says that a key has reached 90 or 100 percent of its limits,
	// once each in the life of a Store. used is at least that: it counts what
	// sealers hold for seals to come, at most 2^16 seals and 4 GiB, and a sixteenth
	// of the mark. So the word may come as much too early, and never too late.
	RotationDue(id key.ID, percent int, used envelope.Usage)
}

// notice is what there is to tell an Observer.
type notice struct {
	upTo    envelope.Usage // zero: nothing to reserve
	percent []int
	used    envelope.Usage
}

// meter accounts for one key, over all its sealers. A block that a sealer holds
// counts as used; near a limit blocks get small, so that this hardly shows.
type meter struct {
	entry  *entry
	store  *Store
	sealer atomic.Pointer[envelope.Sealer] // the newest

	mu       sync.Mutex
	granted  envelope.Usage
	reserved envelope.Usage // durable
	asked    envelope.Usage // NeedReserve was told
	due      int            // percent that RotationDue was told
}

func (m *meter) init(e *entry, s *Store) { m.entry, m.store = e, s }

// Reserve implements envelope.Meter.
func (m *meter) Reserve(want envelope.Usage) (envelope.Usage, error) {
	m.mu.Lock()
	g, ok := m.grant(want)
	var n notice
	if ok {
		m.granted.Seals += g.Seals
		m.granted.Bytes += g.Bytes
		n = m.notice(larger(m.reserved, m.asked))
	}
	m.mu.Unlock()
	if !ok {
		return envelope.Usage{}, m.entry.fail(ErrBudget)
	}
	m.tell(n)
	return g, nil
}

// Return implements envelope.Meter.
func (m *meter) Return(u envelope.Usage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.granted.Seals -= u.Seals
	m.granted.Bytes -= u.Bytes
}

// grant says how much of want to give. A request for a single seal is exact;
// any other gets less as the next mark comes near. m.mu is held.
func (m *meter) grant(want envelope.Usage) (envelope.Usage, bool) {
	l := m.store.limits
	g := want
	if want.Seals > 1 {
		g.Seals = portion(want.Seals, m.granted.Seals, l.Seals)
		g.Bytes = portion(want.Bytes, m.granted.Bytes, l.Bytes)
	}
	if !l.Refuse {
		return g, true
	}
	g.Seals = min(g.Seals, left(m.granted.Seals, l.Seals))
	if want.Seals > 1 {
		g.Bytes = min(g.Bytes, left(m.granted.Bytes, l.Bytes))
	}
	return g, g.Seals > 0 && g.Bytes <= left(m.granted.Bytes, l.Bytes)
}

// portion is less than want near a mark: a sealer holds up to 64 blocks, and all
// of them together should be little beside the mark.
func portion(want, granted, limit uint64) uint64 {
	const among = 1024
	for _, percent := range marks {
		if at := mark(limit, percent); granted < at {
			return min(want, max(1, (at-granted)/among))
		}
	}
	return want
}

func left(granted, limit uint64) uint64 { return limit - min(granted, limit) }

var marks = [...]int{90, 100}

// reached reports whether u is the given percentage of either limit.
func (l Limits) reached(u envelope.Usage, percent int) bool {
	return u.Seals >= mark(l.Seals, percent) || u.Bytes >= mark(l.Bytes, percent)
}

// mark is the given percentage of limit, rounded up; it does not overflow.
func mark(limit uint64, percent int) uint64 {
	if percent == 100 {
		return limit
	}
	p := uint64(percent)
	return limit/100*p + (limit%100*p+99)/100
}

// notice collects what is due to be told and takes it as told; ahead is what need
// not be asked for any more. m.mu is held.
func (m *meter) notice(ahead envelope.Usage) notice {
	n := notice{used: m.granted}
	for _, p := range marks {
		if m.due < p && m.store.limits.reached(m.granted, p) {
			m.due = p
			n.percent = append(n.percent, p)
		}
	}
	if m.granted.Seals+ChunkSeals/2 > ahead.Seals || m.granted.Bytes+ChunkBytes/2 > ahead.Bytes {
		m.asked = larger(m.asked, envelope.Usage{Seals: m.granted.Seals + ChunkSeals, Bytes: m.granted.Bytes + ChunkBytes})
		n.upTo = m.asked
	}
	return n
}

// announce tells what is due before anything is sealed. A request that was made
// but not answered is made again: its owner may have failed, or another activation
// may still be on the way to it.
func (m *meter) announce() {
	m.mu.Lock()
	n := m.notice(m.reserved)
	m.mu.Unlock()
	m.tell(n)
}

func (m *meter) tell(n notice) {
	o := m.store.observer
	if o == nil {
		return
	}
	if n.upTo != (envelope.Usage{}) {
		o.NeedReserve(m.entry.id, n.upTo)
	}
	for _, p := range n.percent {
		o.RotationDue(m.entry.id, p, n.used)
	}
}

// used is what was sealed, or is being sealed at this moment, and what percent of
// the limits that is.
func (m *meter) used() (u envelope.Usage, due int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	unused := m.unused()
	u = envelope.Usage{Seals: left(unused.Seals, m.granted.Seals), Bytes: left(unused.Bytes, m.granted.Bytes)}
	due = m.due
	for _, p := range marks {
		if m.store.limits.reached(u, p) {
			due = max(due, p)
		}
	}
	return u, due
}

// unused is what the sealer holds of what was granted. m.mu is held; a sealer
// never calls its meter with a lock held.
func (m *meter) unused() envelope.Usage {
	if s := m.sealer.Load(); s != nil {
		return s.Unused()
	}
	return envelope.Usage{}
}

func larger(a, b envelope.Usage) envelope.Usage {
	return envelope.Usage{Seals: max(a.Seals, b.Seals), Bytes: max(a.Bytes, b.Bytes)}
}

// Usage returns how much was sealed under a key, counted from what
// [Store.SetReserved] gave. It is exact while no seal, activation or stop of the
// key is in progress, and never too low.
func (s *Store) Usage(id key.ID) (envelope.Usage, error) {
	e, err := s.entry(id)
	if err != nil {
		return envelope.Usage{}, err
	}
	u, _ := e.meter.used()
	return u, nil
}

// SetReserved says what the durable record has for a key: as much may have been
// used before, so at least that counts as used from now on. Call it before the key
// is activated. No count is ever lowered, or goes above 2^62.
func (s *Store) SetReserved(id key.ID, u envelope.Usage) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	m := &e.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	u = envelope.Usage{Seals: min(u.Seals, maxCount), Bytes: min(u.Bytes, maxCount)}
	unused := m.unused()
	m.granted = larger(m.granted, envelope.Usage{Seals: u.Seals + unused.Seals, Bytes: u.Bytes + unused.Bytes})
	return nil
}

// Reserved says that a request of [Observer.NeedReserve] was made durable.
func (s *Store) Reserved(id key.ID, upTo envelope.Usage) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	m := &e.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserved = larger(m.reserved, upTo)
	return nil
}
