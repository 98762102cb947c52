package applier_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

var cluster = key.ClusterID([]byte("a cluster's id.."))

// container is one with a filler for a wrap. Its check value depends on the id alone.
func container(c key.ClusterID, id key.ID, p key.Purpose, filler string) []byte {
	var check key.Check
	binary.BigEndian.PutUint32(check[:], uint32(id))
	check[15] = 0xcc
	b, err := key.Container{
		Header:     key.Header{Cluster: c, ID: id, Purpose: p, Check: check},
		Recipients: []key.Recipient{{KEK: "kms:a", Wrap: []byte("wrap" + filler)}},
	}.Append(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func wrapped(id key.ID, p key.Purpose) applier.WrappedKey {
	return applier.WrappedKey{ID: id, Wrap: container(cluster, id, p, "")}
}

func boot(rows ...applier.WriterRow) applier.Bootstrap {
	return applier.Bootstrap{Storage: wrapped(1, key.Storage), Raft: wrapped(2, key.Raft), Writers: rows}
}

func rotation(id key.ID, p key.Purpose) applier.Rotation {
	return applier.Rotation{Key: wrapped(id, p), Purpose: p, Proposer: applier.WriterRow{Key: id, Node: 11}}
}

func registration(id key.ID, n nodeid.ID, epoch uint16, load byte) applier.Registration {
	return applier.Registration{Key: id, Node: n, Epoch: epoch, Load: applier.LoadID{load}}
}

// history applies entries at indexes 10, 20, 30, ... and expects each to be applied.
func history(t testing.TB, es ...applier.Entry) *applier.State {
	t.Helper()
	s := applier.New(applier.Generation2)
	for i, e := range es {
		next, o, err := s.Apply(uint64(10*(i+1)), e)
		require.NoError(t, err)
		require.Equal(t, applier.Applied, o.Kind, "entry %d: %v", i, o.Why)
		s = next
	}
	return s
}

func evidence(stopped uint64, nodes ...nodeid.ID) (vs []applier.Evidence) {
	for _, n := range nodes {
		vs = append(vs, applier.Evidence{Node: n, Taken: stopped, FirstLog: stopped + 1, OldestSnapshot: stopped})
	}
	return vs
}

// Each rule: what becomes of an entry after others.
func TestRules(t *testing.T) {
	rowsAt := func(n nodeid.ID) []applier.WriterRow {
		return []applier.WriterRow{{Key: 1, Node: n}, {Key: 2, Node: n}}
	}
	started := []applier.Entry{boot(slices.Concat(rowsAt(11), rowsAt(12))...)}
	rotated := append(slices.Clone(started), rotation(3, key.Storage))
	stopped := append(slices.Clone(rotated), applier.Stop{Key: 1}) // at 30
	good := applier.Destroy{Key: 1, Stopped: 30, Members: []nodeid.ID{11, 12}, Evidence: evidence(30, 11, 12)}
	destroyed := append(slices.Clone(stopped), good)
	edit := func(f func(v *applier.Evidence)) applier.Destroy {
		d := good
		d.Evidence = slices.Clone(good.Evidence)
		f(&d.Evidence[1])
		return d
	}
	kept := append(slices.Clone(stopped), applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{1, 3}})
	other := key.ClusterID([]byte("another cluster."))
	reused := func() applier.Rotation {
		c, err := key.ParseContainer(container(cluster, 3, key.Storage, ""))
		require.NoError(t, err)
		c.ID = 9
		b, err := c.Append(nil)
		require.NoError(t, err)
		return applier.Rotation{Key: applier.WrappedKey{ID: 9, Wrap: b}, Purpose: key.Storage, Proposer: applier.WriterRow{Key: 9, Node: 11}}
	}
	for _, tt := range []struct {
		name   string
		before []applier.Entry
		entry  applier.Entry
		want   error // nil: applied
	}{
		{"bootstrap", nil, boot(rowsAt(11)...), nil},
		{"bootstrap again", started, boot(rowsAt(99)...), applier.ErrDuplicate},
		{"another bootstrap", started, applier.Bootstrap{Storage: wrapped(5, key.Storage), Raft: wrapped(6, key.Raft)}, applier.ErrBootstrapped},
		{"bootstrap with the same ids and other wraps", started, applier.Bootstrap{Storage: applier.WrappedKey{ID: 1, Wrap: container(cluster, 1, key.Storage, "x")}, Raft: wrapped(2, key.Raft)}, applier.ErrBootstrapped},
		{"bootstrap with equal ids", nil, applier.Bootstrap{Storage: wrapped(1, key.Storage), Raft: wrapped(1, key.Storage)}, applier.ErrKeyExists},
		{"bootstrap without a cluster id", nil, applier.Bootstrap{Storage: applier.WrappedKey{ID: 1, Wrap: container(key.ClusterID{}, 1, key.Storage, "")}, Raft: wrapped(2, key.Raft)}, applier.ErrContainer},
		{"bootstrap of two clusters", nil, applier.Bootstrap{Storage: wrapped(1, key.Storage), Raft: applier.WrappedKey{ID: 2, Wrap: container(other, 2, key.Raft, "")}}, applier.ErrContainer},
		{"bootstrap with swapped purposes", nil, applier.Bootstrap{Storage: wrapped(1, key.Raft), Raft: wrapped(2, key.Storage)}, applier.ErrContainer},
		{"bootstrap with swapped containers", nil, applier.Bootstrap{Storage: applier.WrappedKey{ID: 1, Wrap: container(cluster, 2, key.Storage, "")}, Raft: wrapped(2, key.Raft)}, applier.ErrContainer},
		{"bootstrap with no container", nil, applier.Bootstrap{Storage: applier.WrappedKey{ID: 1, Wrap: []byte{}}, Raft: wrapped(2, key.Raft)}, applier.ErrContainer},
		{"bootstrap with id 0", nil, applier.Bootstrap{Storage: applier.WrappedKey{Wrap: wrapped(1, key.Storage).Wrap}, Raft: wrapped(2, key.Raft)}, applier.ErrContainer},
		{"bootstrap with a foreign row", nil, boot(applier.WriterRow{Key: 9, Node: 11}), applier.ErrForeignRow},
		{"bootstrap with node 0", nil, boot(applier.WriterRow{Key: 1}), applier.ErrNodeZero},
		{"bootstrap with colliding members", nil, boot(applier.WriterRow{Key: 1, Node: 11}, applier.WriterRow{Key: 1, Node: 11 + 1<<16}), applier.ErrCollision},
		{"bootstrap with a member twice", nil, boot(applier.WriterRow{Key: 1, Node: 11}, applier.WriterRow{Key: 1, Node: 11, Epoch: 2}), nil},

		{"registration before bootstrap", nil, registration(1, 11, 1, 1), applier.ErrNotBootstrapped},
		{"registration of a new node", started, registration(1, 13, 0, 1), nil},
		{"registration above the row", started, registration(1, 11, 1, 1), nil},
		{"registration at the row, made by another load", started, registration(1, 11, 0, 1), applier.ErrSameEpoch},
		{"registration at the row, made by this load", append(slices.Clone(started), registration(1, 11, 4, 1)), registration(1, 11, 4, 1), applier.ErrDuplicate},
		{"registration below the row", append(slices.Clone(started), registration(1, 11, 4, 1)), registration(1, 11, 3, 1), applier.ErrStaleEpoch},
		{"registration of a colliding node", started, registration(1, 11+1<<16, 9, 1), applier.ErrCollision},
		{"registration for an unknown key", started, registration(9, 11, 1, 1), applier.ErrUnknownKey},
		{"registration for key 0", started, registration(0, 11, 1, 1), applier.ErrUnknownKey},
		{"registration of node 0", started, registration(1, 0, 1, 1), applier.ErrNodeZero},
		{"registration for an open-only key", rotated, registration(1, 11, 1, 1), nil},
		{"registration for a stopped key", stopped, registration(1, 11, 1, 1), applier.ErrKeyStopped},
		{"registration for a destroyed key", destroyed, registration(1, 11, 1, 1), applier.ErrKeyDestroyed},
		{"registration of a node that is gone", append(slices.Clone(started), applier.WriterGone{Node: 11}), registration(1, 11, 1, 1), applier.ErrWriterGone},

		{"rotation before bootstrap", nil, rotation(3, key.Storage), applier.ErrNotBootstrapped},
		{"rotation", started, rotation(3, key.Raft), nil},
		{"rotation again", rotated, rotation(3, key.Storage), applier.ErrDuplicate},
		{"rotation onto a taken id", started, rotation(2, key.Storage), applier.ErrKeyExists},
		{"rotation onto a destroyed id", destroyed, rotation(1, key.Storage), applier.ErrKeyExists},
		{"rotation with a container of the other purpose", started, applier.Rotation{Key: wrapped(3, key.Raft), Purpose: key.Storage, Proposer: applier.WriterRow{Key: 3, Node: 11}}, applier.ErrContainer},
		{"rotation with a container of another cluster", started, applier.Rotation{Key: applier.WrappedKey{ID: 3, Wrap: container(other, 3, key.Storage, "")}, Purpose: key.Storage, Proposer: applier.WriterRow{Key: 3, Node: 11}}, applier.ErrContainer},
		{"rotation to a key that has another id", rotated, reused(), applier.ErrKeyReused},
		{"rotation with a foreign row", started, applier.Rotation{Key: wrapped(3, key.Storage), Purpose: key.Storage, Proposer: applier.WriterRow{Key: 1, Node: 11}}, applier.ErrForeignRow},
		{"rotation by node 0", started, applier.Rotation{Key: wrapped(3, key.Storage), Purpose: key.Storage, Proposer: applier.WriterRow{Key: 3}}, applier.ErrNodeZero},
		{"rotation by a node that is gone", append(slices.Clone(started), applier.WriterGone{Node: 11}), rotation(3, key.Storage), applier.ErrWriterGone},

		{"rewrap", started, applier.Rewrap{Keys: []applier.WrappedKey{{ID: 1, Wrap: container(cluster, 1, key.Storage, "new")}}}, nil},
		{"rewrap to the same", started, applier.Rewrap{Keys: []applier.WrappedKey{wrapped(1, key.Storage), wrapped(2, key.Raft)}}, applier.ErrDuplicate},
		{"rewrap of an unknown key", started, applier.Rewrap{Keys: []applier.WrappedKey{{ID: 1, Wrap: container(cluster, 1, key.Storage, "new")}, wrapped(9, key.Storage)}}, applier.ErrUnknownKey},
		{"rewrap of a destroyed key", destroyed, applier.Rewrap{Keys: []applier.WrappedKey{wrapped(1, key.Storage)}}, applier.ErrKeyDestroyed},
		{"rewrap with another key's container", started, applier.Rewrap{Keys: []applier.WrappedKey{{ID: 1, Wrap: container(cluster, 3, key.Storage, "")}}}, applier.ErrContainer},
		{"rewrap with another DEK", started, applier.Rewrap{Keys: []applier.WrappedKey{otherCheck(t, 1)}}, applier.ErrContainer},
		{"rewrap of a stopped key", stopped, applier.Rewrap{Keys: []applier.WrappedKey{{ID: 1, Wrap: container(cluster, 1, key.Storage, "new")}}}, nil},

		{"stop of the active key", started, applier.Stop{Key: 1}, applier.ErrKeyActive},
		{"stop of an unknown key", started, applier.Stop{Key: 9}, applier.ErrUnknownKey},
		{"stop", rotated, applier.Stop{Key: 1}, nil},
		{"stop again", stopped, applier.Stop{Key: 1}, applier.ErrDuplicate},
		{"stop of a destroyed key", destroyed, applier.Stop{Key: 1}, applier.ErrDuplicate},

		{"destroy", stopped, good, nil},
		{"destroy again", destroyed, good, applier.ErrDuplicate},
		{"destroy of an unknown key", stopped, applier.Destroy{Key: 9}, applier.ErrUnknownKey},
		{"destroy of a key that is not stopped", rotated, good, applier.ErrNotStopped},
		{"destroy at another stop", stopped, applier.Destroy{Key: 1, Stopped: 29, Members: good.Members, Evidence: good.Evidence}, applier.ErrStopIndex},
		{"destroy without members", stopped, applier.Destroy{Key: 1, Stopped: 30, Evidence: good.Evidence}, applier.ErrEvidence},
		{"destroy without evidence", stopped, applier.Destroy{Key: 1, Stopped: 30, Members: good.Members}, applier.ErrEvidence},
		{"destroy without a member's evidence", stopped, applier.Destroy{Key: 1, Stopped: 30, Members: []nodeid.ID{11, 12, 13}, Evidence: good.Evidence}, applier.ErrEvidence},
		{"destroy without a writer's evidence", stopped, applier.Destroy{Key: 1, Stopped: 30, Members: []nodeid.ID{11}, Evidence: evidence(30, 11)}, applier.ErrEvidence},
		{"destroy without the evidence of a writer that is gone", append(slices.Clone(stopped), applier.WriterGone{Node: 12}), applier.Destroy{Key: 1, Stopped: 30, Members: []nodeid.ID{11}, Evidence: evidence(30, 11)}, nil},
		{"destroy with member 0", stopped, applier.Destroy{Key: 1, Stopped: 30, Members: []nodeid.ID{0, 11}, Evidence: good.Evidence}, applier.ErrNodeZero},
		{"destroy on evidence from before the stop", stopped, edit(func(v *applier.Evidence) { v.Taken = 29 }), applier.ErrEvidence},
		{"destroy with a live value", stopped, edit(func(v *applier.Evidence) { v.Live = 1 }), applier.ErrEvidence},
		{"destroy with an old log", stopped, edit(func(v *applier.Evidence) { v.FirstLog = 30 }), applier.ErrEvidence},
		{"destroy with an old snapshot", stopped, edit(func(v *applier.Evidence) { v.OldestSnapshot = 29 }), applier.ErrEvidence},
		{"destroy without snapshots", stopped, edit(func(v *applier.Evidence) { v.OldestSnapshot = 0 }), nil},
		{"destroy of what a backup needs", kept, good, applier.ErrBackup},
		{"destroy of what a forgotten backup needed", append(slices.Clone(kept), applier.BackupForget{Backup: applier.BackupID{1}}), good, nil},

		{"writer gone", started, applier.WriterGone{Node: 11}, nil},
		{"writer gone that never was there", started, applier.WriterGone{Node: 99}, nil},
		{"writer gone again", append(slices.Clone(started), applier.WriterGone{Node: 11}), applier.WriterGone{Node: 11}, applier.ErrDuplicate},
		{"node 0 gone", started, applier.WriterGone{}, applier.ErrNodeZero},
		{"writer gone before bootstrap", nil, applier.WriterGone{Node: 11}, applier.ErrNotBootstrapped},

		{"backup", started, applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{1}}, nil},
		{"backup again", kept, applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{1, 3}}, applier.ErrDuplicate},
		{"backup again with other keys", kept, applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{1}}, applier.ErrBackupExists},
		{"backup of an unknown key", started, applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{9}}, applier.ErrUnknownKey},
		{"backup of a destroyed key", destroyed, applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{1}}, applier.ErrKeyDestroyed},
		{"forget a backup", kept, applier.BackupForget{Backup: applier.BackupID{1}}, nil},
		{"forget an unknown backup", kept, applier.BackupForget{Backup: applier.BackupID{2}}, applier.ErrDuplicate},

		{"storage cutover", started, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}}, nil},
		{"storage cutover before bootstrap", nil, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}}, applier.ErrNotBootstrapped},
		{"storage cutover that a rotation overtook", rotated, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}}, applier.ErrStaleMarker},
		{"storage cutover under the Raft key", started, applier.EnableStorage{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 11}}, applier.ErrStaleMarker},
		{"storage cutover with a foreign row", started, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 2, Node: 11}}, applier.ErrForeignRow},
		{"storage cutover by node 0", started, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1}}, applier.ErrNodeZero},
		{"storage cutover by a colliding node", started, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11 + 1<<16}}, applier.ErrCollision},
		{"storage cutover again after a rotation", append(slices.Clone(started), applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}}, rotation(3, key.Storage)), applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}}, applier.ErrDuplicate},
		{"storage cutover with an epoch below the row's", append(slices.Clone(started), registration(1, 11, 9, 1)), applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11, Epoch: 3}}, nil},
		{"Raft cutover", started, applier.EnableRaft{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 11}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := history(t, tt.before...)
			before := s.AppendSnapshot(nil)
			next, o, err := s.Apply(1000, tt.entry)
			require.NoError(t, err)
			require.Equal(t, before, s.AppendSnapshot(nil), "a state never changes")
			trial, err := s.Trial(tt.entry)
			require.NoError(t, err)
			require.Equal(t, o.Kind, trial.Kind)
			if tt.want == nil {
				require.Equal(t, applier.Applied, o.Kind, "%v", o.Why)
				require.NoError(t, o.Why)
				require.EqualValues(t, 1000, next.Index())
				requireForms(t, next)
				return
			}
			require.Same(t, s, next, "what has no effect leaves no trace")
			require.ErrorIs(t, o.Why, tt.want)
			if tt.want == applier.ErrDuplicate {
				require.Equal(t, applier.NoOp, o.Kind)
				return
			}
			require.Equal(t, applier.Rejected, o.Kind)
			rejection := new(applier.Rejection)
			require.ErrorAs(t, o.Why, &rejection)
			require.Equal(t, o.Op, rejection.Op)
			require.ErrorContains(t, rejection, tt.want.Error())
		})
	}
}

