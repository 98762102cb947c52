package atrest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// What Status says of a node from its start to its end.
func TestStatusOfALife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.join("n1")[0]
		n, err := m.process()
		require.NoError(t, err)
		st := n.Status()
		require.Equal(t, atrest.Status{
			Name: "n1", Node: nodeid.Derive("n1"), Phase: "opened", KEKs: []string{"kms:a"}, FileKeyCurrent: true, Favoured: envelope.Favoured(),
			Waiting: []string{"the host has not called Ready"},
		}, st)
		require.NoError(t, n.CatchUp(t.Context(), atrest.View{First: 1}))
		require.Equal(t, "caught up", n.Status().Phase)
		require.False(t, n.Status().Serving)
		require.NoError(t, n.Ready(t.Context()))
		st = n.Status()
		require.Equal(t, "ready", st.Phase)
		require.True(t, st.Serving)
		require.Empty(t, st.Waiting)
		require.NoError(t, n.Close())
		require.NoError(t, m.start())

		w.commit(m, must(m.node.NewBootstrap(t.Context(), w.ids())))
		w.commit(m, must(m.node.NewEnableStorage()))
		w.put(m, "a", "12345")
		st = m.node.Status()
		s := m.node.State()
		require.Equal(t, s.Cluster(), st.Cluster)
		require.Equal(t, s.Index(), st.Index)
		require.Equal(t, s.StorageCutover(), st.StorageCutover)
		require.Equal(t, applier.Cutover{}, st.RaftCutover)
		require.Len(t, st.Keys, 2)
		id := m.active(key.Storage)
		require.Equal(t, atrest.KeyStatus{
			ID: id, Purpose: key.Storage, State: key.Active, Suite: registered(),
			Usage: envelope.Usage{Seals: 1, Bytes: 5}, Epoch: 1, Registered: true,
		}, m.status(id))

		w.commit(m, must(m.node.NewRotation(t.Context(), key.Storage)))
		require.Equal(t, atrest.KeyStatus{
			ID: id, Purpose: key.Storage, State: key.OpenOnly,
			Usage: envelope.Usage{Seals: 1, Bytes: 5}, Epoch: 1, Registered: true,
		}, m.status(id))
		stop := w.commit(m, must(m.node.NewStop(id)))
		require.Equal(t, key.Stopped, m.status(id).State)
		gone := applier.Evidence{Node: m.node.ID(), Taken: stop, FirstLog: stop + 1}
		w.commit(m, must(m.node.NewDestroy(id, []nodeid.ID{m.node.ID()}, []applier.Evidence{gone})))
		require.Equal(t, key.Destroyed, m.status(id).State)
		require.Nil(t, m.status(id).Missing)
		require.True(t, m.node.Status().Serving)

		n = m.node
		m.stop()
		st = n.Status()
		require.Equal(t, "closed", st.Phase)
		require.Equal(t, []string{"the node is closed"}, st.Waiting)
		require.False(t, st.Serving)
	})
}

// The events say the same as Status about how is sealed.
func TestSuiteOfEventsAndStatus(t *testing.T) {
	for _, opts := range [][]atrest.Option{nil, {atrest.WithExtendedOnly()}} {
		inWorld(t, func(t *testing.T, w *world) {
			m := w.join("n1")[0]
			m.opts = append(m.opts, opts...)
			require.NoError(t, m.start())
			w.commit(m, must(m.node.NewBootstrap(t.Context(), w.ids())))
			suites := map[key.ID]envelope.Suite{}
			for _, e := range m.seen {
				if e, ok := e.(atrest.KeyActivated); ok {
					suites[e.Key] = e.Suite
				}
			}
			require.Len(t, suites, 2)
			for id, suite := range suites {
				require.Equal(t, m.status(id).Suite, suite)
			}
		})
	}
}

// A missing key is named, with the time since when and the last reason, until it
// is there.
func TestStatusOfAMissingKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2")
		ms[1].keks[0].FailNext(1<<30, kek.ErrUnreachable)
		begin := time.Now()
		w.commit(ms[0], must(ms[0].node.NewRotation(t.Context(), key.Storage)))
		id := ms[0].active(key.Storage)

		missing := ms[1].status(id).Missing
		require.NotNil(t, missing)
		require.Equal(t, begin, missing.Since)
		require.Equal(t, 1, missing.Attempts)
		require.Contains(t, missing.Err, "unreachable")
		st := ms[1].node.Status()
		require.False(t, st.Serving)
		want := fmt.Sprintf("storage key %s is missing since %s: %s", id, begin.UTC().Format(time.RFC3339), missing.Err)
		require.Equal(t, []string{want}, st.Waiting)
		require.Contains(t, st.String(), "waiting: "+want+"\n")
		require.Zero(t, ms[1].status(id).Suite)
		former, _ := ms[1].node.State().Former(key.Storage)
		require.Equal(t, key.OpenOnly, former.State)
		require.NotZero(t, ms[1].status(former.ID).Suite, "it seals as long as the new one is missing")

		w.advance(time.Minute)
		later := ms[1].status(id).Missing
		require.Equal(t, begin, later.Since)
		require.Greater(t, later.Attempts, 3)
		ms[1].keks[0].Heal()
		w.advance(time.Minute)
		require.Nil(t, ms[1].status(id).Missing)
		require.True(t, ms[1].node.Status().Serving)
	})
}

func TestStatusText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	st := atrest.Status{
		Name: "n1", Node: 9007199254740993, Phase: "ready", Cluster: key.ClusterID{1}, Index: 12,
		StorageCutover: applier.Cutover{Active: true, Index: 2},
		Keys: []atrest.KeyStatus{
			{ID: 7, Purpose: key.Storage, State: key.Active, Suite: envelope.AES256GCM, Usage: envelope.Usage{Seals: 1, Bytes: 2}, Epoch: 3, Registered: true},
			{ID: 8, Purpose: key.Raft, State: key.OpenOnly, Missing: &atrest.MissingKey{Since: at, Attempts: 2, Err: "no answer"}},
		},
		KEKs: []string{"kms:a"}, FileKeyCurrent: true, Favoured: envelope.Favoured(),
		Waiting: []string{"raft key 8 is missing"},
	}
	require.Equal(t, strings.Join([]string{
		`node "n1" (9007199254740993), ready, cluster 01000000000000000000000000000000 at 12`,
		"storage key 7: active, 1 seals, 2 bytes, sealing with AES-256-GCM",
		"raft key 8: open-only, 0 seals, 0 bytes",
		"waiting: raft key 8 is missing",
		"",
	}, "\n"), st.String())

	b, err := json.MarshalIndent(st, "", "  ")
	require.NoError(t, err)
	require.Contains(t, string(b), `"Node": "9007199254740993"`, "a number of that size would be rounded by many readers")
	require.Contains(t, string(b), `"Purpose": "storage"`)
	require.Contains(t, string(b), `"Since": "2026-01-02T03:04:05Z"`)
	var again atrest.Status
	require.NoError(t, json.Unmarshal(b, &again))
	require.Equal(t, st, again)
}

// Status may be asked for at any time.
func TestStatusMeanwhile(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, m := range ms {
			n := m.node
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Microsecond):
						_ = n.Status()
					}
				}
			})
		}
		for range 5 {
			w.commit(ms[0], must(ms[0].node.NewRotation(t.Context(), key.Storage)))
		}
		close(stop)
		wg.Wait()
	})
}
