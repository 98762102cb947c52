// Package keystore holds a process's unwrapped data encryption keys (DEKs) and
// seals and opens with them.
//
// A [Store] knows keys by id. [Store.Install] adds one, [Store.Activate] or
// [Store.ActivateCounted] makes it the one that new values of its purpose are
// sealed under, [Store.Deactivate] leaves them without one, [Store.Stop] and
// [Store.Destroy] end its life. [Store.Storage] and [Store.Raft] return what most
// code needs: Seal and Open for stored values and for Raft payloads. A key of one
// purpose never works for the other.
//
// Seal and Open take no lock, read no file and allocate nothing; they cost the
// same with one key and with a hundred thousand. Changes are serialized. The
// active key and its nonce sequence change as one.
//
// Key bytes do not come out again: other uses of a key go through
// [Store.MAC] and [Store.Subkey], under labels of their own, and streams through
// [Store.NewStreamKey].
//
// What callers guarantee: an epoch given to ActivateCounted was durably taken by
// this process and is shared with no other, see package envelope; whoever owns
// the durable counts answers [Observer.NeedReserve].
package keystore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// What a caller may do about an error of this package: install the key and try
// again ([ErrUnknownKey]), activate one ([ErrNoActiveKey]), rotate ([ErrBudget]),
// raise the epoch ([ErrEpochUsed]), stop the key first ([ErrNotStopped]), rotate
// away from it first ([ErrActive]). The others are final. Those without a prefix
// in their text arrive in a [KeyError].
var (
	ErrUnknownKey  = errors.New("not in this keystore")
	ErrNoActiveKey = errors.New("keystore: no active key")
	ErrKeyConflict = errors.New("installed with other bytes or another purpose")
	ErrPurpose     = errors.New("has another purpose")
	ErrActive      = errors.New("is the active key")
	ErrStopped     = errors.New("stopped")
	ErrNotStopped  = errors.New("not stopped")
	ErrDestroyed   = errors.New("destroyed")
	ErrEpochUsed   = errors.New("epoch not above the last one")
	ErrBudget      = errors.New("sealed as much as it may")
	ErrLabel       = errors.New("keystore: a label has 1 to 200 bytes")
	ErrLimits      = errors.New("keystore: limits must not be 0")
)

// KeyError says which key an error is about.
type KeyError struct {
	ID  key.ID
	Err error
}

func (e *KeyError) Error() string { return fmt.Sprintf("keystore: key %s: %v", e.ID, e.Err) }

// Unwrap returns the sentinel.
func (e *KeyError) Unwrap() error { return e.Err }

// Store holds keys. All methods are safe for concurrent use.
type Store struct {
	table  atomic.Pointer[table]
	active [key.Raft + 1]atomic.Pointer[active] // by purpose

	limits       Limits
	observer     Observer
	extendedOnly bool
	sealing      []envelope.SealerOption

	mu sync.Mutex // of changes; readers do without
}

// active is a key with the sealer that it seals with in this load.
type active struct {
	entry  *entry
	sealer *envelope.Sealer
}

// entry is one id, for good: a destroyed key leaves its entry behind, without
// cipher and DEK.
type entry struct {
	id      key.ID
	purpose key.Purpose
	state   atomic.Uint32 // key.State
	cipher  atomic.Pointer[envelope.Cipher]
	dek     atomic.Pointer[key.DEK]
	streams atomic.Pointer[key.DEK] // derived from dek, from its first use
	meter   meter
	epoch   int // the last one activated with, -1 before; under Store.mu
}

func (e *entry) currentState() key.State { return key.State(e.state.Load()) }

func (e *entry) fail(err error) error { return &KeyError{ID: e.id, Err: err} }

// Option sets what a Store can do without.
type Option func(*Store)

// WithLimits replaces [DefaultLimits] for every key.
func WithLimits(l Limits) Option { return func(s *Store) { s.limits = l } }

// WithObserver names who is told of usage.
func WithObserver(o Observer) Option { return func(s *Store) { s.observer = o } }

// WithExtendedOnly makes every key seal with extended nonces, suite 0x03, even
// when it is activated with an epoch. It is for processes that may be copied with
// their memory, see [envelope.Cipher.NewCountedSealer].
func WithExtendedOnly() Option { return func(s *Store) { s.extendedOnly = true } }

// WithSealing sets how every key seals: [envelope.WithCompression],
// [envelope.WithXChaCha]. Whatever was sealed opens whatever this says.
func WithSealing(opts ...envelope.SealerOption) Option {
	return func(s *Store) { s.sealing = append(s.sealing, opts...) }
}

// New returns an empty store.
func New(opts ...Option) (*Store, error) {
	s := &Store{limits: DefaultLimits}
	for _, o := range opts {
		o(s)
	}
	if s.limits.Seals == 0 || s.limits.Bytes == 0 {
		return nil, ErrLimits
	}
	s.table.Store(newTable(minSlots, newHash()))
	return s, nil
}