// otherCheck is a container of the key's id that holds another DEK.
func otherCheck(t *testing.T, id key.ID) applier.WrappedKey {
	t.Helper()
	c, err := key.ParseContainer(container(cluster, id, key.Storage, ""))
	require.NoError(t, err)
	c.Check[3] ^= 1
	b, err := c.Append(nil)
	require.NoError(t, err)
	return applier.WrappedKey{ID: id, Wrap: b}
}

// requireForms expects that both forms of a state parse to the same state.
func requireForms(t testing.TB, s *applier.State) {
	t.Helper()
	b := s.AppendSnapshot([]byte("x"))
	again, err := applier.ParseSnapshot(b[1:])
	require.NoError(t, err)
	require.True(t, s.Equal(again))
	require.Equal(t, s.Digest(), again.Digest())
	text := s.AppendJSON([]byte("x"))
	again, err = applier.ParseJSON(text[1:])
	require.NoError(t, err, "%s", text)
	require.True(t, s.Equal(again))
	require.Equal(t, text[1:], again.AppendJSON(nil))
}

// What a rotation does to the keys, and a destroy.
func TestLifeOfAKey(t *testing.T) {
	s := history(t,
		boot(applier.WriterRow{Key: 1, Node: 11}), rotation(3, key.Storage), rotation(4, key.Storage), applier.Stop{Key: 1},
		applier.Rewrap{Keys: []applier.WrappedKey{{ID: 1, Wrap: container(cluster, 1, key.Storage, "again")}}},
		applier.Destroy{Key: 1, Stopped: 40, Members: []nodeid.ID{11}, Evidence: evidence(40, 11)},
	)
	k, ok := s.Key(1)
	require.True(t, ok)
	require.Equal(t, key.Destroyed, k.State)
	require.Nil(t, k.Container)
	require.NotZero(t, k.Check, "no key comes back under another id")
	require.Equal(t, []uint64{10, 50, 20, 40, 60}, []uint64{k.Created, k.Rewrapped, k.Retired, k.Stopped, k.Destroyed})
	require.Empty(t, slices.Collect(s.Writers(1)))
	active, _ := s.Active(key.Storage)
	require.EqualValues(t, 4, active.ID)
	former, _ := s.Former(key.Storage)
	require.EqualValues(t, 3, former.ID)
	_, ok = s.Former(key.Raft)
	require.False(t, ok)
	_, ok = s.Key(99)
	require.False(t, ok)
	require.Equal(t, 4, s.Len())
	require.Equal(t, cluster, s.Cluster())
}

