package atrest_test

import (
	"context"
	"io/fs"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// A key that arrives late counts what was used of it, and not what was only
// reserved for this load.
func TestUsageOfAKeyThatArrivesLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		w.put(ms[0], "a", "1")
		for _, m := range ms { // n1 made the keys, the others unwrapped them after the commit
			k := m.status(m.active(key.Storage))
			require.True(t, k.Registered)
			require.Equal(t, uint64(1), k.Usage.Seals, m.name)
			require.NoError(t, m.restart())
			require.Equal(t, uint64(1<<20), m.status(k.ID).Usage.Seals, "%s: a chunk was reserved", m.name)
		}
	})
}

// slowDisk waits with each sync of a file until it is let go.
type slowDisk struct {
	*crashfs.FS
	slow atomic.Pointer[chan struct{}]
}

func (d *slowDisk) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	return slowFile{f, d}, err
}

type slowFile struct {
	durable.File
	d *slowDisk
}

func (f slowFile) Sync() error {
	if ch := f.d.slow.Load(); ch != nil {
		<-*ch
	}
	return f.File.Sync()
}

// While a change of keys is on its way to a slow disk, values and payloads are sealed
// and opened.
func TestSealsDoNotWaitForTheDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t, crashfs.New())
		require.NoError(t, s.both())
		require.NoError(t, s.node.Close())
		disk := &slowDisk{FS: s.fs}
		n := must(atrest.Open(t.Context(), atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}, atrest.WithFS(disk)))
		defer n.Close()
		require.NoError(t, n.CatchUp(t.Context(), s.view(uint64(len(s.log)))))
		entry := must(n.NewRotation(t.Context(), key.Storage))
		ch := make(chan struct{})
		disk.slow.Store(&ch)
		applied := make(chan error)
		go func() {
			_, err := n.Apply(uint64(len(s.log)+1), entry)
			applied <- err
		}()
		synctest.Wait()
		out, sealed, err := n.Storage().Seal(nil, []byte("v"), []byte("k"))
		require.NoError(t, err)
		_, err = n.Storage().Open(nil, out, []byte("k"), sealed)
		require.NoError(t, err)
		payload, err := n.Raft().Seal(nil, []byte("p"))
		require.NoError(t, err)
		_, err = n.Raft().Open(nil, 100, payload)
		require.NoError(t, err)
		close(ch)
		require.NoError(t, <-applied)
	})
}

// down makes a member's KEKs unreachable.
func (m *member) down() {
	for _, k := range m.keks {
		k.FailNext(math.MaxInt, kek.ErrUnreachable)
	}
}

func (m *member) heal() {
	for _, k := range m.keks {
		k.Heal()
	}
}

// keyOf is the key that a value is sealed under.
func keyOf(env []byte) key.ID { return must(envelope.ParseHeader(env)).KeyID }

// While a new key is not there, values are sealed under the one before; never once that
// one is stopped. Then they wait, and go on when the key arrives.
func TestValuesWhileAKeyIsMissing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n1, n2 := ms[0], ms[1]
		old := n2.active(key.Storage)
		n2.down()
		w.commit(n1, must(n1.node.NewRotation(t.Context(), key.Storage)))
		values := n2.node.Storage()
		out, sealed, err := values.Seal(nil, []byte("v"), []byte("k"))
		require.NoError(t, err)
		require.True(t, sealed)
		require.Equal(t, old, keyOf(out))
		w.used("n2", out, sealed)
		require.Nil(t, n2.status(old).Missing)
		require.NotNil(t, n2.status(n2.active(key.Storage)).Missing)

		w.commit(n1, must(n1.node.NewStop(old)))
		ctx, cancel := contextOver(t)
		defer cancel()
		_, _, err = values.SealContext(ctx, nil, []byte("v"), []byte("k"))
		require.ErrorIs(t, err, atrest.ErrRetry)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = values.Open(nil, out, []byte("k"), sealed)
		require.NoError(t, err, "a stopped key opens")

		waiting := make(chan []byte)
		go func() {
			out, _, _ := values.Seal(nil, []byte("v"), []byte("k"))
			waiting <- out
		}()
		w.advance(time.Hour)
		select {
		case out := <-waiting:
			t.Fatalf("sealed under %s", keyOf(out))
		default:
		}
		n2.heal()
		w.advance(time.Minute)
		require.Equal(t, n2.active(key.Storage), keyOf(<-waiting))
		require.True(t, n2.node.Status().Serving)
	})
}

