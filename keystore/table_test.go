package keystore_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// has reports whether a store knows an id.
func has(s *keystore.Store, id key.ID) bool {
	_, err := s.Usage(id)
	return err == nil
}

// A tombstone is an entry like any other, and costs no AES.
func insert(t require.TestingT, s *keystore.Store, id key.ID) {
	require.NoError(t, s.InstallDestroyed(id, key.Storage))
}

// families are ids that a weak hash would crowd.
var families = map[string]func(i uint32) key.ID{
	"in a row":        func(i uint32) key.ID { return key.ID(i + 1) },
	"from the top":    func(i uint32) key.ID { return key.ID(^i) },
	"low bits equal":  func(i uint32) key.ID { return key.ID(i<<16 | i>>16 + 1) },
	"high bits equal": func(i uint32) key.ID { return key.ID(0xabc<<20 | i) },
	"a grid":          func(i uint32) key.ID { return key.ID(i%317*7919 + i/317*0x01000193 + 1) },
	"random":          func(i uint32) key.ID { return key.ID(rand.Uint32() | 1) },
}

func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := keystore.New()
		require.NoError(t, err)
		model := map[key.ID]bool{}
		id := rapid.OneOf(
			rapid.Custom(func(t *rapid.T) key.ID { return key.ID(rapid.Uint32Min(1).Draw(t, "any")) }),
			rapid.Custom(func(t *rapid.T) key.ID { return key.ID(rapid.Uint32Range(1, 50).Draw(t, "small")) }),
			rapid.Custom(func(t *rapid.T) key.ID { return key.ID(rapid.Uint32Range(1, 50).Draw(t, "upper") << 24) }),
		)
		for range rapid.IntRange(1, 300).Draw(t, "inserts") {
			i := id.Draw(t, "id")
			require.Equal(t, model[i], has(s, i))
			insert(t, s, i)
			model[i] = true
			require.LessOrEqual(t, 2*len(model), keystore.Slots(s), "at most half full")
		}
		for i := range model {
			require.True(t, has(s, i))
			require.Equal(t, model[i+1], has(s, i+1))
			require.Equal(t, model[i^1<<31], has(s, i^1<<31))
		}
		require.False(t, has(s, 0))
		require.Len(t, s.Status(), len(model))
	})
}

// Whatever the ids are, about as many slots are looked at as for random ones.
func TestTableSpreads(t *testing.T) {
	const n = 50_000 / scale
	for name, f := range families {
		t.Run(name, func(t *testing.T) {
			for range 5 { // hashes
				s := newStore(t)
				var ids []key.ID
				for i := uint32(0); len(ids) < n; i++ {
					if id := f(i); id != 0 && !has(s, id) {
						insert(t, s, id)
						ids = append(ids, id)
					}
				}
				sum, longest := 0, 0
				for _, id := range ids {
					p := keystore.Probes(s, id)
					sum, longest = sum+p, max(longest, p)
				}
				require.Less(t, float64(sum)/n, 2.0)
				require.Less(t, longest, 200)
			}
		})
	}
}

// Ids that all meet in one place are found all the same. Nobody can choose them
// without knowing the hash: they do not meet in another store.
func TestTableCrowded(t *testing.T) {
	known := newStore(t)
	for i := range key.ID(1 << 10) {
		insert(t, known, i+1)
	}
	var crowd []key.ID
	for id := key.ID(1); len(crowd) < 500; id += 7 {
		if keystore.Place(known, id) < 4 {
			crowd = append(crowd, id)
		}
	}
	attacked, other := newStore(t), newStore(t)
	keystore.ShareHash(attacked, known)
	for i, id := range crowd {
		insert(t, attacked, id)
		insert(t, other, id)
		for j, id := range crowd {
			require.Equal(t, j <= i, has(attacked, id))
		}
	}
	longest := func(s *keystore.Store) (n int) {
		for _, id := range crowd {
			n = max(n, keystore.Probes(s, id))
		}
		return n
	}
	require.Greater(t, longest(attacked), 100, "these ids should meet")
	require.Less(t, longest(other), 100)
}

// A reader finds every id whose installation returned before, also while the
// table grows under it.
func TestTableReadersWhileItGrows(t *testing.T) {
	const n = 40_000 / scale
	s := newStore(t)
	ids := make([]key.ID, n)
	seen := map[key.ID]bool{}
	for i := range ids {
		for ids[i] == 0 || seen[ids[i]] {
			ids[i] = key.NewID()
		}
		seen[ids[i]] = true
	}
	var (
		wg   sync.WaitGroup
		done atomic.Int64
	)
	for range 3 {
		wg.Go(func() {
			for {
				d := done.Load()
				for i := range int64(100) {
					if d > 0 && !has(s, ids[rand.Int64N(d)]) {
						t.Error("an id is missing")
						return
					}
					has(s, ids[min(d+i, n-1)]) // which may be coming in right now
				}
				if d == n {
					return
				}
			}
		})
	}
	for i, id := range ids {
		insert(t, s, id)
		done.Store(int64(i + 1))
	}
	wg.Wait()
}
