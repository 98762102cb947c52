package atrest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

const (
	maxCalls    = 64 // to KEKs at once
	firstPause  = 100 * time.Millisecond
	longestTime = 30 * time.Second
)

// missing is a key of the state that is not unwrapped.
type missing struct {
	purpose  key.Purpose
	since    time.Time
	last     error
	attempts int
	fetched  bool          // fetch runs
	kick     chan struct{} // holds one: try again at once
}

// again asks for an attempt now.
func (m *missing) again() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// observe tells the host.
func (n *Node) observe(e Event) { n.opts.observer.Observe(e) }

// unwrap asks the KEKs for the DEK of a key. n.mu need not be held.
func (n *Node) unwrap(ctx context.Context, id key.ID, wrapped []byte) (key.Header, key.DEK, error) {
	if !n.first() {
		return n.unwrapContainer(ctx, id, wrapped)
	}
	h := headerFirst(id, wrapped)
	var dek key.DEK
	err := n.callKEK(ctx, "unwrap", id, func(ctx context.Context) (err error) {
		dek, err = n.keks.UnwrapGeneration1(ctx, id, wrapped)
		return err
	})
	return h, dek, err
}

// headerFirst stands for the header that a wrap of generation 1 does not have. In place
// of the check value of the DEK there is a digest of the wrap.
func headerFirst(id key.ID, wrapped []byte) key.Header {
	h := key.Header{ID: id}
	sum := sha256.Sum256(wrapped)
	copy(h.Check[:], sum[:])
	return h
}

// unwrapContainer is unwrap for a container of generation 2.
func (n *Node) unwrapContainer(ctx context.Context, id key.ID, container []byte) (h key.Header, dek key.DEK, err error) {
	err = n.callKEK(ctx, "unwrap", id, func(ctx context.Context) (err error) {
		h, dek, err = n.keks.UnwrapDEK(ctx, container)
		return err
	})
	return h, dek, err
}

// callKEK bounds a call and tells the observer of it.
func (n *Node) callKEK(ctx context.Context, op string, id key.ID, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	start := time.Now()
	err := call(ctx)
	n.observe(KEKCall{Op: op, Key: id, Took: time.Since(start), Err: err})
	return err
}

// unwrapped is the outcome of one call.
type unwrapped struct {
	key applier.Key
	dek key.DEK
	err error
}

func (u unwrapped) result() guard.Unwrap {
	return guard.Unwrap{ID: u.key.ID, Purpose: u.key.Purpose, Active: u.key.State == key.Active, Err: u.err}
}