// What changed is reported, for who keeps a copy.
func TestOutcomeNamesWhatChanged(t *testing.T) {
	s := applier.New(applier.Generation2)
	s, o, err := s.Apply(5, boot(applier.WriterRow{Key: 1, Node: 11}, applier.WriterRow{Key: 2, Node: 11}))
	require.NoError(t, err)
	require.ElementsMatch(t, []key.ID{1, 2}, o.Keys)
	require.Len(t, o.Writers, 2)
	require.Equal(t, applier.NotRegistered, o.Registration)

	s, o, err = s.Apply(6, registration(1, 12, 4, 7))
	require.NoError(t, err)
	require.Equal(t, applier.RegisteredNew, o.Registration)
	require.Equal(t, []applier.Writer{{Key: 1, Node: 12, First: 4, Last: 4, Load: applier.LoadID{7}}}, o.Writers)
	require.Empty(t, o.Keys)
	s, o, err = s.Apply(9, registration(1, 12, 6, 8))
	require.NoError(t, err)
	require.Equal(t, applier.RegisteredAdvanced, o.Registration)
	w, ok := s.Writer(1, 12)
	require.True(t, ok)
	require.Equal(t, applier.Writer{Key: 1, Node: 12, First: 4, Last: 6, Load: applier.LoadID{8}}, w)

	_, o, err = s.Apply(10, rotation(3, key.Storage))
	require.NoError(t, err)
	require.ElementsMatch(t, []key.ID{1, 3}, o.Keys)
	_, o, err = s.Apply(10, applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 12, Epoch: 9}})
	require.NoError(t, err)
	require.Equal(t, []applier.Writer{{Key: 1, Node: 12, First: 4, Last: 9}}, o.Writers, "a raised row is nobody's load")
}

