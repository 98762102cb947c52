package guard

import (
	"bytes"
	"fmt"

	"github.com/atrestdb/atrest/applier"
)

// KeysMissing refuses to go on without keys where the store, the log or a snapshot
// shows that there were some. where names what should hold them.
func KeysMissing(bootstrapped, sealed bool, where string) error {
	if bootstrapped || !sealed {
		return nil
	}
	return &Refusal{
		Reason: ErrKeysMissing,
		Detail: where + " has none, but the store, the log or a snapshot shows that there were keys",
		Do:     "put back the last copy that this node wrote, or restore a snapshot in this start; else " + rejoin,
	}
}

// Range says up to where things are known when a node starts. 0 is nothing.
type Range struct {
	State    uint64 // the entry that changed the key state last
	Applied  uint64 // the last entry in the host's store
	First    uint64 // the first entry that the log still has
	Through  uint64 // every entry up to here is recorded to be in the state
	Snapshot uint64 // every entry up to here is in a snapshot that was restored
}

// BehindLog refuses a start where the host has applied entries that the key state
// may lack and that the log has no more. Entries that it still has can be looked
// through.
func BehindLog(r Range) error {
	known := max(r.State, r.Through, r.Snapshot)
	if r.Applied <= r.State || r.First == 0 || known >= r.First-1 {
		return nil
	}
	return &Refusal{
		Reason: ErrBehindLog,
		Detail: fmt.Sprintf("entries %d to %d were applied and are no longer in the log, which begins with %d, "+
			"and nothing says that the keys in them are here", known+1, r.First-1, r.First),
		Do: "restore a snapshot of this cluster in this start; else " + rejoin,
	}
}

// Divergence compares two states that should be of one log, such as a node's own
// and that of a snapshot. Neither need be the newer one. A state without keys
// contradicts nothing.
func Divergence(have, got *applier.State) error {
	if !have.Bootstrapped() || !got.Bootstrapped() {
		return nil
	}
	if h, g := have.Cluster(), got.Cluster(); h != g {
		return &Refusal{
			Reason: ErrDivergence,
			Detail: fmt.Sprintf("the one here is of cluster %s, the other of cluster %s", h, g),
			Do:     "give this node the directory and the snapshots of one cluster",
		}
	}
	detail := contradiction(have, got)
	if detail == "" {
		return nil
	}
	return &Refusal{
		Reason: ErrDivergence,
		Detail: fmt.Sprintf("the one here, as of entry %d, and the other, as of entry %d, %s", have.Index(), got.Index(), detail),
		Do:     "compare the digests of all members; if this one is alone with its own, " + rejoin,
	}
}

// contradiction says in what two states of one cluster contradict each other, if
// they do.
func contradiction(a, b *applier.State) string {
	older, newer := a, b
	if a.Newer(b) {
		older, newer = b, a
	}
	unknown := newer.StorageCutover().Active && unknownIndex(a) != unknownIndex(b)
	switch {
	case !unknown && !follows(older.StorageCutover(), newer.StorageCutover(), older.Index()):
		return cutovers("storage", a.StorageCutover(), b.StorageCutover())
	case !follows(older.RaftCutover(), newer.RaftCutover(), older.Index()):
		return cutovers("raft", a.RaftCutover(), b.RaftCutover())
	case !(unknown && older.StorageCutover().Active) && a.Index() == b.Index() && a.Digest() != b.Digest():
		return fmt.Sprintf("have the digests %.8x and %.8x", a.Digest(), b.Digest())
	}
	for k := range older.Keys() {
		if got, ok := newer.Key(k.ID); !ok || !sameKey(k, got, newer.Generation()) {
			return fmt.Sprintf("do not have the same key %s, and no key is ever removed", k.ID)
		}
	}
	return ""
}

// unknownIndex is true where a member took over a file of version 1, which does not say
// at which entry the storage cutover was. Another one's of version 2 may.
func unknownIndex(s *applier.State) bool {
	c := s.StorageCutover()
	return s.Generation() == applier.Generation1 && c.Active && c.Index == 0
}

// sameKey reports whether two states mean the same DEK. In generation 1, where nothing
// is ever wrapped anew, the wrap says so.
func sameKey(a, b applier.Key, gen applier.Generation) bool {
	return a.Purpose == b.Purpose && a.Check == b.Check &&
		(gen != applier.Generation1 || bytes.Equal(a.Container, b.Container))
}

// follows reports whether a newer state may have one cutover where an older one
// has the other: it happens once, and the older one lacks only what came later.
func follows(older, newer applier.Cutover, index uint64) bool {
	if older.Active {
		return newer == older
	}
	return !newer.Active || newer.Index > index
}

func cutovers(purpose string, a, b applier.Cutover) string {
	return fmt.Sprintf("have the %s cutover %s and %s", purpose, when(a), when(b))
}

func when(c applier.Cutover) string {
	if c.Active {
		return fmt.Sprintf("at entry %d", c.Index)
	}
	return "not at all"
}
