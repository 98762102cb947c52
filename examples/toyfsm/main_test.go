package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Three replicas go through a life of keys.
func Example() {
	dir, err := os.MkdirTemp("", "atrest-toyfsm-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := run(context.Background(), os.Stdout, dir); err != nil {
		fmt.Println(err)
	}
	// Output:
	// three replicas, and a first value in clear
	// bootstrap: a storage key and a Raft key, on every replica
	// cutovers: values and log payloads are sealed from now on
	// rotation: new values are sealed under the new key, old ones still open
	// replica d joined by snapshot and opens everything
	// stop: nothing is sealed under the first storage key any more
	// destroy: every replica proved that it needs the first storage key no more, and it is gone
	// restart: all replicas are back, with everything they had
	// refused: an entry that a client sent, and a value moved to another place
	// all as it should be
}

// A step that goes wrong is an error, not a line of output.
func TestAWrongStepIsAnError(t *testing.T) {
	s := &story{cluster: newCluster(t), dir: t.TempDir(), out: t.Output()}
	t.Cleanup(func() { require.NoError(t, s.close()) })
	require.NoError(t, s.begin(t.Context()))

	require.Error(t, s.check("early", "something else", 0))
	require.Error(t, s.check("early", "written before there were keys", 7))
	require.ErrorContains(t, s.cutovers(t.Context()), "bootstrap")
	require.NoError(t, s.bootstrap(t.Context()))
	require.Error(t, s.bootstrap(t.Context()), "a second one")

	s.replicas[1].values["early"] = stored{data: []byte("changed")}
	require.ErrorContains(t, s.check("early", "written before there were keys", 0), "replica b")
	_, err := s.leader().NewBootstrap(t.Context(), []nodeid.Member{{Name: "a", ID: s.leader().ID()}})
	require.Error(t, err)
	require.NotZero(t, s.active())
}

// Replicas come and go while others propose: nobody misses an entry.
func TestReplicasComeAndGo(t *testing.T) {
	s := &story{cluster: newCluster(t), dir: t.TempDir(), out: t.Output()}
	t.Cleanup(func() { require.NoError(t, s.close()) })
	require.NoError(t, s.begin(t.Context()))
	require.NoError(t, s.bootstrap(t.Context()))
	require.NoError(t, s.cutovers(t.Context()))

	var (
		wg   sync.WaitGroup
		done atomic.Bool
	)
	wg.Go(func() {
		for i := 0; !done.Load(); i++ {
			_, err := s.propose(fmt.Appendf(nil, "value %d\x00text", i))
			assert.NoError(t, err)
		}
	})
	for i := range 3 {
		assert.NoError(t, s.add(t.Context(), fmt.Sprint("new ", i)))
		r := s.replicas[1+i%2]
		assert.NoError(t, s.shutdown(r))
		assert.NoError(t, s.change(s.leader().NewRotation(t.Context(), key.Raft)))
		assert.NoError(t, s.start(t.Context(), r, s.home(r)))
	}
	done.Store(true)
	wg.Wait()
	require.NoError(t, s.same())
	require.NoError(t, s.check("value 0", "text", s.active()))

	// The leader proposes nothing while it is down.
	leader := s.replicas[0]
	require.NoError(t, s.shutdown(leader))
	_, err := s.propose([]byte("value\x00text"))
	require.ErrorContains(t, err, "the leader is down")
	require.NoError(t, s.start(t.Context(), leader, s.home(leader)))
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	master, err := makeKEK(t.TempDir() + "/kek")
	require.NoError(t, err)
	keks, err := kek.NewSet(master)
	require.NoError(t, err)
	return &cluster{keks: keks, first: 1}
}