// In generation 1 there is no load id: an equal epoch is the same registration.
func TestGeneration1Registration(t *testing.T) {
	wrap := func(id key.ID) applier.WrappedKey {
		return applier.WrappedKey{ID: id, Wrap: fmt.Appendf(nil, "%060d", id)}
	}
	s, o, err := applier.New(applier.Generation1).Apply(1, applier.Bootstrap{
		Storage: wrap(1), Raft: wrap(2), Writers: []applier.WriterRow{{Key: 1, Node: 11, Epoch: 3}},
	})
	require.NoError(t, err)
	require.Equal(t, applier.Applied, o.Kind, "%v", o.Why)
	require.True(t, s.Cluster().IsZero())
	for _, tt := range []struct {
		name  string
		e     applier.Registration
		kind  applier.Kind
		first uint16
	}{
		{"another node", applier.Registration{Key: 1, Node: 12, Epoch: 5}, applier.Applied, 5},
		{"a higher epoch", applier.Registration{Key: 1, Node: 11, Epoch: 4}, applier.Applied, 3},
		{"an equal epoch", applier.Registration{Key: 1, Node: 11, Epoch: 3}, applier.NoOp, 3},
		{"a lower epoch", applier.Registration{Key: 1, Node: 11, Epoch: 2}, applier.Rejected, 3},
		{"a colliding node", applier.Registration{Key: 1, Node: 11 + 1<<16, Epoch: 9}, applier.Rejected, 3},
	} {
		next, o, err := s.Apply(7, tt.e)
		require.NoError(t, err)
		require.Equal(t, tt.kind, o.Kind, tt.name)
		w, ok := next.Writer(1, tt.e.Node.Node16())
		require.True(t, ok)
		require.Equal(t, tt.first, w.First, tt.name)
	}
	requireForms(t, s)
}

