package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
)

// wrap returns a container of the file key that was unwrapped again: a file
// whose key cannot be unwrapped is lost.
func wrap(ctx context.Context, w KeyWrapper, node uint64, k secret.Key) ([]byte, error) {
	container, err := w.WrapFileKey(ctx, node, k)
	if err != nil {
		return nil, fmt.Errorf("wrap the file key: %w", err)
	}
	container = slices.Clone(container)
	if err := verify(ctx, w, node, k, container); err != nil {
		return nil, fmt.Errorf("verify the wrapped file key: %w", err)
	}
	return container, nil
}

func verify(ctx context.Context, w KeyWrapper, node uint64, k secret.Key, container []byte) error {
	c, err := key.ParseFileContainer(container)
	if err != nil {
		return err
	}
	if c.Node != node {
		return fmt.Errorf("got a container of node %d, want %d", c.Node, node)
	}
	again, err := w.UnwrapFileKey(ctx, node, slices.Clone(container))
	if err != nil {
		return err
	}
	if !secret.Equal(again, k) {
		return errors.New("another key came back")
	}
	return nil
}

// unwrap tells final errors from others.
func unwrap(ctx context.Context, w KeyWrapper, node uint64, container []byte) (secret.Key, error) {
	k, err := w.UnwrapFileKey(ctx, node, slices.Clone(container))
	var f interface{ Final() bool }
	switch {
	case err != nil && errors.As(err, &f) && f.Final():
		return secret.Key{}, fmt.Errorf("%w: %w", ErrFileKey, err)
	case err != nil:
		return secret.Key{}, fmt.Errorf("unwrap the file key: %w", err)
	case k.IsZero():
		return secret.Key{}, errors.New("unwrap the file key: no key and no error came back")
	}
	return k, nil
}