// Raft payloads too are sealed under the key before, or not at all; a payload under a
// key that is missing is waited for.
func TestPayloadsWhileAKeyIsMissing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n1, n2 := ms[0], ms[1]
		old := n2.active(key.Raft)
		n2.down()
		i := w.commit(n1, must(n1.node.NewRotation(t.Context(), key.Raft)))
		require.Equal(t, i, n2.disk.applied, "the registrations above it are sealed under the new key")
		require.Greater(t, n1.disk.applied, i)
		sealed, err := n2.node.Raft().Seal(nil, []byte("p"))
		require.NoError(t, err)
		require.Equal(t, old, keyOf(sealed[4:]))

		n2.heal()
		w.advance(time.Minute)
		require.Equal(t, n1.disk.applied, n2.disk.applied)
		require.Equal(t, old, keyOf(sealed[4:]))
		opened, err := n1.node.Raft().Open(nil, 100, sealed)
		require.NoError(t, err)
		require.Equal(t, "p", string(opened))

		// The stop comes before the key.
		old = n2.active(key.Raft)
		n2.down()
		rotation := must(n1.node.NewRotation(t.Context(), key.Raft))
		w.hold = true
		w.commit(n1, rotation)
		before := must(n2.node.Raft().Seal(nil, []byte("before the stop")))
		_, err = n2.node.Apply(uint64(len(w.log))+1, must(n1.node.NewStop(old)))
		require.NoError(t, err)
		_, err = n2.node.Raft().Seal(nil, []byte("p"))
		require.ErrorIs(t, err, atrest.ErrRetry)
		_, err = n2.node.Raft().Open(nil, uint64(len(w.log))+2, before)
		require.ErrorIs(t, err, atrest.ErrRejected, "it lies above the stop")
		got, err := n2.node.Raft().Open(nil, uint64(len(w.log)), before)
		require.NoError(t, err)
		require.Equal(t, "before the stop", string(got))
	})
}

// Who waits is let go when the node closes.
func TestWaitersEndWithTheNode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.started("n1", "n2")
		n1, n2 := ms[0], ms[1]
		n2.down()
		w.hold = true
		w.commit(n1, must(n1.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(n1, must(n1.node.NewEnableStorage()))
		w.commit(n1, must(n1.node.NewEnableRaft()))
		out, sealed, err := n1.node.Storage().Seal(nil, []byte("v"), []byte("k"))
		require.NoError(t, err)
		payload, err := n1.node.Raft().Seal(nil, []byte("p"))
		require.NoError(t, err)
		errs := make(chan error)
		go func() { _, _, err := n2.node.Storage().Seal(nil, []byte("v"), []byte("k")); errs <- err }()
		go func() { _, err := n2.node.Storage().Open(nil, out, []byte("k"), sealed); errs <- err }()
		go func() { _, err := n2.node.Raft().Open(nil, 100, payload); errs <- err }()
		w.advance(time.Hour)
		go func() { errs <- n2.node.Close() }()
		closed := 0
		for range 4 {
			if err := <-errs; err != nil {
				require.ErrorIs(t, err, atrest.ErrClosed)
				closed++
			}
		}
		require.Equal(t, 3, closed)
		_, err = n2.node.Apply(100, []byte("\xa7EN\x02\x03\x02"))
		require.ErrorIs(t, err, atrest.ErrClosed)
	})
}

// Keys are made while a member cannot unwrap any: it has no key before, so it seals
// nothing, never in clear, and has no snapshot to give.
func TestFirstKeysDuringAnOutage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.started("n1", "n2")
		n1, n2 := ms[0], ms[1]
		n2.down()
		w.commit(n1, must(n1.node.NewBootstrap(t.Context(), w.ids())))
		_, err := n2.node.Snapshot()
		require.ErrorIs(t, err, atrest.ErrRetry)
		w.put(n1, "clear", "1")
		w.commit(n1, must(n1.node.NewEnableStorage()))
		i := w.put(n1, "a", "2")
		require.Equal(t, i-1, n2.disk.applied)
		n2.heal()
		w.advance(time.Minute)
		require.Equal(t, i, n2.disk.applied)
		require.True(t, n2.disk.store["a"].sealed)
		_, err = n2.node.Snapshot()
		require.NoError(t, err)
	})
}

