package atrest

import (
	"context"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

// Prepare proves that this node can unwrap the keys that an entry brings, and keeps
// them, so that the entry needs no KEK when it commits. The leader asks it of every
// member before it proposes. What is kept is bounded, and forgotten after ten
// minutes.
func (n *Node) Prepare(ctx context.Context, entry []byte) error {
	e, err := n.generation().Parse(entry)
	if err != nil {
		return err
	}
	keys := keysIn(e)
	return inParallel(len(keys), func(i int) error { return n.prepare(ctx, keys[i]) })
}

// brought is a key as an entry has it.
type brought struct {
	applier.WrappedKey
	purpose key.Purpose // 0: the entry does not say
}

func keysIn(e applier.Entry) (keys []brought) {
	switch e := e.(type) {
	case applier.Bootstrap:
		keys = []brought{{e.Storage, key.Storage}, {e.Raft, key.Raft}}
	case applier.Rotation:
		keys = []brought{{e.Key, e.Purpose}}
	case applier.Rewrap:
		for _, w := range e.Keys {
			keys = append(keys, brought{WrappedKey: w})
		}
	}
	return keys
}

func (n *Node) prepare(ctx context.Context, b brought) error {
	h, dek, err := n.unwrap(ctx, b.ID, b.Wrap)
	if err != nil {
		return failedKEK(err, "unwrap", b.ID)
	}
	if !n.first() { // where a header says all this
		if err := b.check(h, n.State()); err != nil {
			return err
		}
	}
	n.keep(h, dek)
	return nil
}

// check compares the header of a container with what the entry says, and with what
// this node knows. A node that is behind knows less.
func (b brought) check(h key.Header, s *applier.State) error {
	k, known := s.Key(b.ID)
	switch {
	case h.ID != b.ID:
		return errors.Newf("atrest: the container of key %s is that of key %s", b.ID, h.ID)
	case b.purpose != 0 && h.Purpose != b.purpose, known && h.Purpose != k.Purpose:
		return errors.Newf("atrest: the container of key %s is that of a %v key", b.ID, h.Purpose)
	case s.Bootstrapped() && h.Cluster != s.Cluster():
		return errors.Newf("atrest: the container of key %s is of cluster %s, want %s", b.ID, h.Cluster, s.Cluster())
	case known && h.Check != k.Check:
		return errors.Newf("atrest: the container of key %s holds another key", b.ID)
	}
	return nil
}

// inParallel calls f with 0 to n-1, several at once. After an error it starts no
// more, and returns that of the lowest number.
func inParallel(n int, f func(i int) error) error {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		next   int
		failed = n
		first  error
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		i := next
		next++
		return i, i < failed
	}
	for range min(maxCalls, n) {
		wg.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				if err := f(i); err != nil {
					mu.Lock()
					if i < failed {
						failed, first = i, err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}
