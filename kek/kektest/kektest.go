// Package kektest has a scripted KEK for tests: one that is slow, fails a number
// of times, holds another key, has lost its key, or does what it is asked and
// loses the answer. It counts its calls.
//
// [New] makes one that works. Its other methods change how it answers from the
// next call on, also while calls are under way; [KEK.Heal] makes it work again.
// Nothing sleeps: [KEK.Hold] keeps calls waiting until the test lets them go.
//
//	k := kektest.New("kms:a")
//	k.FailNext(2, kek.ErrUnreachable)
//
// The key is derived from the id alone, so two KEKs with one id open each other's
// wraps, as two nodes that ask one key service. It protects nothing.
package kektest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/atrestdb/atrest/kek"
)

// KEK is a scripted [kek.KEK]. It is safe for concurrent use.
type KEK struct {
	id           string
	right, other cipher.AEAD

	mu     sync.Mutex
	calls  Calls
	hold   *hold
	faults []fault // in the order in which they happen
	wrong  bool
	gone   bool
}

var _ kek.KEK = (*KEK)(nil)

// Calls counts calls, whether they failed or not.
type Calls struct {
	Wraps, Unwraps int
	Done           int // calls of both kinds that were carried out, answered or not
}

type fault struct {
	left int
	err  error
	done bool
}

type hold struct {
	arrived  chan string
	released chan struct{}
}

// New returns a KEK that works.
func New(id string) *KEK {
	return &KEK{id: id, right: aead("key of " + id), other: aead("other key of " + id)}
}

func aead(seed string) cipher.AEAD {
	k := sha256.Sum256([]byte(seed))
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return a
}

// FailNext makes n calls fail with err without being carried out: the request
// never arrived. Failures that were asked for before come first.
func (k *KEK) FailNext(n int, err error) { k.fail(fault{left: n, err: err}) }

// LoseNext makes n calls fail with err after they were carried out: the answer was
// lost. Failures that were asked for before come first.
func (k *KEK) LoseNext(n int, err error) { k.fail(fault{left: n, err: err, done: true}) }

func (k *KEK) fail(f fault) {
	if f.err == nil {
		panic("kektest: a call cannot fail with a nil error")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if f.left > 0 {
		k.faults = append(k.faults, f)
	}
}

// WrongKey gives the KEK another key: it opens none of its earlier wraps
// (kek.ErrWrongKey), and wraps as before.
func (k *KEK) WrongKey() { k.set(func() { k.wrong = true }) }

// Gone takes the key away: every call is kek.ErrWrongKey.
func (k *KEK) Gone() { k.set(func() { k.gone = true }) }

// Heal undoes WrongKey and Gone and forgets failures that did not happen yet.
// It does not end a Hold.
func (k *KEK) Heal() { k.set(func() { k.wrong, k.gone, k.faults = false, false, nil }) }

func (k *KEK) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// Hold makes every call wait until release is called or its context ends. Each
// waiting call offers "wrap" or "unwrap" on arrived, and nobody needs to receive
// it. What the call answers is decided once it is released. A second Hold takes
// the place of the first for the calls that come after it.
func (k *KEK) Hold() (arrived <-chan string, release func()) {
	h := &hold{arrived: make(chan string), released: make(chan struct{})}
	k.set(func() { k.hold = h })
	return h.arrived, sync.OnceFunc(func() {
		k.set(func() {
			if k.hold == h {
				k.hold = nil
			}
		})
		close(h.released)
	})
}

// Calls returns the counts so far.
func (k *KEK) Calls() Calls {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

// ID returns what New was given.
func (k *KEK) ID() string { return k.id }

// Wrap implements [kek.KEK].
func (k *KEK) Wrap(ctx context.Context, plaintext, ad []byte) ([]byte, error) {
	return k.call(ctx, "wrap", func(c *Calls) *int { return &c.Wraps }, func(a cipher.AEAD) ([]byte, error) {
		return a.Seal(nil, nil, plaintext, ad), nil
	})
}

// Unwrap implements [kek.KEK].
func (k *KEK) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	return k.call(ctx, "unwrap", func(c *Calls) *int { return &c.Unwraps }, func(a cipher.AEAD) ([]byte, error) {
		return a.Open([]byte{}, nil, wrapped, ad)
	})
}

func (k *KEK) call(ctx context.Context, op string, count func(*Calls) *int, do func(cipher.AEAD) ([]byte, error)) ([]byte, error) {
	k.mu.Lock()
	*count(&k.calls)++
	h := k.hold
	k.mu.Unlock()
	if err := h.wait(ctx, op); err != nil {
		return nil, fmt.Errorf("%w: %w", kek.ErrUnreachable, err)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	f, failing := k.nextFault()
	if failing && !f.done {
		return nil, f.err
	}
	k.calls.Done++
	out, err := k.answer(do)
	if failing {
		return nil, f.err
	}
	return out, err
}

// wait waits while the calls are held.
func (h *hold) wait(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil || h == nil {
		return err
	}
	arrived := h.arrived
	for {
		select {
		case arrived <- op:
			arrived = nil // once
		case <-h.released:
			return ctx.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (k *KEK) nextFault() (fault, bool) {
	if len(k.faults) == 0 {
		return fault{}, false
	}
	f := k.faults[0]
	if k.faults[0].left--; k.faults[0].left == 0 {
		k.faults = k.faults[1:]
	}
	return f, true
}

func (k *KEK) answer(do func(cipher.AEAD) ([]byte, error)) ([]byte, error) {
	if k.gone {
		return nil, fmt.Errorf("%w: the key is gone", kek.ErrWrongKey)
	}
	a := k.right
	if k.wrong {
		a = k.other
	}
	out, err := do(a)
	if err != nil {
		return nil, kek.ErrWrongKey
	}
	return out, nil
}
