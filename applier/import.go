package applier

import (
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
)

// ErrImport says that a state cannot be made from another cluster's.
var ErrImport = errors.New("not a state to import")

// Import returns the state with which a new cluster begins that takes over what
// another one has sealed. Its index is 0. The keys of the old one that are not
// destroyed come wrapped anew, each with its id and check value; none of them is
// sealed under again. storage and raft are the new active keys. Values go on being
// sealed if they were; Raft payloads are in clear. Nobody is registered.
func Import(old *State, cluster key.ClusterID, rewrapped []WrappedKey, storage, raft WrappedKey) (*State, error) {
	if !old.Bootstrapped() || old.gen != Generation2 {
		return nil, errors.Wrap(ErrImport, "applier: it has no keys of generation 2")
	}
	if cluster == old.cluster {
		return nil, errors.Wrapf(ErrImport, "applier: cluster %s has it already", cluster)
	}
	wraps := make(map[key.ID][]byte, len(rewrapped))
	for _, w := range rewrapped {
		if _, twice := wraps[w.ID]; twice {
			return nil, errors.Wrapf(ErrImport, "applier: key %s is wrapped twice", w.ID)
		}
		wraps[w.ID] = w.Wrap
	}
	s := &State{gen: Generation2, cluster: cluster, storage: Cutover{Active: old.storage.Active}}
	for k := range old.Keys() {
		if err := s.importKey(k, wraps); err != nil {
			return nil, err
		}
	}
	if len(wraps) > 0 {
		return nil, errors.Wrapf(ErrImport, "applier: %d keys are wrapped anew that it does not have", len(wraps))
	}
	for _, p := range [...]struct {
		w WrappedKey
		p key.Purpose
	}{{storage, key.Storage}, {raft, key.Raft}} {
		k := Key{ID: p.w.ID, Purpose: p.p, State: key.Active, Container: p.w.Wrap}
		h, err := s.header(p.w.Wrap)
		if err != nil {
			return nil, errors.Wrapf(ErrImport, "applier: key %s: %v", k.ID, err)
		}
		k.Check = h.Check
		i, _ := s.find(k.ID)
		s.keys = slices.Insert(s.keys, i, k)
	}
	if err := s.check(); err != nil {
		return nil, errors.Wrapf(ErrImport, "%v", err)
	}
	return s, nil
}

// importKey takes over a key of another state, and its container from wraps.
func (s *State) importKey(k Key, wraps map[key.ID][]byte) error {
	fresh := Key{ID: k.ID, Purpose: k.Purpose, State: max(k.State, key.OpenOnly), Check: k.Check}
	if k.State != key.Destroyed {
		wrap, ok := wraps[k.ID]
		if !ok {
			return errors.Wrapf(ErrImport, "applier: key %s is not wrapped anew", k.ID)
		}
		delete(wraps, k.ID)
		fresh.Container = wrap
	}
	s.keys = append(s.keys, fresh)
	return nil
}
