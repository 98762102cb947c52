package applier_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

func generation1(t *testing.T) *applier.State {
	t.Helper()
	wrap := func(id key.ID) applier.WrappedKey {
		return applier.WrappedKey{ID: id, Wrap: fmt.Appendf(nil, "%060d", id)}
	}
	s, o, err := applier.New(applier.Generation1).Apply(1, applier.Bootstrap{
		Storage: wrap(1), Raft: wrap(2), Writers: []applier.WriterRow{{Key: 1, Node: 11}},
	})
	require.NoError(t, err)
	require.Equal(t, applier.Applied, o.Kind)
	return s
}

// A state that no log leads to is refused, and the error says what is wrong with it.
func TestDamagedStates(t *testing.T) {
	texts := map[string]string{"generation 1": string(generation1(t).AppendJSON(nil))}
	for name, s := range states(t) {
		texts[name] = string(s.AppendJSON(nil))
	}
	for _, tt := range []struct{ state, old, with, want string }{
		{"everything", `"created":10,"retired":40`, `"created":10,"retired":9`, "key 1: it is destroyed, and an index says otherwise"},
		{"everything", `"retired":40,`, ``, "key 1 was never active"},
		{"everything", `"stopped":50,`, ``, "key 1: it is destroyed, and an index says otherwise"},
		{"everything", `"stopped":50`, `"stopped":40`, "key 1: it is destroyed, and an index says otherwise"},
		{"everything", `,"destroyed":100`, ``, "key 1: it is destroyed, and an index says otherwise"},
		{"everything", `"destroyed":100`, `"destroyed":101`, "key 1: it was changed after 100"},
		{"everything", `"created":40,"rewrapped":90`, `"created":40,"rewrapped":101`, "key 3: it was changed after 100"},
		{"everything", `"created":40,"rewrapped":90`, `"created":40,"rewrapped":40`, "key 3: it was rewrapped at 40"},
		{"everything", `"created":10,"retired":40`, `"created":10,"rewrapped":100,"retired":40`, "key 1: it was rewrapped at 100"},
		{"everything", `"created":40`, `"created":41`, "key 3 was not active from 40 on"},
		{"everything", `"created":40,"rewrapped":90`, `"created":40,"rewrapped":90,"retired":95`, "key 3: it is active, and an index says otherwise"},
		{"everything", `"created":40,"rewrapped":90`, `"created":40,"rewrapped":90,"stopped":95`, "key 3: it is active, and an index says otherwise"},
		{"everything", `"storage_cutover":{"index":20}`, `"storage_cutover":{"index":10}`, "a cutover at 10"},
		{"everything", `"storage_cutover":{"index":20}`, `"storage_cutover":{"index":0}`, "a cutover at 0"},
		{"everything", `"index":80,"keys":[2,3]`, `"index":10,"keys":[2,3]`, "a backup that was registered at 10"},
		{"everything", `"check":"00000001`, `"check":"00000002`, "key 2 is key 1"},
		{"everything", `"purpose":"raft"`, `"purpose":"storage"`, "the container is another key's"},
		{"everything", `"gone":["1152921504606846976"]`, `"gone":["9","8"]`, "not in ascending order"},
		{"everything", `"gone":["1152921504606846976"]`, `"gone":["0"]`, "nodes that are gone"},
		{"everything", `"writers":{`, `"writers":{"1":[],`, "no rows of key 1"},
		{"everything", `"cluster":"61`, `"cluster":"00000000000000000000000000000000","x":"`, "the cluster id is zero"},
		{"bootstrapped", `"purpose":"raft","state":"active"`, `"purpose":"raft","state":"open-only"`, "key 2 was never active"},
		{"bootstrapped", `"created":10`, `"created":9`, "the raft keys: key 2 was not active from 9 on"},
		{"bootstrapped", `"index":10`, `"index":9`, "it was changed after 9"},
		{"bootstrapped", `"container":"`, `"container":"!`, "not base64"},
		{"bootstrapped", `"container":"`, `"no":"`, "want } next"},
		{"imported", `"index":0`, `"index":5,"raft_cutover":{"index":0}`, "want"},
		{"imported", `"storage_cutover":{"index":0}`, `"storage_cutover":{"index":0},"raft_cutover":{"index":0}`, "a cutover at 0"},
		{"imported", `"storage_cutover":{"index":0}`, `"storage_cutover":{"index":1}`, "a cutover at 1"},
		{"generation 1", `"created":1`, `"created":0`, "was not active from"},
		{"generation 1", `"11 0 0"`, `"11 0 0 01000000000000000000000000000000"`, "a load id in generation 1"},
		{"generation 1", `"created":1`, `"check":"01000000000000000000000000000000","created":1`, "a check value in generation 1"},
		{"generation 1", `{"generation":1`, `{"generation":2`, "the cluster id"},
		{"generation 1", `{"generation":1`, `{"generation":1,"cluster":"01000000000000000000000000000000"`, "the cluster id"},
		{"generation 1", `{"generation":1`, `{"generation":0`, "unknown generation 0"},
	} {
		text := texts[tt.state]
		require.Contains(t, text, tt.old)
		s, err := applier.ParseJSON([]byte(strings.Replace(text, tt.old, tt.with, 1)))
		require.ErrorIs(t, err, applier.ErrForm, "%s: %s", tt.old, tt.with)
		require.Nil(t, s)
		require.ErrorContains(t, err, tt.want, "%s: %s", tt.old, tt.with)
	}

	// Before any entry there is nothing, and one way to say so.
	empty := string(applier.New(applier.Generation1).AppendJSON(nil))
	_, err := applier.ParseJSON([]byte(empty))
	require.NoError(t, err)
	for old, with := range map[string]string{
		`"index":0`:      `"index":1`,
		`"gone":[]`:      `"gone":["1"]`,
		`"generation":1`: `"generation":2`,
	} {
		_, err := applier.ParseJSON([]byte(strings.Replace(empty, old, with, 1)))
		require.ErrorIs(t, err, applier.ErrForm, with)
	}
}

