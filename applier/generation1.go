package applier

import (
	"cmp"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
)

// Found is what a directory of generation 1 says of keys.
type Found struct {
	Index         uint64 // up to which the host has applied its log, durably
	Keys          []Key  // ID, Purpose and Container; whether they are active is below
	Storage, Raft key.ID // the active keys
	// The cutovers. Storage is in force with index 0 where the index is not known.
	StorageCutover, RaftCutover Cutover
	Writers                     []RegistryRow // as the host's store has them
}

// TakeOver returns the state of generation 1 that a directory of the reference system
// stands for. All members of a cluster take over at the end of one and the same log.
func TakeOver(f Found) (*State, error) {
	s := &State{gen: Generation1, index: f.Index, storage: f.StorageCutover, raft: f.RaftCutover}
	for _, k := range f.Keys {
		fresh := Key{ID: k.ID, Purpose: k.Purpose, State: key.OpenOnly, Container: k.Container}
		if k.ID == f.Storage || k.ID == f.Raft {
			fresh.State = key.Active
		}
		s.keys = append(s.keys, fresh)
	}
	slices.SortFunc(s.keys, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	for _, row := range f.Writers {
		w, err := row.Writer()
		if err != nil {
			return nil, err
		}
		// The reference system checks neither of any row.
		if _, known := s.find(w.Key); known && w.Node != 0 {
			s.writers = append(s.writers, w)
		}
	}
	slices.SortFunc(s.writers, compareWriters)
	if len(s.keys) == 0 {
		return New(Generation1), nil
	}
	if err := s.check(); err != nil {
		return nil, errors.Wrapf(err, "applier: the keys of generation 1")
	}
	return s, nil
}

// Upgrade returns the state of generation 2 that goes on where one of generation 1
// ended: the same keys, wrapped anew for a cluster id, at the same index. Every row of
// the registry stays, so no epoch comes twice.
func Upgrade(old *State, cluster key.ClusterID, wrapped []WrappedKey) (*State, error) {
	if old.gen != Generation1 || !old.Bootstrapped() {
		return nil, errors.Wrap(ErrImport, "applier: it has no keys of generation 1")
	}
	s := *old
	s.gen, s.cluster, s.keys, s.containers, s.needed = Generation2, cluster, slices.Clone(old.keys), 0, 0
	for i := range s.keys {
		k := &s.keys[i]
		at := slices.IndexFunc(wrapped, func(w WrappedKey) bool { return w.ID == k.ID })
		if at < 0 {
			return nil, errors.Wrapf(ErrImport, "applier: key %s is not wrapped anew", k.ID)
		}
		h, err := s.header(wrapped[at].Wrap)
		if err != nil {
			return nil, errors.Wrapf(ErrImport, "applier: key %s: %v", k.ID, err)
		}
		k.Container, k.Check = wrapped[at].Wrap, h.Check
	}
	if err := s.check(); err != nil {
		return nil, errors.Wrapf(ErrImport, "%v", err)
	}
	return &s, nil
}