// An entry at or below the state's index does nothing, even one that nobody knows;
// index 0 is no index.
func TestReplay(t *testing.T) {
	es := []applier.Entry{boot(applier.WriterRow{Key: 1, Node: 11}), registration(1, 11, 1, 1), registration(1, 11, 2, 2), rotation(3, key.Storage)}
	s := history(t, es...)
	for i, e := range es {
		next, o, err := s.Apply(uint64(10*(i+1)), e)
		require.NoError(t, err)
		require.Same(t, s, next)
		require.Equal(t, applier.NoOp, o.Kind)
		require.ErrorIs(t, o.Why, applier.ErrReplayed)
	}
	next, o, err := s.ApplyBytes(40, []byte("\xa7EN\x02\x77"))
	require.NoError(t, err)
	require.Same(t, s, next)
	require.ErrorIs(t, o.Why, applier.ErrReplayed)

	next, o, err = s.ApplyBytes(41, []byte("\xa7EN\x02\x77"))
	unknown := new(applier.UnknownError)
	require.ErrorAs(t, err, &unknown)
	require.Same(t, s, next)
	require.Zero(t, o)

	next, o, err = s.ApplyBytes(41, []byte("\xa7EN\x02\x03\x02short"))
	require.NoError(t, err)
	require.Same(t, s, next)
	require.Equal(t, applier.Rejected, o.Kind)
	require.ErrorIs(t, o.Why, applier.ErrMalformed)

	for _, f := range []func() (*applier.State, applier.Outcome, error){
		func() (*applier.State, applier.Outcome, error) { return s.Apply(0, es[0]) },
		func() (*applier.State, applier.Outcome, error) { return s.ApplyBytes(0, nil) },
	} {
		_, o, err := f()
		require.ErrorIs(t, err, applier.ErrIndex)
		require.Zero(t, o)
	}
}

