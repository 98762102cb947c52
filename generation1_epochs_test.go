package atrest_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Where another load of this node has registered the last epoch, nothing is sealed any
// more until a rotation: generation 1 has no suite for that, and no other is written.
func TestGeneration1WithoutEpochsWhileRunning(t *testing.T) {
	h := newFirstHost(t, "v2")
	failed, seen := make(failures, 64), make(registrations, 8)
	n, err := h.open(h.mode(), atrest.WithObserver(both{failed, seen}))
	require.NoError(t, err)
	defer n.Close()
	h.node = n
	require.NoError(t, n.CatchUp(t.Context(), atrest.View{Applied: foundIndex, First: foundIndex + 1, HadKeys: true}))
	entry, err := applier.Generation1.Append(nil, applier.Registration{Key: foundStorage, Node: nodeid.Derive("n1"), Epoch: 0xffff})
	require.NoError(t, err)
	exhausted := entry
	require.NoError(t, h.propose(t.Context(), entry))
	require.NoError(t, n.Ready(t.Context()))
	require.ErrorIs(t, <-failed, guard.ErrEpochExhausted)
	<-seen // nor does it keep the other key waiting

	st := n.Status()
	require.False(t, st.Serving)
	require.Contains(t, st.String(), "no epoch left for this node: rotate it on another member, and")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = n.Storage().SealContext(ended, nil, []byte("v"), nil)
	require.ErrorIs(t, err, atrest.ErrRetry)
	require.ErrorIs(t, n.Admit(ended), atrest.ErrRetry)
	_, err = n.Storage().Open(nil, h.elsewhere(foundStorage, "v", "a"), []byte("a"), true)
	require.NoError(t, err)

	entry, err = n.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	require.NoError(t, n.Admit(t.Context()))
	out, _, err := n.Storage().Seal(nil, []byte("v"), nil)
	require.NoError(t, err)
	require.Equal(t, byte(envelope.AES256GCM), out[0])
	require.True(t, n.Status().Serving)

	// Without the rotation the next start is refused, and says what does help.
	h = newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.propose(t.Context(), exhausted))
	require.NoError(t, h.node.Close())
	_, err = h.open(h.mode())
	require.ErrorIs(t, err, guard.ErrEpochExhausted)
	require.ErrorContains(t, err, "join again with an empty directory")
}

// A snapshot tells a node that it has no epoch left, and the same start is refused.
func TestGeneration1SnapshotThatTakesTheLastEpoch(t *testing.T) {
	a, b := newFirstHost(t, "v2"), newFirstHost(t, "v2")
	a.start(a.mode())
	entry, err := applier.Generation1.Append(nil, applier.Registration{Key: foundRaft, Node: nodeid.Derive("n1"), Epoch: 0xffff})
	require.NoError(t, err)
	require.NoError(t, a.propose(t.Context(), entry))
	part, err := a.node.Snapshot()
	require.NoError(t, err)
	require.NoError(t, b.fs.Remove(keysJSON))
	n, err := b.open(atrest.WithGeneration1(atrest.Generation1{}))
	require.NoError(t, err)
	defer n.Close()
	require.ErrorIs(t, n.Restore(t.Context(), part), guard.ErrEpochExhausted)
}

// A rotation whose key this node has no epoch for, because another load of it has taken
// them all, halts nothing: no value is sealed under it here until the next one.
func TestGeneration1RotationWithoutAnEpoch(t *testing.T) {
	h := newFirstHost(t, "v2")
	h.start(h.mode())
	require.NoError(t, h.node.Admit(t.Context()))
	const id = key.ID(4242)
	wrap, err := h.keks.WrapGeneration1(t.Context(), id, key.NewDEK())
	require.NoError(t, err)
	entry, err := applier.Generation1.Append(nil, applier.Rotation{
		Key: applier.WrappedKey{ID: id, Wrap: wrap}, Purpose: key.Storage,
		Proposer: applier.WriterRow{Key: id, Node: nodeid.Derive("n1"), Epoch: 0xffff},
	})
	require.NoError(t, err)
	require.NoError(t, h.node.Prepare(t.Context(), entry))
	require.NoError(t, h.propose(t.Context(), entry))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = h.node.Storage().SealContext(ended, nil, []byte("v"), nil)
	require.ErrorIs(t, err, atrest.ErrRetry)
	require.False(t, h.node.Status().Serving)
	entry, err = h.node.NewRotation(t.Context(), key.Storage)
	require.NoError(t, err)
	require.NoError(t, h.propose(t.Context(), entry))
	require.NoError(t, h.node.Admit(t.Context()))
	_, _, err = h.node.Storage().Seal(nil, []byte("v"), nil)
	require.NoError(t, err)
}

// both tells two.
type both [2]atrest.Observer

func (b both) Observe(e atrest.Event) {
	b[0].Observe(e)
	b[1].Observe(e)
}

// failures gets the error of each registration that failed.
type failures chan error

func (f failures) Observe(e atrest.Event) {
	if r, ok := e.(atrest.RegistrationFailed); ok {
		f <- r.Err
	}
}
