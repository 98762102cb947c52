package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
)

// Tx is a change of the file in the making. It lives as long as the function
// that was passed to [File.Update]; it may be used by one goroutine at a time.
// An error of one of its methods is also Update's.
type Tx struct {
	path       string
	next       content
	ownE, ownR bool // whether the tables of next are copies
	done       bool
	err        error
}

// Update runs fn and makes what it has set durable, all of it or, after an error,
// nothing. An error of fn is returned as it is. One Update runs at a time; fn
// must not call Update, Rewrap or Close. If nothing is different afterwards,
// nothing is written.
//
// After an error that matches [ErrPoisoned] the change may have happened, and no
// further one is possible. After any other error the file is as it was, and so
// is what readers see.
func (f *File) Update(fn func(tx *Tx) error) error {
	return f.change(func(next *content) error {
		tx := &Tx{path: f.path, next: *next}
		defer func() { tx.done = true }()
		if err := fn(tx); err != nil {
			return err
		}
		*next = tx.next
		return tx.err
	})
}

// change lets fn change a copy of the content and makes that durable.
func (f *File) change(fn func(next *content) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usableLocked(); err != nil {
		return pathError(f.path, err)
	}
	next := *f.current.Load()
	if err := fn(&next); err != nil {
		return err
	}
	if err := f.replace(&next); err != nil {
		return pathError(f.path, err)
	}
	return nil
}

func (f *File) usable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.usableLocked()
}

func (f *File) usableLocked() error {
	if f.lock == nil {
		return ErrClosed
	}
	return f.poison
}

// replace writes next and then lets readers see it.
func (f *File) replace(next *content) error {
	if next.equal(f.current.Load()) {
		return nil
	}
	if !f.draft {
		if err := f.write(next); err != nil {
			return err
		}
	}
	f.current.Store(next)
	return nil
}

func (f *File) write(next *content) error {
	f.buf = next.appendTo(f.buf[:0], f.macKey)
	if len(f.buf) > MaxSize {
		return fmt.Errorf("%w: it would be %d bytes, want at most %d", ErrTooLarge, len(f.buf), MaxSize)
	}
	err := durable.WriteFile(f.fsys, f.path, f.buf)
	if errors.Is(err, durable.ErrOutcomeUnknown) {
		f.poison = fmt.Errorf("%w: %w", ErrPoisoned, err)
		return f.poison
	}
	return err
}

// Epoch returns the epoch of a key as this transaction has left it.
func (tx *Tx) Epoch(id key.ID) uint16 { return tx.next.epochs.get(id) }

// Through returns the index up to which entries are in the state, as this
// transaction has left it.
func (tx *Tx) Through() uint64 { return tx.next.through }

// Reserved returns the usage of a key as this transaction has left it.
func (tx *Tx) Reserved(id key.ID) Usage { return tx.next.reserved.get(id) }

// SetEpoch records that this node takes an epoch for a key. An epoch is never
// lowered: that is [ErrEpochLowered].
func (tx *Tx) SetEpoch(id key.ID, epoch uint16) error {
	old := tx.Epoch(id)
	switch {
	case tx.usable(id) != nil || epoch == old:
		return tx.err
	case epoch < old:
		return tx.fail(fmt.Errorf("%w: key %s: got %d, want at least %d", ErrEpochLowered, id, epoch, old))
	}
	if !tx.ownE {
		tx.next.epochs, tx.ownE = slices.Clone(tx.next.epochs), true
	}
	tx.next.epochs.put(id, epoch)
	return nil
}

// SetReserved records that up to u of a key is spoken for. What is spoken for
// stays so: where a number is lower than the one recorded, that one stays. So
// calls may overtake one another.
func (tx *Tx) SetReserved(id key.ID, u Usage) error {
	old := tx.Reserved(id)
	u = Usage{Seals: max(u.Seals, old.Seals), Bytes: max(u.Bytes, old.Bytes)}
	if tx.usable(id) != nil || u == old {
		return tx.err
	}
	if !tx.ownR {
		tx.next.reserved, tx.ownR = slices.Clone(tx.next.reserved), true
	}
	tx.next.reserved.put(id, u)
	return nil
}

// SetThrough records that every log entry up to index is in the state, whether it
// changed it or not. A lower index than the one recorded is ignored.
func (tx *Tx) SetThrough(index uint64) error {
	if tx.done {
		return tx.fail(ErrClosed)
	}
	tx.next.through = max(tx.next.through, index)
	return tx.err
}

// SetState replaces the state with a JSON value, of which every token is kept
// and white space is not. Valid UTF-8 is asked for, and at most 64 levels of
// lists and objects in one another. The value is not kept.
func (tx *Tx) SetState(value []byte) error {
	if tx.done {
		return tx.fail(ErrClosed)
	}
	text, err := canonicalState(value)
	switch {
	case errors.Is(err, errLong):
		return tx.fail(fmt.Errorf("%w: the state alone is more than %d bytes", ErrTooLarge, MaxSize))
	case err != nil:
		return tx.fail(fmt.Errorf("%w: %w", ErrState, err))
	}
	if !bytes.Equal(text, tx.next.state.text) {
		tx.next.state = newState(text)
	}
	return tx.err
}

func (tx *Tx) usable(id key.ID) error {
	switch {
	case tx.done:
		return tx.fail(ErrClosed)
	case id == 0:
		return tx.fail(key.ErrReservedID)
	}
	return tx.err
}

// fail keeps the first error, so that a transaction of which a part was refused
// is refused even if its function goes on.
func (tx *Tx) fail(err error) error {
	err = pathError(tx.path, err)
	if tx.err == nil {
		tx.err = err
	}
	return err
}