// unwrapKeys unwraps each key once, in parallel, in the order of the list.
func (n *Node) unwrapKeys(ctx context.Context, keys []applier.Key) []unwrapped {
	out := make([]unwrapped, len(keys))
	var (
		next = make(chan int)
		wg   sync.WaitGroup
	)
	for range min(maxCalls, len(keys)) {
		wg.Go(func() {
			for i := range next {
				_, dek, err := n.unwrap(ctx, keys[i].ID, keys[i].Container)
				out[i] = unwrapped{key: keys[i], dek: dek, err: err}
			}
		})
	}
	for i := range keys {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

// unwrapAll unwraps the keys of a state at start, and refuses a start with the
// wrong KEKs or without any active key.
func (n *Node) unwrapAll(ctx context.Context, s *applier.State) (map[key.ID]key.DEK, error) {
	var keys []applier.Key
	for k := range s.Keys() {
		if k.State != key.Destroyed {
			keys = append(keys, k)
		}
	}
	var (
		deks    = map[key.ID]key.DEK{}
		results []guard.Unwrap
	)
	for _, u := range n.unwrapKeys(ctx, keys) {
		results = append(results, u.result())
		if u.err == nil {
			deks[u.key.ID] = u.dek
		} else {
			n.miss(u.key, u.err)
		}
	}
	return deks, guard.Unwrapped(results)
}

// miss records that a key is not there. n.mu is held.
func (n *Node) miss(k applier.Key, err error) *missing {
	m := n.missing[k.ID]
	if m == nil {
		m = &missing{purpose: k.Purpose, since: time.Now(), kick: make(chan struct{}, 1)}
		n.missing[k.ID] = m
	}
	m.last = err
	n.observe(KeyMissing{Key: k.ID, Purpose: k.Purpose, Err: err})
	return m
}

// fetch unwraps a missing key in the background, until it has it or nobody needs
// it any more. There is one for each missing key. n.mu is held.
func (n *Node) fetch(k applier.Key, m *missing) {
	n.start(func(ctx context.Context) {
		for pause := firstPause; ; pause = min(2*pause, longestTime) {
			if !n.attempt(ctx, k.ID, m) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-m.kick:
				pause = firstPause
			case <-time.After(jitter(pause)):
			}
		}
	})
}

// attempt reports whether to try again.
func (n *Node) attempt(ctx context.Context, id key.ID, m *missing) bool {
	select {
	case n.calls <- struct{}{}:
		defer func() { <-n.calls }()
	case <-ctx.Done():
		return false
	}
	k, ok := n.State().Key(id)
	if !ok || k.State == key.Destroyed {
		return false
	}
	h, dek, err := n.unwrap(ctx, id, k.Container)
	n.mu.Lock()
	defer n.mu.Unlock()
	m.attempts++
	if n.missing[id] != m {
		return false // somebody else brought it
	}
	if err == nil {
		err = n.arrive(h, dek)
	}
	m.last = err
	return err != nil
}

// arrive takes a key into use that was missing. n.mu is held.
func (n *Node) arrive(h key.Header, dek key.DEK) error {
	k, ok := n.State().Key(h.ID)
	if !ok || k.State == key.Destroyed {
		return nil
	}
	if !n.first() && (h.Check != k.Check || h.Purpose != k.Purpose) {
		return errors.Newf("atrest: key %s: the KEK returned another key", k.ID)
	}
	if err := n.install(k, dek, n.usedBefore(k.ID)); err != nil {
		return err
	}
	if err := n.settle(k.Purpose); err != nil {
		return err
	}
	n.wake()
	return nil
}

// install puts an unwrapped key into the keystore. n.mu is held.
func (n *Node) install(k applier.Key, dek key.DEK, used envelope.Usage) error {
	if err := n.keys.Install(k.ID, k.Purpose, dek); err != nil {
		return err
	}
	if err := n.keys.SetReserved(k.ID, used); err != nil {
		return err
	}
	if k.State == key.Stopped {
		if err := n.keys.Stop(k.ID); err != nil {
			return err
		}
	}
	delete(n.missing, k.ID)
	n.loaded[k.ID] = true
	n.observe(KeyInstalled{Key: k.ID, Purpose: k.Purpose})
	return nil
}

// jitter is somewhere between half of d and d, so that nodes that failed together do
// not try again together.
func jitter(d time.Duration) time.Duration {
	var b [2]byte
	rand.Read(b[:])
	return d/2 + d/2*time.Duration(binary.BigEndian.Uint16(b[:]))/math.MaxUint16
}

// meter answers the keystore's requests about usage.
type meter struct{ n *Node }

// NeedReserve makes durable how much of a key is spoken for. It is called from a
// seal, which does not wait. What an activation asks for was made durable
// together with its epoch.
func (m meter) NeedReserve(id key.ID, upTo envelope.Usage) {
	n := m.n
	if have := n.file.Reserved(id); have.Seals >= upTo.Seals && have.Bytes >= upTo.Bytes {
		n.acknowledge(id, upTo)
		return
	}
	n.start(func(context.Context) {
		err := n.file.Update(func(tx *sidecar.Tx) error { return tx.SetReserved(id, sidecar.Usage(upTo)) })
		if err != nil {
			n.observe(ReserveFailed{Key: id, Err: err})
			return
		}
		n.acknowledge(id, upTo)
	})
}

func (n *Node) acknowledge(id key.ID, upTo envelope.Usage) {
	if err := n.keys.Reserved(id, upTo); err != nil {
		n.observe(ReserveFailed{Key: id, Err: err})
	}
}

// RotationDue passes on that a key has sealed much.
func (m meter) RotationDue(id key.ID, percent int, used envelope.Usage) {
	m.n.observe(BudgetReached{Key: id, Percent: percent, Used: used})
}

// wrongKey reports whether no KEK will ever open a container.
func wrongKey(err error) bool { return errors.Is(err, kek.ErrWrongKey) }

// allKeys are the ids of a state's keys, ascending.
func allKeys(s *applier.State) []key.ID {
	ids := make([]key.ID, 0, s.Len())
	for k := range s.Keys() {
		ids = append(ids, k.ID)
	}
	return slices.Clip(ids)
}

// failedKEK says which key a KEK failed with, and lets the caller try again where
// that may help.
func failedKEK(err error, op string, id key.ID) error {
	err = errors.Wrapf(err, "atrest: %s key %s", op, id)
	if errors.Is(err, kek.ErrUnreachable) {
		return retry(err)
	}
	return err
}