// Replaying a log from any prefix leads to the same state.
func TestReplayFromEveryPrefix(t *testing.T) {
	var log [][]byte
	for _, e := range []applier.Entry{
		boot(applier.WriterRow{Key: 1, Node: 11}), registration(1, 11, 1, 1),
		applier.Stop{Key: 1},
		registration(1, 11, 2, 2),
		rotation(3, key.Storage), registration(3, 11, 1, 2),
		applier.Stop{Key: 1},
		applier.EnableStorage{Key: 3, Proposer: applier.WriterRow{Key: 3, Node: 11}},
		applier.Destroy{Key: 1, Stopped: 7, Members: []nodeid.ID{11}, Evidence: evidence(7, 11)},
	} {
		b, err := applier.Generation2.Append(nil, e)
		require.NoError(t, err)
		log = append(log, b)
	}
	want := applier.NewMachine(applier.New(applier.Generation2))
	states := []*applier.State{want.State()}
	for i, b := range log {
		_, err := want.Apply(uint64(i+1), b)
		require.NoError(t, err)
		states = append(states, want.State())
	}
	require.EqualValues(t, 9, want.State().Index())
	for from := range log {
		for behind := 0; behind <= from; behind++ { // entries that are replayed
			m := applier.NewMachine(states[from])
			for i := from - behind; i < len(log); i++ {
				_, err := m.Apply(uint64(i+1), log[i])
				require.NoError(t, err)
			}
			require.True(t, m.State().Equal(want.State()), "state %d, log from %d", from, from-behind)
		}
	}
	var _ applier.Applier = want
}

