package guard

import (
	"fmt"

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
// is for a node that cannot seal without: others go on with extended nonces.
func EpochExhausted(k key.ID, epoch uint16) error {
	if epoch < maxEpoch {
		return nil
	}
	return &Refusal{
		Reason: ErrEpochExhausted,
		Key:    k,
		Detail: fmt.Sprintf("this node has used all %d", maxEpoch),
		Do:     "rotate the key on another member, then start this one",
	}
}