// A rewrap to a KEK that a member can reach brings the key that it is missing, at once.
func TestRewrapBringsAMissingKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		n1, n2 := ms[0], ms[1]
		near := kektest.New("kms:near")
		n2.keks = append(n2.keks, near)
		require.NoError(t, n2.restart())
		n2.keks[0].FailNext(math.MaxInt, kek.ErrUnreachable)
		w.commit(n1, must(n1.node.NewRotation(t.Context(), key.Storage)))
		w.advance(time.Hour)
		id := n2.active(key.Storage)
		require.NotNil(t, n2.status(id).Missing)

		n1.keks = append(n1.keks, near)
		require.NoError(t, n1.restart())
		entries := must(n1.node.NewRewrap(t.Context()))
		began := time.Now()
		for _, e := range entries {
			w.commit(n1, e)
		}
		require.Nil(t, n2.status(id).Missing)
		require.Zero(t, time.Since(began))
	})
}

// A registration that does not go through is tried again, at longer and longer
// distances, and nothing waits for it.
func TestRegistrationBacksOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold = true // nothing that a node proposes reaches the log
		ms := w.started("n1")
		n1 := ms[0]
		w.commit(n1, must(n1.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(n1, must(n1.node.NewEnableStorage()))
		w.put(n1, "a", "1")
		w.advance(10 * time.Minute)
		var last time.Duration
		failures := 0
		for _, e := range n1.seen {
			if f, ok := e.(atrest.RegistrationFailed); ok {
				failures++
				require.ErrorIs(t, f.Err, context.DeadlineExceeded)
				last = f.Again
				require.LessOrEqual(t, last, 5*time.Second)
			}
		}
		require.Greater(t, last, time.Second)
		require.InDelta(t, 600/9, failures, 15, "five seconds for a proposal, and up to five between them")
		require.False(t, n1.status(n1.active(key.Storage)).Registered)
		w.hold = false
		w.settle()
		for range 12 {
			w.advance(time.Second)
		}
		require.True(t, n1.status(n1.active(key.Storage)).Registered)
		require.True(t, n1.status(n1.active(key.Raft)).Registered)
	})
}

// With several groups a value may name a key whose entry is still to come: opening it
// waits. With one it is an error at once.
func TestOpenOfAKeyThatIsStillToCome(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.join("n1", "n2", "n3")
		n1, n2, n3 := ms[0], ms[1], ms[2]
		n2.opts = append(n2.opts, atrest.WithSeveralGroups())
		for _, m := range ms {
			require.NoError(t, m.start())
		}
		w.commit(n1, must(n1.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(n1, must(n1.node.NewEnableStorage()))
		n2.apart, n3.apart = true, true
		w.commit(n1, must(n1.node.NewRotation(t.Context(), key.Storage)))
		out, sealed, err := n1.node.Storage().Seal(nil, []byte("v"), []byte("k"))
		require.NoError(t, err)
		_, err = n3.node.Storage().Open(nil, out, []byte("k"), sealed)
		require.ErrorIs(t, err, keystore.ErrUnknownKey)
		ctx, cancel := contextOver(t)
		defer cancel()
		_, err = n2.node.Storage().OpenContext(ctx, nil, out, []byte("k"), sealed)
		require.ErrorIs(t, err, atrest.ErrRetry)
		opened := make(chan string)
		go func() {
			v, _ := n2.node.Storage().Open(nil, out, []byte("k"), sealed)
			opened <- string(v)
		}()
		w.advance(time.Second)
		n2.apart = false
		w.settle()
		require.Equal(t, "v", <-opened)
		_, err = n2.node.NewEnableRaft()
		require.ErrorIs(t, err, atrest.ErrConfig)
	})
}
