package atrest

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// wrap wraps a DEK for all KEKs and lets each of them unwrap it again, so that no
// container is proposed or written that does not open, whichever KEK is left. In
// generation 1 there is one.
func (n *Node) wrap(ctx context.Context, cluster key.ClusterID, id key.ID, p key.Purpose, dek key.DEK) (applier.WrappedKey, error) {
	if !n.first() {
		return n.wrapForAll(ctx, cluster, id, p, dek)
	}
	var wrapped []byte
	err := n.callKEK(ctx, "wrap", id, func(ctx context.Context) (err error) {
		wrapped, err = n.keks.WrapGeneration1(ctx, id, dek)
		return err
	})
	if err != nil {
		return applier.WrappedKey{}, failedKEK(err, "wrap", id)
	}
	_, again, err := n.unwrap(ctx, id, wrapped)
	if err != nil {
		return applier.WrappedKey{}, failedKEK(err, "unwrap", id)
	}
	if !key.EqualDEK(dek, again) {
		return applier.WrappedKey{}, errors.Newf("atrest: key %s: what the KEK wrapped does not unwrap to the same key", id)
	}
	return applier.WrappedKey{ID: id, Wrap: wrapped}, nil
}

// wrapForAll is wrap in generation 2.
func (n *Node) wrapForAll(ctx context.Context, cluster key.ClusterID, id key.ID, p key.Purpose, dek key.DEK) (applier.WrappedKey, error) {
	var container []byte
	err := n.callKEK(ctx, "wrap", id, func(ctx context.Context) (err error) {
		container, err = n.keks.WrapDEK(ctx, cluster, id, p, dek)
		return err
	})
	if err != nil {
		return applier.WrappedKey{}, failedKEK(err, "wrap", id)
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

// opens asks one KEK for what it has wrapped.
func (n *Node) opens(ctx context.Context, h key.Header, r key.Recipient, dek key.DEK) error {
	alone, err := key.Container{Header: h, Recipients: []key.Recipient{r}}.Append(nil)
	if err != nil {
		return err
	}
	_, again, err := n.unwrapContainer(ctx, h.ID, alone)
	if err != nil {
		return failedKEK(err, "unwrap", h.ID)
	}
	if !key.EqualDEK(dek, again) {
		return errors.Newf("atrest: key %s: what KEK %s wrapped does not unwrap to the same key", h.ID, r.KEK)
	}
	return nil
}
