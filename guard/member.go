package guard

import (
	"fmt"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Members refuses a cluster of which two members share a node16. It names the
// first such pair.
func Members(members []nodeid.Member) error {
	found := nodeid.Collisions(members)
	if len(found) == 0 {
		return nil
	}
	return &Refusal{Reason: ErrCollision, Member: found[0].String(), Do: doRename}
}

// EpochRollback compares the registry's row of this node for a key with the epoch
// that its own keys.json has for it. A row of another node is a collision. A row
// of ours with a higher epoch was written in a time that keys.json knows nothing
// of: an old copy of it was put back, or another process runs as this node.
func EpochRollback(own nodeid.ID, epoch uint16, row applier.Writer) error {
	switch {
	case row.Node != own:
		return &Refusal{
			Reason: ErrCollision,
			Key:    row.Key,
			Member: nodeid.Collision{A: nodeid.Member{ID: own}, B: nodeid.Member{ID: row.Node}}.String(),
			Detail: "the other one has sealed under this key",
			Do:     "give this member another name and an empty directory",
		}
	case row.Last > epoch:
		return &Refusal{
			Reason: ErrEpochRollback,
			Key:    row.Key,
			Member: nodeid.Member{ID: own}.String(),
			Detail: fmt.Sprintf("the cluster has seen its epoch %d, and keys.json has %d: it is an old copy, or another process runs as this node",
				row.Last, epoch),
			Do: "make sure that no other process does, then put back the last copy that this node wrote; else " + rejoin,
		}
	}
	return nil
}

const (
	doRename = "give one of them another name"

	maxEpoch   = 1<<16 - 1
	warnEpochs = 256 // left when the warning begins
)

// EpochWarning says that a key has few epochs left for this node, from 0xFF00 on.
func EpochWarning(k key.ID, epoch uint16) (warning string, ok bool) {
	left := maxEpoch - int(epoch)
	if left >= warnEpochs {
		return "", false
	}
	return fmt.Sprintf("key %s: this node has used epoch %d of %d, %d starts are left: rotate the key",
		k, epoch, maxEpoch, left), true
}

// EpochExhausted refuses a start that would need an epoch after the last one. It
// is for a node of generation 1, which cannot seal without: others go on with extended
// nonces. A rotation does not reach a node that does not start.
func EpochExhausted(k key.ID, epoch uint16) error {
	if epoch < maxEpoch {
		return nil
	}
	return &Refusal{
		Reason: ErrEpochExhausted,
		Key:    k,
		Detail: fmt.Sprintf("this node has used all %d", maxEpoch),
		Do: "rotate the key on another member, then remove this one from the cluster and let it join again with an " +
			"empty directory; or upgrade all members to generation 2",
	}
}
