package atrest

import (
	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/planted"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// errNotLoaded is what is known of a key that nobody tried to unwrap yet.
var errNotLoaded = errors.New("not unwrapped yet")

// syncAll makes the keystore what a state says. n.mu is held.
func (n *Node) syncAll(s *applier.State, deks map[key.ID]key.DEK, used map[key.ID]envelope.Usage) error {
	return n.sync(s, allKeys(s), deks, used)
}

// sync makes the keystore what a state that is published says about some keys.
// What is missing is fetched in the background. First keys arrive, then the active
// ones change, and last keys are stopped and destroyed, so that there is a key to
// seal under as long as one may be used. n.mu is held.
func (n *Node) sync(s *applier.State, ids []key.ID, deks map[key.ID]key.DEK, used map[key.ID]envelope.Usage) error {
	for _, id := range ids {
		if k, ok := s.Key(id); ok && k.State != key.Destroyed {
			if err := n.bring(k, deks, used); err != nil {
				return err
			}
		}
	}
	for _, p := range purposes {
		if err := n.settle(p); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if k, ok := s.Key(id); ok {
			if err := n.end(k); err != nil {
				return err
			}
		}
	}
	n.wake()
	return nil
}

// bring installs a key if its DEK is at hand.
func (n *Node) bring(k applier.Key, deks map[key.ID]key.DEK, used map[key.ID]envelope.Usage) error {
	if n.loaded[k.ID] {
		return nil
	}
	dek, ok := deks[k.ID]
	if !ok {
		dek, ok = n.takePrepared(k)
	}
	if ok {
		return n.install(k, dek, used[k.ID])
	}
	m := n.missing[k.ID]
	if m == nil {
		m = n.miss(k, errNotLoaded)
	}
	if m.fetched {
		m.again()
		return nil
	}
	m.fetched = true
	n.fetch(k, m)
	return nil
}

// end stops or destroys what the state says is stopped or destroyed.
func (n *Node) end(k applier.Key) error {
	switch {
	case k.State == key.Stopped && n.loaded[k.ID]:
		if planted.Has(planted.FallbackUnderStopped) {
			return nil
		}
		return n.keys.Stop(k.ID)
	case k.State == key.Destroyed && n.loaded[k.ID]:
		delete(n.loaded, k.ID)
		if err := n.keys.Stop(k.ID); err != nil {
			return err
		}
		return n.keys.Destroy(k.ID)
	case k.State == key.Destroyed:
		delete(n.missing, k.ID)
		return n.buryUnknown(k)
	}
	return nil
}

// buryUnknown leaves the tombstone of a key that was never here. One that was
// destroyed before has it.
func (n *Node) buryUnknown(k applier.Key) error {
	return n.keys.InstallDestroyed(k.ID, k.Purpose)
}

// settle makes the keystore seal under the key that the state says is active, or,
// as long as that one is missing, under the one before, or under none. n.mu is
// held.
func (n *Node) settle(p key.Purpose) error {
	want, ok := n.wanted(p)
	have, sealing := n.keys.Active(p)
	switch {
	case !ok && sealing:
		return n.keys.Deactivate(p)
	case !ok:
		return nil
	case n.taking: // CatchUp may refuse yet
		return nil
	case (n.counted[want] || n.first()) && !n.spent[want] && n.epochs[want] != 0:
		n.spent[want] = true
		err := n.keys.ActivateCounted(want, envelope.Writer{Node16: n.id.Node16(), Epoch: n.epochs[want]})
		return n.activated(want, p, err)
	case have == want && sealing:
		return nil
	case !n.first():
		return n.activated(want, p, n.keys.Activate(want))
	case sealing: // generation 1 seals with counted nonces or not at all
		return n.keys.Deactivate(p)
	}
	return nil
}

func (n *Node) activated(id key.ID, p key.Purpose, err error) error {
	if err != nil {
		return err
	}
	n.observe(KeyActivated{Key: id, Purpose: p, Suite: n.keys.Suite(p)})
	return nil
}

// wanted is the key that a purpose may seal under at this moment.
func (n *Node) wanted(p key.Purpose) (key.ID, bool) {
	s := n.State()
	k, ok := s.Active(p)
	if !ok {
		return 0, false
	}
	if n.loaded[k.ID] {
		return k.ID, true
	}
	former, ok := s.Former(p)
	if !ok || !n.loaded[former.ID] || former.State != key.OpenOnly && !planted.Has(planted.FallbackUnderStopped) {
		return 0, false
	}
	return former.ID, true
}

// noKey reports whether a seal failed because no key may be used.
func noKey(err error) bool { return errors.Is(err, keystore.ErrNoActiveKey) }
