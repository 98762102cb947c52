package applier

import (
	"cmp"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
)

// origin is the index of the bootstrap; 0 in an imported state, which begins with
// its keys.
func (s *State) origin() uint64 {
	var first uint64
	for i := range s.keys {
		if i == 0 || s.keys[i].Created < first {
			first = s.keys[i].Created
		}
	}
	return first
}

// checkLives checks that what happened to the keys can have happened: those of a
// purpose that were active, were so one after the other, from the first entry to
// now, and only an imported state has others.
func (s *State) checkLives() error {
	if !s.Bootstrapped() {
		return nil
	}
	origin := s.origin()
	var line [key.Raft + 1][]*Key
	for i := range s.keys {
		k := &s.keys[i]
		if err := k.checkLife(s.index); err != nil {
			return errors.Wrapf(err, "key %s", k.ID)
		}
		switch {
		case k.State == key.Active || k.Retired != 0:
			line[k.Purpose] = append(line[k.Purpose], k)
		case k.Created != 0:
			return errors.Newf("key %s was never active", k.ID)
		}
	}
	for _, p := range [...]key.Purpose{key.Storage, key.Raft} {
		if err := checkLine(line[p], origin); err != nil {
			return errors.Wrapf(err, "the %v keys", p)
		}
	}
	return nil
}

// checkLine checks that the keys of a purpose were active in turn.
func checkLine(keys []*Key, origin uint64) error {
	slices.SortFunc(keys, func(a, b *Key) int { return cmp.Compare(a.Created, b.Created) })
	from := origin
	for i, k := range keys {
		if last := i == len(keys)-1; k.Created != from || last != (k.State == key.Active) {
			return errors.Newf("key %s was not active from %d on", k.ID, from)
		}
		from = k.Retired
	}
	if len(keys) == 0 {
		return errors.New("none was ever active")
	}
	return nil
}

// checkLife checks a key's indexes, which follow one another where there are any.
func (k *Key) checkLife(now uint64) error {
	last := k.Created
	for _, step := range [...]struct {
		index     uint64
		must, may bool
	}{
		{k.Retired, false, k.State != key.Active},
		{k.Stopped, k.State >= key.Stopped && k.Created|k.Retired != 0, k.State >= key.Stopped},
		{k.Destroyed, k.State == key.Destroyed && k.Stopped != 0, k.State == key.Destroyed},
	} {
		switch {
		case step.index == 0 && !step.must:
		case step.index <= last || !step.may:
			return errors.Newf("it is %v, and an index says otherwise", k.State)
		default:
			last = step.index
		}
	}
	switch {
	case last > now || k.Rewrapped > now:
		return errors.Newf("it was changed after %d", now)
	case k.Rewrapped != 0 && (k.Rewrapped <= k.Created || k.State == key.Destroyed && k.Rewrapped >= k.Destroyed):
		return errors.Newf("it was rewrapped at %d", k.Rewrapped)
	}
	return nil
}

func (s *State) checkCutovers() error {
	origin := s.origin()
	for _, c := range [...]struct {
		Cutover
		inherited bool // from the cluster that was imported
	}{{s.storage, s.Bootstrapped() && origin == 0 && s.storage.Index == 0}, {s.raft, false}} {
		switch {
		case !c.Active && c.Index == 0 || c.Active && c.inherited:
		case !c.Active || c.Index <= origin || c.Index > s.index:
			return errors.Newf("a cutover at %d in the state at %d", c.Index, s.index)
		}
	}
	return nil
}