func TestNewer(t *testing.T) {
	empty, one := applier.New(applier.Generation2), history(t, boot())
	two := history(t, boot(), rotation(3, key.Storage))
	imported := imported(t, two)
	require.True(t, one.Newer(empty))
	require.False(t, empty.Newer(one))
	require.True(t, two.Newer(one))
	require.False(t, one.Newer(one))
	require.True(t, imported.Newer(empty), "although both have index 0")
	require.False(t, empty.Newer(imported))
	require.False(t, empty.Newer(empty))
}

var newCluster = key.ClusterID([]byte("the new cluster."))

func imported(t testing.TB, old *applier.State) *applier.State {
	t.Helper()
	var ws []applier.WrappedKey
	for k := range old.Keys() {
		if k.State != key.Destroyed {
			ws = append(ws, applier.WrappedKey{ID: k.ID, Wrap: container(newCluster, k.ID, k.Purpose, "imported")})
		}
	}
	fresh := func(id key.ID, p key.Purpose) applier.WrappedKey {
		return applier.WrappedKey{ID: id, Wrap: container(newCluster, id, p, "fresh")}
	}
	s, err := applier.Import(old, newCluster, ws, fresh(101, key.Storage), fresh(102, key.Raft))
	require.NoError(t, err)
	return s
}

