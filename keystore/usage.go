package keystore

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// Limits is how much may be sealed under one key before it is due for rotation.
type Limits struct {
	Seals  uint64
	Bytes  uint64 // of plaintext
	Refuse bool   // refuse to seal beyond, with ErrBudget, instead of only saying so
}

// DefaultLimits says that a rotation is due after 2^32 seals or 64 TiB, and
// refuses nothing.
var DefaultLimits = Limits{Seals: 1 << 32, Bytes: 1 << 46}

// Counts are reserved in chunks, so that who keeps them durable writes rarely.
const (
	chunkSeals = 1 << 20
	chunkBytes = 1 << 34
)

// Observer is told about the use of keys. It is called from a goroutine that
// seals or activates, with no lock held, and must return at once; it may call
// the Store.
type Observer interface {
	// NeedReserve asks for it to be made durable that as much as upTo may have
	// been used of a key, so that a later process does not count from less. When
	// that is done, [Store.Reserved] takes note of it. Seals do not wait: the
	// request comes when half of the former chunk of 2^20 seals or 16 GiB is used.
	NeedReserve(id key.ID, upTo envelope.Usage)
	// RotationDue says that a key has reached 90 or 100 percent of its limits,
	// once each in the life of a process.
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
		n = m.notice()
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

// portion shares what is left before the next mark among all processors.
func portion(want, granted, limit uint64) uint64 {
	const among = 64
	for _, percent := range marks {
		if at := mark(limit, percent); granted < at {
			return min(want, max(1, (at-granted)/among))
		}
	}
	return want
}

func left(granted, limit uint64) uint64 { return limit - min(granted, limit) }

var marks = [...]int{90, 100}

// mark is the given percentage of limit, rounded up; it does not overflow.
func mark(limit uint64, percent int) uint64 {
	if percent == 100 {
		return limit
	}
	p := uint64(percent) //nolint:gosec // Small and positive.
	return limit/100*p + (limit%100*p+99)/100
}

// notice collects what is due to be told and takes it as told. m.mu is held.
func (m *meter) notice() notice {
	n := notice{used: m.granted}
	for _, p := range marks {
		l := m.store.limits
		if m.due < p && (m.granted.Seals >= mark(l.Seals, p) || m.granted.Bytes >= mark(l.Bytes, p)) {
			m.due = p
			n.percent = append(n.percent, p)
		}
	}
	ahead := max2(m.reserved, m.asked)
	if add(m.granted.Seals, chunkSeals/2) > ahead.Seals || add(m.granted.Bytes, chunkBytes/2) > ahead.Bytes {
		m.asked = envelope.Usage{Seals: add(m.granted.Seals, chunkSeals), Bytes: add(m.granted.Bytes, chunkBytes)}
		n.upTo = m.asked
	}
	return n
}

// announce tells what is due before anything is sealed.
func (m *meter) announce() {
	m.mu.Lock()
	n := m.notice()
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

// used is what was really sealed, as far as it is not being sealed right now.
func (m *meter) used() (u envelope.Usage, due int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u = m.granted
	if s := m.sealer.Load(); s != nil {
		unused := s.Unused()
		u.Seals -= min(u.Seals, unused.Seals)
		u.Bytes -= min(u.Bytes, unused.Bytes)
	}
	return u, m.due
}

// add saturates.
func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func max2(a, b envelope.Usage) envelope.Usage {
	return envelope.Usage{Seals: max(a.Seals, b.Seals), Bytes: max(a.Bytes, b.Bytes)}
}

// Usage returns how much was sealed under a key, counted from what
// [Store.SetReserved] gave.
func (s *Store) Usage(id key.ID) (envelope.Usage, error) {
	e, err := s.entry(id)
	if err != nil {
		return envelope.Usage{}, err
	}
	u, _ := e.meter.used()
	return u, nil
}

// SetReserved says what the durable record has for a key: as much may have been
// used before, and is counted as used. Call it before the key is activated; a
// count is never lowered.
func (s *Store) SetReserved(id key.ID, u envelope.Usage) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	m := &e.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	m.granted = max2(m.granted, u)
	m.reserved = max2(m.reserved, u)
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
	m.reserved = max2(m.reserved, upTo)
	return nil
}