// One container for two ids, one wrap more or less, the same cluster: no import.
func TestImportRefuses(t *testing.T) {
	old := states(t)["everything"] // has keys 2 and 3, and 1 destroyed
	wrap := func(id key.ID, p key.Purpose) applier.WrappedKey {
		return applier.WrappedKey{ID: id, Wrap: container(newCluster, id, p, "")}
	}
	kept := []applier.WrappedKey{wrap(2, key.Raft), wrap(3, key.Storage)}
	storage, raft := wrap(101, key.Storage), wrap(102, key.Raft)
	_, err := applier.Import(old, newCluster, kept, storage, raft)
	require.NoError(t, err)
	for name, try := range map[string]func() (*applier.State, error){
		"the same cluster": func() (*applier.State, error) { return applier.Import(old, cluster, kept, storage, raft) },
		"no cluster":       func() (*applier.State, error) { return applier.Import(old, key.ClusterID{}, kept, storage, raft) },
		"no keys": func() (*applier.State, error) {
			return applier.Import(applier.New(applier.Generation2), newCluster, nil, storage, raft)
		},
		"generation 1": func() (*applier.State, error) { return applier.Import(generation1(t), newCluster, kept, storage, raft) },
		"one missing":  func() (*applier.State, error) { return applier.Import(old, newCluster, kept[1:], storage, raft) },
		"one twice": func() (*applier.State, error) {
			return applier.Import(old, newCluster, append(slices.Clone(kept), kept[0]), storage, raft)
		},
		"one too many": func() (*applier.State, error) {
			return applier.Import(old, newCluster, append(slices.Clone(kept), wrap(1, key.Storage)), storage, raft)
		},
		"old container": func() (*applier.State, error) {
			return applier.Import(old, newCluster, []applier.WrappedKey{kept[0], wrapped(3, key.Storage)}, storage, raft)
		},
		"id in use": func() (*applier.State, error) {
			return applier.Import(old, newCluster, kept, wrap(1, key.Storage), raft)
		},
		"one id": func() (*applier.State, error) {
			return applier.Import(old, newCluster, kept, storage, wrap(101, key.Raft))
		},
		"purposes": func() (*applier.State, error) { return applier.Import(old, newCluster, kept, raft, storage) },
		"not a wrap": func() (*applier.State, error) {
			return applier.Import(old, newCluster, kept, storage, applier.WrappedKey{ID: 9})
		},
		"no id": func() (*applier.State, error) {
			return applier.Import(old, newCluster, kept, storage, applier.WrappedKey{})
		},
		"key with name": func() (*applier.State, error) { return applier.Import(old, newCluster, kept, kept[1], raft) },
	} {
		s, err := try()
		require.ErrorIs(t, err, applier.ErrImport, name)
		require.Nil(t, s, name)
	}
}

// Every row of the registry in the form of generation 1.
func TestRegistryRowsOfAState(t *testing.T) {
	s := states(t)["everything"]
	var want []applier.Writer
	for k := range s.Keys() {
		for w := range s.Writers(k.ID) {
			w.Load = applier.LoadID{} // there is no place for it
			want = append(want, w)
		}
	}
	var got []applier.Writer
	for _, row := range applier.RegistryRows(s) {
		w, err := row.Writer()
		require.NoError(t, err)
		got = append(got, w)
	}
	require.NotEmpty(t, got)
	require.Equal(t, want, got)
}

// Index 0 and an entry that a program made up stop the replica, with no outcome.
func TestHalts(t *testing.T) {
	s := states(t)["everything"]
	next, o, err := s.Apply(0, applier.Stop{Key: 3})
	require.ErrorIs(t, err, applier.ErrIndex)
	require.Zero(t, o)
	require.Same(t, s, next)

	type madeUp struct{ applier.Stop }
	next, o, err = s.Apply(200, madeUp{})
	require.ErrorIs(t, err, applier.ErrInvariant)
	require.Zero(t, o)
	require.Same(t, s, next)
}

// What is no value of a type still prints.
func TestStrings(t *testing.T) {
	for _, v := range []fmt.Stringer{
		applier.Kind(0), applier.Kind(9), applier.Registered(9), applier.Op(0), applier.Op(99), applier.Generation(7),
	} {
		require.Regexp(t, `[( ]\d+\)?$`, v.String())
	}
	for _, v := range []fmt.Stringer{applier.Applied, applier.NoOp, applier.Rejected, applier.NotRegistered, applier.OpStop} {
		require.Regexp(t, `^[a-z-]+$`, v.String())
	}
	require.Equal(t, strings.Repeat("00", 15)+"01", applier.LoadID{15: 1}.String())
}
