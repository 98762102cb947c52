package applier_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// big returns a state with 16,384 rows of the registry and 1,000 keys.
func big(t testing.TB) *applier.State {
	t.Helper()
	s := imported(t, history(t, boot())) // which may have keys that never were active
	s = applier.FillKeys(s, 996, func(i int) applier.Key {
		id := key.ID(1000 + i)
		c, err := key.ParseContainer(container(newCluster, id, key.Storage, "and as many bytes as a real one of 60 has, more or less"))
		require.NoError(t, err)
		b, err := c.Append(nil)
		require.NoError(t, err)
		return applier.Key{ID: id, Purpose: key.Storage, State: key.OpenOnly, Container: b, Check: c.Check}
	})
	return applier.Fill(s, 102, 1<<14, 0, 0)
}

// Every limit of a state: the entry that reaches it is applied, the next is rejected.
func TestStateLimits(t *testing.T) {
	s := history(t, boot())
	rotated := func(i int) applier.Entry { return rotation(key.ID(1<<20+i), key.Storage) }
	wide := func(i int) applier.Key {
		id := key.ID(1<<19 + i)
		c, err := key.ParseContainer(container(cluster, id, key.Storage, ""))
		require.NoError(t, err)
		return applier.Key{ID: id, Purpose: key.Storage, State: key.Destroyed, Check: c.Check}
	}
	size := len(wrapped(1<<20, key.Storage).Wrap)
	for _, tt := range []struct {
		name string
		full *applier.State // one entry below the limit
		next func(i int) applier.Entry
	}{
		{"keys", applier.FillKeys(s, applier.MaxKeys-3, wide), rotated},
		{"rows", applier.Fill(s, 2, applier.MaxWriters-1, 0, 0), func(i int) applier.Entry { return registration(1, 500, uint16(i), byte(i)) }},
		{"nodes that are gone", applier.Fill(s, 2, 0, applier.MaxGone-1, 0), func(i int) applier.Entry { return applier.WriterGone{Node: 77 + nodeOf(i)} }},
		{"backups", applier.Fill(s, 2, 0, 0, applier.MaxBackups-1), func(i int) applier.Entry {
			return applier.BackupAdd{Backup: applier.BackupID{byte(i + 1)}, Keys: []key.ID{1}}
		}},
		{"keys of backups", applier.Need(s, applier.MaxBackupKeys-2), func(i int) applier.Entry {
			return applier.BackupAdd{Backup: applier.BackupID{byte(i + 1)}, Keys: []key.ID{1, 2}[i:]}
		}},
		{"bytes of containers", applier.Weigh(s, applier.MaxContainers-size), rotated},
	} {
		next, o, err := tt.full.Apply(100, tt.next(0))
		require.NoError(t, err)
		require.Equal(t, applier.Applied, o.Kind, "%s: %v", tt.name, o.Why)
		second := tt.next(1)
		if tt.name == "rows" {
			second = registration(1, 501, 1, 1)
		}
		after, o, err := next.Apply(101, second)
		require.NoError(t, err)
		require.Equal(t, applier.Rejected, o.Kind, tt.name)
		require.ErrorIs(t, o.Why, applier.ErrLimit, tt.name)
		require.Same(t, next, after)
	}
}

func nodeOf(i int) nodeid.ID { return nodeid.ID(i) }

// A rewrap that makes containers larger than they may be together is rejected, one that
// makes them smaller is not.
func TestRewrapAtTheLimit(t *testing.T) {
	s := applier.Weigh(history(t, boot()), applier.MaxContainers)
	longer := applier.Rewrap{Keys: []applier.WrappedKey{{ID: 1, Wrap: container(cluster, 1, key.Storage, "longer")}}}
	_, o, err := s.Apply(20, longer)
	require.NoError(t, err)
	require.ErrorIs(t, o.Why, applier.ErrLimit)
	next, o, err := applier.Weigh(s, applier.MaxContainers-len("longer")).Apply(20, longer)
	require.NoError(t, err)
	require.Equal(t, applier.Applied, o.Kind)
	_, o, err = next.Apply(30, applier.Rewrap{Keys: []applier.WrappedKey{wrapped(1, key.Storage)}})
	require.NoError(t, err)
	require.Equal(t, applier.Applied, o.Kind)
}

// A bootstrap of the largest cluster.
func TestLargestBootstrap(t *testing.T) {
	b := boot()
	for i := range applier.MaxBatch {
		b.Writers = append(b.Writers, applier.WriterRow{Key: key.ID(1 + i%2), Node: 1 + nodeOf(i)})
	}
	s, o, err := applier.New(applier.Generation2).Apply(1, b)
	require.NoError(t, err)
	require.Equal(t, applier.Applied, o.Kind, "%v", o.Why)
	require.Len(t, o.Writers, applier.MaxBatch)
	requireForms(t, s)
}

// Looking for one writer among many costs no more than among few, and one registration
// copies the registry once.
func BenchmarkRegistration(b *testing.B) {
	for name, s := range map[string]*applier.State{"small": imported(b, history(b, boot())), "rows=16384,keys=1000": big(b)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var text []byte
			epoch := uint16(3)
			for b.Loop() {
				next, o, err := s.Apply(s.Index()+1, registration(102, 5, epoch, byte(epoch)))
				if err != nil || o.Kind != applier.Applied {
					b.Fatal(o.Why, err)
				}
				text = next.AppendJSON(text[:0])
			}
		})
	}
}

func BenchmarkForms(b *testing.B) {
	s := big(b)
	snapshot, text := s.AppendSnapshot(nil), s.AppendJSON(nil)
	b.Run("append snapshot", func(b *testing.B) {
		b.SetBytes(int64(len(snapshot)))
		for b.Loop() {
			snapshot = s.AppendSnapshot(snapshot[:0])
		}
	})
	b.Run("parse snapshot", func(b *testing.B) {
		b.SetBytes(int64(len(snapshot)))
		for b.Loop() {
			if _, err := applier.ParseSnapshot(snapshot); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("append JSON", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			text = s.AppendJSON(text[:0])
		}
	})
	b.Run("parse JSON", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := applier.ParseJSON(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkTrial(b *testing.B) {
	s := big(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Trial(rotation(1<<20, key.Storage)); err != nil {
			b.Fatal(err)
		}
	}
}
