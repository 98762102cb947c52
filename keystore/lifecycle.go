package keystore

import (
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// Install adds a key, which is open-only until it is activated. Installing the
// same key again does nothing; the same id with other bytes or another purpose
// is [ErrKeyConflict], and with a destroyed id [ErrDestroyed].
func (s *Store) Install(id key.ID, p key.Purpose, dek key.DEK) error {
	switch {
	case id == 0:
		return key.ErrReservedID
	case !p.Valid():
		return key.ErrPurpose
	}
	if e := s.table.Load().find(id); e != nil {
		return e.same(p, dek)
	}
	c, err := envelope.NewCipher(id, dek)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.table.Load().find(id); e != nil {
		return e.same(p, dek)
	}
	e := s.newEntry(id, p, key.OpenOnly)
	e.dek.Store(&dek)
	e.cipher.Store(c)
	s.table.Store(s.table.Load().insert(e))
	return nil
}

// InstallDestroyed adds the tombstone of a destroyed key: the id cannot be
// installed any more, and what was sealed under it fails with [ErrDestroyed]. An
// id that holds a key is [ErrKeyConflict].
func (s *Store) InstallDestroyed(id key.ID, p key.Purpose) error {
	switch {
	case id == 0:
		return key.ErrReservedID
	case !p.Valid():
		return key.ErrPurpose
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.table.Load().find(id); e != nil {
		if e.purpose == p && e.currentState() == key.Destroyed {
			return nil
		}
		return e.fail(ErrKeyConflict)
	}
	s.table.Store(s.table.Load().insert(s.newEntry(id, p, key.Destroyed)))
	return nil
}

// same says what it means to install a key whose id is there.
func (e *entry) same(p key.Purpose, dek key.DEK) error {
	mine := e.dek.Load()
	switch {
	case mine == nil:
		return e.fail(ErrDestroyed)
	case e.purpose != p || !key.EqualDEK(*mine, dek):
		return e.fail(ErrKeyConflict)
	}
	return nil
}

func (s *Store) newEntry(id key.ID, p key.Purpose, st key.State) *entry {
	e := &entry{id: id, purpose: p, epoch: -1}
	e.state.Store(uint32(st))
	e.meter.init(e, s)
	return e
}

// Activate makes a key the one that its purpose seals under, with extended
// nonces, and the former one open-only. A key that is active already stays as it
// is. Seals under the former key that have not started yet go on under this one.
func (s *Store) Activate(id key.ID) error {
	return s.activate(id, func(e *entry, c *envelope.Cipher) (*envelope.Sealer, error) {
		if a := s.active[e.purpose].Load(); a != nil && a.entry == e {
			return nil, nil //nolint:nilnil // Nothing to change and nothing wrong.
		}
		return c.NewSealer(&e.meter, s.sealing...)
	})
}

// ActivateCounted is Activate with counted nonces, for an active key too. It
// refuses an epoch that is not above the last one that the key was activated
// with in this Store: see [envelope.Writer] for what else it relies on. Whether
// the nonces are counted is then up to [WithExtendedOnly] and strict FIPS mode.
func (s *Store) ActivateCounted(id key.ID, w envelope.Writer) error {
	return s.activate(id, func(e *entry, c *envelope.Cipher) (*envelope.Sealer, error) {
		if int(w.Epoch) <= e.epoch {
			return nil, e.fail(ErrEpochUsed)
		}
		e.epoch = int(w.Epoch)
		if s.extendedOnly {
			return c.NewSealer(&e.meter, s.sealing...)
		}
		return c.NewCountedSealer(w, &e.meter, s.sealing...)
	})
}

// activate swaps the active key of a purpose for the entry of id with the sealer
// that newSealer returns, nil for no change.
func (s *Store) activate(id key.ID, newSealer func(*entry, *envelope.Cipher) (*envelope.Sealer, error)) error {
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	if err := e.usable(); err != nil {
		return err
	}
	e.meter.announce() // before the first seal, so that its count is reserved
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.usable(); err != nil {
		return err
	}
	sealer, err := newSealer(e, e.cipher.Load())
	if sealer == nil || err != nil {
		return err
	}
	e.state.Store(uint32(key.Active))
	e.meter.sealer.Store(sealer)
	former := s.active[e.purpose].Swap(&active{entry: e, sealer: sealer})
	if former == nil {
		return nil
	}
	if former.entry != e {
		former.entry.state.Store(uint32(key.OpenOnly))
	}
	former.sealer.Stop() // a seal that meets this finds the new one
	return nil
}

// Deactivate leaves a purpose without an active key; the former one is open-only
// and may be activated again. Seals that have not started yet are refused with
// [ErrNoActiveKey] until a key is. With no active key it does nothing.
func (s *Store) Deactivate(p key.Purpose) error {
	if !p.Valid() {
		return key.ErrPurpose
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	former := s.active[p].Swap(nil)
	if former == nil {
		return nil
	}
	former.entry.state.Store(uint32(key.OpenOnly))
	former.sealer.Stop() // a seal that meets this finds no key
	return nil
}

// usable says why nothing may be sealed under e.
func (e *entry) usable() error {
	switch e.currentState() {
	case key.Stopped:
		return e.fail(ErrStopped)
	case key.Destroyed:
		return e.fail(ErrDestroyed)
	default:
		return nil
	}
}

// Stop ends sealing under a key for good: after it returns no seal under it
// starts. One that started before the key ceased to be active may still be on its
// way to its caller. An active key is refused with [ErrActive]; a stopped one
// stays stopped.
func (s *Store) Stop(id key.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	switch e.currentState() {
	case key.Active:
		return e.fail(ErrActive)
	case key.Destroyed:
		return e.fail(ErrDestroyed)
	default:
		// The key's sealer was stopped when it ceased to be active.
		e.state.Store(uint32(key.Stopped))
		return nil
	}
}

// Destroy forgets a stopped key. Its id stays taken. A call that is opening or
// deriving with it at this moment completes. The memory is left to the garbage
// collector.
func (s *Store) Destroy(id key.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.entry(id)
	if err != nil {
		return err
	}
	switch e.currentState() {
	case key.Destroyed:
		return nil
	case key.Stopped:
		e.state.Store(uint32(key.Destroyed))
		e.cipher.Store(nil)
		e.dek.Store(nil)
		e.streams.Store(nil)
		e.meter.sealer.Store(nil)
		return nil
	default:
		return e.fail(ErrNotStopped)
	}
}

func (s *Store) entry(id key.ID) (*entry, error) {
	if e := s.table.Load().find(id); e != nil {
		return e, nil
	}
	return nil, &KeyError{ID: id, Err: ErrUnknownKey}
}