// A new cluster begins with the old one's keys, which seal nothing more.
func TestImport(t *testing.T) {
	old := history(t,
		boot(applier.WriterRow{Key: 1, Node: 11}), applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}},
		applier.EnableRaft{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 11}}, rotation(3, key.Storage), rotation(4, key.Storage),
		applier.Stop{Key: 1}, applier.Stop{Key: 3}, applier.WriterGone{Node: 12}, applier.BackupAdd{Backup: applier.BackupID{1}, Keys: []key.ID{4}},
		applier.Destroy{Key: 1, Stopped: 60, Members: []nodeid.ID{11}, Evidence: evidence(60, 11)},
	)
	s := imported(t, old)
	require.Zero(t, s.Index())
	require.Equal(t, newCluster, s.Cluster())
	require.Equal(t, applier.Cutover{Active: true}, s.StorageCutover(), "values go on being sealed")
	require.Equal(t, applier.Cutover{}, s.RaftCutover())
	want := map[key.ID]key.State{1: key.Destroyed, 2: key.OpenOnly, 3: key.Stopped, 4: key.OpenOnly, 101: key.Active, 102: key.Active}
	for k := range s.Keys() {
		require.Equal(t, want[k.ID], k.State, "key %s", k.ID)
		was, ok := old.Key(k.ID)
		require.True(t, !ok || was.Check == k.Check)
	}
	require.Equal(t, len(want), s.Len())
	for id := range want {
		require.Empty(t, slices.Collect(s.Writers(id)))
	}
	require.False(t, s.Gone(12))
	require.Empty(t, slices.Collect(s.Backups()))
	requireForms(t, s)
	next, o, err := s.Apply(1, applier.Rotation{
		Key: applier.WrappedKey{ID: 200, Wrap: container(newCluster, 200, key.Storage, "")}, Purpose: key.Storage, Proposer: applier.WriterRow{Key: 200, Node: 11},
	})
	require.NoError(t, err)
	require.Equal(t, applier.Applied, o.Kind, "%v", o.Why)
	requireForms(t, next)

	for name, f := range map[string]func() (*applier.State, error){
		"no keys": func() (*applier.State, error) {
			return applier.Import(applier.New(applier.Generation2), newCluster, nil, applier.WrappedKey{}, applier.WrappedKey{})
		},
		"the same cluster": func() (*applier.State, error) {
			return applier.Import(old, cluster, nil, applier.WrappedKey{}, applier.WrappedKey{})
		},
		"a missing wrap": func() (*applier.State, error) {
			return applier.Import(old, newCluster, nil, applier.WrappedKey{}, applier.WrappedKey{})
		},
	} {
		s, err := f()
		require.ErrorIs(t, err, applier.ErrImport, name)
		require.Nil(t, s)
	}
}

// Cutovers stay where they were, whatever comes.
func TestCutoversAreForGood(t *testing.T) {
	s := history(t, boot(), applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}}, rotation(3, key.Storage),
		applier.EnableRaft{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 11}})
	require.Equal(t, applier.Cutover{Active: true, Index: 20}, s.StorageCutover())
	require.Equal(t, applier.Cutover{Active: true, Index: 40}, s.RaftCutover())
}
