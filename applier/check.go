package applier

import (
	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
)

// check reports what no sequence of entries leads to in a state that was read, and
// fills in what is counted.
func (s *State) check() error {
	for _, f := range []func() error{
		s.checkHead, s.checkKeys, s.checkLives, s.checkCutovers, s.checkWriters, s.checkGone, s.checkBackups,
	} {
		if err := f(); err != nil {
			return errors.Wrapf(ErrForm, "applier: %v", err)
		}
	}
	return nil
}

func (s *State) checkHead() error {
	switch {
	case s.gen != Generation1 && s.gen != Generation2:
		return errors.Newf("unknown %v", s.gen)
	case !s.Bootstrapped() && (!s.cluster.IsZero() || s.index != 0 || s.storage != Cutover{} || s.raft != Cutover{} ||
		len(s.writers)+len(s.gone)+len(s.backups) > 0):
		return errors.New("no keys, and yet something else")
	case s.Bootstrapped() && s.cluster.IsZero() != (s.gen == Generation1):
		return errors.Newf("the cluster id %s in %v", s.cluster, s.gen)
	}
	return nil
}

func (s *State) checkKeys() error {
	if len(s.keys) > MaxKeys {
		return errors.Newf("%d keys", len(s.keys))
	}
	if !ascending(s.keys, func(k Key) uint64 { return uint64(k.ID) }) {
		return errors.New("keys that are not in ascending order")
	}
	checks := map[key.Check]key.ID{}
	for i := range s.keys {
		k := &s.keys[i]
		if err := s.checkKey(k); err != nil {
			return errors.Wrapf(err, "key %s", k.ID)
		}
		if other, reused := checks[k.Check]; reused && s.gen != Generation1 {
			return errors.Newf("key %s is key %s", k.ID, other)
		}
		checks[k.Check] = k.ID
		s.containers += len(k.Container)
	}
	if s.containers > MaxContainers {
		return errors.Newf("%d bytes of containers", s.containers)
	}
	return nil
}

func (s *State) checkKey(k *Key) error {
	switch {
	case k.ID == 0:
		return key.ErrReservedID
	case !k.Purpose.Valid():
		return key.ErrPurpose
	case !k.State.Valid():
		return key.ErrState
	case (k.State == key.Destroyed) != (k.Container == nil):
		return errors.Newf("it is %v with a container of %d bytes", k.State, len(k.Container))
	case s.gen == Generation1 && k.Check != key.Check{}:
		return errors.New("a check value in generation 1")
	case k.State == key.Destroyed:
		return nil
	}
	h, err := s.header(k.Container)
	if err != nil {
		return err
	}
	want := key.Header{Cluster: s.cluster, ID: k.ID, Purpose: k.Purpose, Check: k.Check}
	if s.gen != Generation1 && h != want {
		return errors.New("the container is another key's")
	}
	return nil
}

func (s *State) checkWriters() error {
	if len(s.writers) > MaxWriters {
		return errors.Newf("%d rows of the registry", len(s.writers))
	}
	for i, w := range s.writers {
		k, ok := s.Key(w.Key)
		switch {
		case i > 0 && compareWriters(s.writers[i-1], w) >= 0:
			return errors.New("rows of the registry that are not in ascending order")
		case !ok || k.State == key.Destroyed:
			return errors.Newf("a row of the registry for key %s", w.Key)
		case s.gen == Generation1 && w.Load != LoadID{}:
			return errors.New("a load id in generation 1")
		case w.Node == 0 || w.First > w.Last:
			return errors.Newf("a row of the registry for node %s with epochs %d to %d", w.Node, w.First, w.Last)
		}
	}
	return nil
}

func (s *State) checkGone() error {
	if len(s.gone) > MaxGone || len(s.gone) > 0 && s.gone[0] == 0 {
		return errors.Newf("%d nodes that are gone", len(s.gone))
	}
	for i := 1; i < len(s.gone); i++ {
		if s.gone[i] <= s.gone[i-1] {
			return errors.New("nodes that are gone and not in ascending order")
		}
	}
	return nil
}

func (s *State) checkBackups() error {
	origin := s.origin()
	for i, b := range s.backups {
		switch {
		case i > 0 && string(s.backups[i-1].ID[:]) >= string(b.ID[:]):
			return errors.New("backups that are not in ascending order")
		case b.Index <= origin || b.Index > s.index:
			return errors.Newf("a backup that was registered at %d", b.Index)
		case !ascending(b.Keys, func(id key.ID) uint64 { return uint64(id) }):
			return errors.New("keys of a backup that are not in ascending order")
		}
		for _, id := range b.Keys {
			if k, ok := s.Key(id); !ok || k.State == key.Destroyed {
				return errors.Newf("a backup that needs key %s", id)
			}
		}
		s.needed += len(b.Keys)
	}
	if len(s.backups) > MaxBackups || s.needed > MaxBackupKeys {
		return errors.Newf("%d backups that need %d keys", len(s.backups), s.needed)
	}
	return nil
}
