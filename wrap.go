package atrest

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// wrap wraps a DEK for all KEKs and lets each of them unwrap it again, so that no
// container is proposed or written that does not open, whichever KEK is left.
func (n *Node) wrap(ctx context.Context, cluster key.ClusterID, id key.ID, p key.Purpose, dek key.DEK) (applier.WrappedKey, error) {
	container, err := n.wrapOnce(ctx, cluster, id, p, dek)
	if err != nil {
		return applier.WrappedKey{}, failedKEK(err, "wrap", id)
	}
	if n.first() {
		return n.wrappedFirst(ctx, id, container, dek)
	}
	c, err := key.ParseContainer(container)
	if err != nil {
		return applier.WrappedKey{}, err
	}
	for _, r := range c.Recipients {
		if err := n.opens(ctx, c.Header, r, dek); err != nil {
			return applier.WrappedKey{}, err
		}
	}
	return applier.WrappedKey{ID: id, Wrap: container}, nil
}

func (n *Node) wrapOnce(ctx context.Context, cluster key.ClusterID, id key.ID, p key.Purpose, dek key.DEK) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.kekTimeout)
	defer cancel()
	start := time.Now()
	var container []byte
	var err error
	if n.first() {
		container, err = n.keks.WrapGeneration1(ctx, id, dek)
	} else {
		container, err = n.keks.WrapDEK(ctx, cluster, id, p, dek)
	}
	n.observe(KEKCall{Op: "wrap", Key: id, Took: time.Since(start), Err: err})
	return container, err
}

// wrappedFirst is what wrap does in generation 1, where a wrap has one recipient.
func (n *Node) wrappedFirst(ctx context.Context, id key.ID, wrapped []byte, dek key.DEK) (applier.WrappedKey, error) {
	_, again, err := n.unwrap(ctx, id, wrapped)
	if err != nil {
		return applier.WrappedKey{}, failedKEK(err, "unwrap", id)
	}
	if !key.EqualDEK(dek, again) {
		return applier.WrappedKey{}, errors.Newf("atrest: key %s: what the KEK wrapped does not unwrap to the same key", id)
	}
	return applier.WrappedKey{ID: id, Wrap: wrapped}, nil
}

// opens asks one KEK for what it has wrapped.
func (n *Node) opens(ctx context.Context, h key.Header, r key.Recipient, dek key.DEK) error {
	alone, err := key.Container{Header: h, Recipients: []key.Recipient{r}}.Append(nil)
	if err != nil {
		return err
	}
	_, again, err := n.unwrap(ctx, h.ID, alone)
	if err != nil {
		return failedKEK(err, "unwrap", h.ID)
	}
	if !key.EqualDEK(dek, again) {
		return errors.Newf("atrest: key %s: what KEK %s wrapped does not unwrap to the same key", h.ID, r.KEK)
	}
	return nil
}
