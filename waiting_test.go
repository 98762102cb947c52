package atrest_test

import (
	"io/fs"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
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
	synctest.Test(t, func(t *testing.T) {
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
