package atrest_test

import (
	"context"
	"crypto/fips140"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// suiteOf seals a value and tells how.
func (m *member) suiteOf(t *testing.T) envelope.Suite {
	t.Helper()
	out, sealed, err := m.node.Storage().Seal(nil, []byte("v"), []byte("k"))
	require.NoError(t, err)
	m.w.used(m.name, out, sealed)
	return must(envelope.ParseHeader(out)).Suite
}

// countedSuite is what a registered node seals with. Strict FIPS mode counts no nonces.
func countedSuite() envelope.Suite {
	if fips140.Enforced() {
		return envelope.XAES256GCM
	}
	return envelope.AES256GCM
}

// Nonces were counted before it was known whether the epoch was the load's own, and a
// registration of somebody else was taken for one's own.
func TestNoNonceIsCountedBeforeOnesOwnRegistration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		n1 := w.bootstrapped("n1")[0]
		id := n1.active(key.Storage)
		require.Equal(t, countedSuite(), n1.suiteOf(t))
		w.hold = true
		require.NoError(t, n1.restart())
		epoch := n1.status(id).Epoch
		require.Equal(t, envelope.XAES256GCM, n1.suiteOf(t))
		for _, e := range []uint16{epoch, epoch + 5} { // its own epoch and a higher one, of other loads
			w.commit(n1, encoded(applier.Registration{Key: id, Node: n1.node.ID(), Epoch: e, Load: applier.LoadID{7}}))
			require.False(t, n1.status(id).Registered)
			require.Equal(t, envelope.XAES256GCM, n1.suiteOf(t))
		}
		w.hold = false
		w.settle()
		w.advance(time.Minute)
		k := n1.status(id)
		require.True(t, k.Registered)
		require.Equal(t, epoch+6, k.Epoch, "above all that others have taken")
		require.Equal(t, countedSuite(), n1.suiteOf(t))
		r := row(n1.node.State(), id, n1.node.ID())
		require.Equal(t, k.Epoch, r.Last)
		require.NotEqual(t, applier.LoadID{7}, r.Load)
	})
}

// What a load had registered for one key was taken to hold for the next one.
func TestRotationNeedsARegistrationOfItsOwn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		w.hold = true
		w.commit(ms[0], must(ms[0].node.NewRotation(t.Context(), key.Storage)))
		for _, m := range ms {
			require.False(t, m.status(m.active(key.Storage)).Registered)
			require.Equal(t, envelope.XAES256GCM, m.suiteOf(t))
		}
		w.hold = false
		w.settle()
		for _, m := range ms {
			require.Equal(t, countedSuite(), m.suiteOf(t))
		}
	})
}

// A registration that a node learned of by snapshot, or in its next start, was not
// taken for its own, or taken for its next one's.
func TestRegistrationInASnapshot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n1, n2 := ms[0], ms[1]
		w.hold = true
		w.commit(n1, must(n1.node.NewRotation(t.Context(), key.Storage)))
		n2.apart = true
		w.hold = false
		w.settle() // its proposal gets through, and it does not see that
		id := n2.active(key.Storage)
		require.False(t, n2.status(id).Registered)
		require.NoError(t, n1.snapshot())
		require.NoError(t, n2.install(n1))
		require.True(t, n2.status(id).Registered)
		require.Equal(t, countedSuite(), n2.suiteOf(t))

		w.hold = true
		n2.apart = false
		require.NoError(t, n2.restart())
		require.False(t, n2.status(id).Registered, "that was another load")
		require.Equal(t, envelope.XAES256GCM, n2.suiteOf(t))
	})
}

// A registration whose answer was lost was proposed again and again.
func TestCommittedRegistrationIsNotProposedAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.join("n1")[0]
		var proposals atomic.Int64
		lost := errors.New("the answer is lost")
		n := must(atrest.Open(t.Context(), atrest.Config{
			Dir: dir, Name: "n1", KEK: m.set(),
			Propose: func(ctx context.Context, entry []byte) error {
				proposals.Add(1)
				m.w.append(entry)
				m.w.mu.Lock()
				defer m.w.mu.Unlock()
				_, err := m.node.Apply(uint64(len(w.log)), entry)
				return errors.Join(err, lost)
			},
		}, atrest.WithFS(m.fs)))
		m.node = n
		require.NoError(t, n.CatchUp(t.Context(), atrest.View{}))
		require.NoError(t, n.Ready(t.Context()))
		m.apart = true // it applies by itself
		_, err := n.Apply(w.append(nil), must(n.NewBootstrap(t.Context(), w.ids())))
		require.NoError(t, err)
		w.advance(time.Hour)
		require.Equal(t, int64(2), proposals.Load(), "one for each key")
		require.True(t, m.status(m.active(key.Raft)).Registered)
	})
}
