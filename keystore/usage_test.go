package keystore_test

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// recorder is an Observer that keeps what it is told.
type recorder struct {
	mu       sync.Mutex
	reserve  map[key.ID][]envelope.Usage
	rotation map[key.ID]map[int][]envelope.Usage // by percent
	onDue    func(id key.ID, percent int)        // may be nil
	onNeed   func(id key.ID)                     // the same
}

func (r *recorder) NeedReserve(id key.ID, upTo envelope.Usage) {
	r.mu.Lock()
	if r.reserve == nil {
		r.reserve = map[key.ID][]envelope.Usage{}
	}
	r.reserve[id] = append(r.reserve[id], upTo)
	r.mu.Unlock()
	if r.onNeed != nil {
		r.onNeed(id)
	}
}

func (r *recorder) RotationDue(id key.ID, percent int, used envelope.Usage) {
	r.mu.Lock()
	if r.rotation == nil {
		r.rotation = map[key.ID]map[int][]envelope.Usage{}
	}
	if r.rotation[id] == nil {
		r.rotation[id] = map[int][]envelope.Usage{}
	}
	r.rotation[id][percent] = append(r.rotation[id][percent], used)
	r.mu.Unlock()
	if r.onDue != nil {
		r.onDue(id, percent)
	}
}

// sealAll seals values of size bytes until one is refused, and returns how many
// there were.
func sealAll(t testing.TB, v *keystore.Storage, size int) int {
	t.Helper()
	p, dst := make([]byte, size), make([]byte, 0, size+200)
	for n := 0; ; n++ {
		if _, err := v.Seal(dst, p, nil); err != nil {
			requireKeyError(t, err, 1, keystore.ErrBudget)
			return n
		}
	}
}

func usage(t testing.TB, s *keystore.Store, id key.ID) envelope.Usage {
	t.Helper()
	u, err := s.Usage(id)
	require.NoError(t, err)
	return u
}

func TestUsageIsExact(t *testing.T) {
	s := sealing(t)
	require.Equal(t, envelope.Usage{}, usage(t, s, 1))
	var want envelope.Usage
	seal := func() {
		for i := range 3000 {
			_, err := s.Storage().Seal(nil, make([]byte, i%50), location)
			require.NoError(t, err)
			want.Seals++
			want.Bytes += uint64(i % 50)
			require.Equal(t, want, usage(t, s, 1))
		}
	}
	seal()
	install(t, s, 2)
	require.NoError(t, s.Activate(2))
	require.Equal(t, want, usage(t, s, 1), "after its sealer ended")
	require.NoError(t, s.Activate(1))
	seal()
	require.NoError(t, s.ActivateCounted(1, envelope.Writer{Epoch: 2}))
	seal()
	require.Equal(t, want, status(t, s, 1).Usage)
	require.Equal(t, envelope.Usage{}, usage(t, s, 2))

	require.NoError(t, s.Activate(2))
	require.NoError(t, s.Stop(1))
	require.NoError(t, s.Destroy(1))
	require.Equal(t, want, usage(t, s, 1), "a tombstone keeps the count")
}

// Neither a seal that fails for its size nor an open counts.
func TestUsageOfFailures(t *testing.T) {
	s := sealing(t)
	_, err := s.Storage().Seal(nil, value, make([]byte, envelope.MaxLocation+1))
	require.ErrorIs(t, err, envelope.ErrTooLarge)
	require.Equal(t, envelope.Usage{}, usage(t, s, 1))
	env, err := s.Storage().Seal(nil, value, nil)
	require.NoError(t, err)
	want := usage(t, s, 1)
	_, err = s.Storage().Open(nil, env, nil)
	require.NoError(t, err)
	require.Equal(t, want, usage(t, s, 1))
}

func TestHardLimitOfSeals(t *testing.T) {
	for _, limit := range []int{1, 2, 10, 63, 64, 65, 1000, 1024, 1025, 5000, 100_000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			s := sealing(t, keystore.WithLimits(keystore.Limits{Seals: uint64(limit), Bytes: math.MaxUint64, Refuse: true}))
			require.Equal(t, limit, sealAll(t, s.Storage(), 1), "at the limit, not one past it")
			require.Zero(t, sealAll(t, s.Storage(), 0))
			require.Equal(t, envelope.Usage{Seals: uint64(limit), Bytes: uint64(limit)}, usage(t, s, 1))
			require.Equal(t, 100, status(t, s, 1).Due)

			requireNoEscape(t, s)
		})
	}
}

// requireNoEscape requires that nothing but another key helps key 1.
func requireNoEscape(t *testing.T, s *keystore.Store) {
	t.Helper()
	install(t, s, 2)
	require.NoError(t, s.Activate(2))
	_, err := s.Storage().Seal(nil, value, nil)
	require.NoError(t, err, "rotation helps")
	for _, again := range []func() error{
		func() error { return s.Activate(1) },
		func() error { return s.ActivateCounted(1, envelope.Writer{Epoch: 99}) },
	} {
		require.NoError(t, again())
		require.Zero(t, sealAll(t, s.Storage(), 1))
	}
}

func TestHardLimitOfBytes(t *testing.T) {
	for _, c := range []struct{ limit, size int }{
		{1, 1},
		{100, 7},
		{100, 100},
		{100, 101},
		{10_000, 1},
		{1 << 20, 64},
		{1<<20 + 63, 64},
		{1 << 26, 1 << 20},
		{3 << 26, 1 << 26},
		{3<<26 - 1, 1 << 26},
	} {
		t.Run(fmt.Sprintf("%d of %d", c.limit, c.size), func(t *testing.T) {
			s := sealing(t, keystore.WithLimits(keystore.Limits{Seals: math.MaxUint64, Bytes: uint64(c.limit), Refuse: true}))
			n := sealAll(t, s.Storage(), c.size)
			require.Equal(t, c.limit/c.size, n)
			_, err := s.Storage().Seal(nil, make([]byte, c.limit-n*c.size), nil)
			require.NoError(t, err, "what is left can still be used")
			require.Equal(t, uint64(c.limit), usage(t, s, 1).Bytes)
			require.Zero(t, sealAll(t, s.Storage(), 1))
		})
	}
}

// Many goroutines never exceed the limit together, and what they leave is there
// for who comes next.
func TestHardLimitUnderConcurrency(t *testing.T) {
	for round := range 40 / min(scale, 4) {
		limit := 3000 + 777*round
		l := keystore.Limits{Seals: uint64(limit), Bytes: math.MaxUint64, Refuse: true}
		if round%2 == 1 {
			l.Seals, l.Bytes = l.Bytes, 3*l.Seals
		}
		s := sealing(t, keystore.WithLimits(l))
		var (
			wg    sync.WaitGroup
			total atomic.Int64
		)
		for range 8 {
			wg.Go(func() { total.Add(int64(sealAll(t, s.Storage(), 3))) })
		}
		wg.Wait()
		require.LessOrEqual(t, total.Load(), int64(limit))
		require.Equal(t, uint64(total.Load()), usage(t, s, 1).Seals)
		rest := sealAll(t, s.Storage(), 3)
		require.Equal(t, limit, int(total.Load())+rest)
	}
}

// Without Refuse limits are only spoken about, at the first mark and at the
// second, once, whatever happens at the same time.
func TestRotationDueOnce(t *testing.T) {
	const limit, goroutines = 20_000, 8
	for _, l := range []keystore.Limits{
		{Seals: limit, Bytes: math.MaxUint64},
		{Seals: math.MaxUint64, Bytes: 10 * limit},
		{Seals: limit, Bytes: 10 * limit},
	} {
		r := new(recorder)
		s := sealing(t, keystore.WithLimits(l), keystore.WithObserver(r))
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range 2 * limit / goroutines {
					if _, err := s.Storage().Seal(nil, make([]byte, 10), nil); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.Equal(t, uint64(2*limit), usage(t, s, 1).Seals)
		require.Len(t, r.rotation, 1)
		require.Len(t, r.rotation[1], 2)
		for percent, told := range r.rotation[1] {
			require.Len(t, told, 1, "%d %%", percent)
			seals, bytes := uint64(limit*percent/100), uint64(10*limit*percent/100)
			require.True(t, told[0].Seals >= seals || told[0].Bytes >= bytes, "%d %%: %v", percent, told[0])
		}
		require.Equal(t, 100, status(t, s, 1).Due)

		install(t, s, 2)
		require.NoError(t, s.Activate(2))
		require.NoError(t, s.Activate(1))
		_, err := s.Storage().Seal(nil, value, nil)
		require.NoError(t, err)
		require.Len(t, r.rotation[1][100], 1, "once in the life of the store")
	}
}

// The word comes before the mark is passed, and too early by no more than sealers
// may hold, even when they hold as much as they can: as many goroutines as there
// are blocks seal once and then no more.
func TestRotationDueNotTooEarly(t *testing.T) {
	const limit, size, goroutines = 200_000, 10, 8
	for name, l := range map[string]keystore.Limits{
		"seals": {Seals: limit, Bytes: math.MaxUint64},
		"bytes": {Seals: math.MaxUint64, Bytes: size * limit},
	} {
		t.Run(name, func(t *testing.T) {
			var (
				sealed atomic.Int64
				told   [101]atomic.Int64
				wg     sync.WaitGroup
			)
			r := &recorder{onDue: func(_ key.ID, percent int) { told[percent].Store(sealed.Load()) }}
			s := sealing(t, keystore.WithLimits(l), keystore.WithObserver(r))
			seal := func(n int) {
				for range n {
					sealed.Add(1) // before, so that it is never less than what was sealed
					if _, err := s.Storage().Seal(nil, make([]byte, size), nil); err != nil {
						t.Error(err)
						return
					}
				}
			}
			start := make(chan struct{})
			for range 200 {
				wg.Go(func() { <-start; seal(1) })
			}
			close(start)
			wg.Wait()
			for range goroutines {
				wg.Go(func() { seal(limit / goroutines) })
			}
			wg.Wait()
			for _, percent := range []int{90, 100} {
				mark := int64(limit / 100 * percent)
				require.Len(t, r.rotation[1][percent], 1)
				require.GreaterOrEqual(t, told[percent].Load(), mark-mark/16, "%d %%", percent)
			}
		})
	}
}

// One goroutine is told at the very seal, for limits small enough.
func TestRotationDueInTime(t *testing.T) {
	for limit, nine := range map[int]int{1: 1, 2: 2, 7: 7, 10: 9, 33: 30, 100: 90, 101: 91, 199: 180} {
		r := new(recorder)
		s := sealing(t, keystore.WithLimits(keystore.Limits{Seals: uint64(limit), Bytes: 1 << 20}), keystore.WithObserver(r))
		for i := 1; i <= 300; i++ {
			_, err := s.Storage().Seal(nil, value, nil)
			require.NoError(t, err)
			want := 0
			switch {
			case i >= limit:
				want = 100
			case i >= nine:
				want = 90
			}
			require.Equal(t, want, status(t, s, 1).Due, "after %d of %d", i, limit)
			require.Len(t, r.rotation[1], []int{0: 0, 90: 1, 100: 2}[want], "after %d of %d", i, limit)
		}
		require.EqualValues(t, nine, r.rotation[1][90][0].Seals)
		require.EqualValues(t, limit, r.rotation[1][100][0].Seals)
	}
}

// A mark that is no whole number of seals is the next one.
func TestMarksRoundUp(t *testing.T) {
	for limit, mark := range map[uint64]uint64{1: 1, 2: 2, 5: 5, 9: 9, 10: 9, 11: 10, 100: 90, 101: 91, 199: 180} {
		s := newStore(t, keystore.WithLimits(keystore.Limits{Seals: limit, Bytes: math.MaxUint64}))
		install(t, s, 1)
		require.NoError(t, s.SetReserved(1, envelope.Usage{Seals: mark - 1}))
		require.Zero(t, status(t, s, 1).Due, "limit %d", limit)
		require.NoError(t, s.SetReserved(1, envelope.Usage{Seals: mark}))
		require.GreaterOrEqual(t, status(t, s, 1).Due, 90, "limit %d", limit)
	}
}

func TestDueOfLoadedCounts(t *testing.T) {
	r := new(recorder)
	s := newStore(t, keystore.WithLimits(keystore.Limits{Seals: 1000, Bytes: 1000}), keystore.WithObserver(r))
	install(t, s, 1, 2, 3)
	require.NoError(t, s.SetReserved(1, envelope.Usage{Seals: 899, Bytes: 899}))
	require.NoError(t, s.SetReserved(2, envelope.Usage{Bytes: 900}))
	require.NoError(t, s.SetReserved(3, envelope.Usage{Seals: 5000}))
	for id, want := range map[key.ID]int{1: 0, 2: 90, 3: 100} {
		require.Equal(t, want, status(t, s, id).Due)
	}
	require.Empty(t, r.rotation, "nobody asked to seal")
	require.NoError(t, s.Activate(3))
	require.Len(t, r.rotation[3], 2)
	require.NoError(t, s.Activate(2))
	require.Len(t, r.rotation[2], 1)
	require.NoError(t, s.Activate(1))
	require.Empty(t, r.rotation[1])
}

// An observer may rotate from within its call, even the sealer that is calling.
func TestObserverRotates(t *testing.T) {
	r := new(recorder)
	s := newStore(t, keystore.WithLimits(keystore.Limits{Seals: 50, Bytes: 1 << 20, Refuse: true}), keystore.WithObserver(r))
	const keys = 20
	for id := key.ID(1); id <= keys; id++ {
		install(t, s, id)
	}
	r.onDue = func(id key.ID, percent int) {
		if percent == 90 && id < keys {
			if err := errors.Join(s.Activate(id+1), s.Stop(id)); err != nil {
				t.Error(err)
			}
		}
	}
	require.NoError(t, s.Activate(1))
	for i := range 45*(keys-1) - 100 {
		_, err := s.Storage().Seal(nil, nil, nil)
		require.NoError(t, err, "seal %d", i)
	}
	sum := uint64(0)
	for _, k := range s.Status() {
		require.LessOrEqual(t, k.Usage.Seals, uint64(50))
		sum += k.Usage.Seals
	}
	require.Equal(t, uint64(45*(keys-1)-100), sum)
}

// A key that is stopped during its activation stays stopped, and nothing is
// reserved for one that cannot be activated.
func TestStopMeetsActivation(t *testing.T) {
	r := new(recorder)
	s := newStore(t, keystore.WithObserver(r))
	install(t, s, 1)
	r.onNeed = func(id key.ID) {
		if err := s.Stop(id); err != nil {
			t.Error(err)
		}
	}
	requireKeyError(t, s.Activate(1), 1, keystore.ErrStopped)
	require.Len(t, r.reserve[1], 1)
	_, ok := s.Active(key.Storage)
	require.False(t, ok)
	require.Equal(t, key.Stopped, status(t, s, 1).State)

	requireKeyError(t, s.Activate(1), 1, keystore.ErrStopped)
	require.Len(t, r.reserve[1], 1)
}

func TestSetReserved(t *testing.T) {
	s := sealing(t)
	for range 10 {
		_, err := s.Storage().Seal(nil, make([]byte, 5), nil)
		require.NoError(t, err)
	}
	for _, c := range []struct{ set, want envelope.Usage }{
		{envelope.Usage{}, envelope.Usage{Seals: 10, Bytes: 50}},
		{envelope.Usage{Seals: 9, Bytes: 49}, envelope.Usage{Seals: 10, Bytes: 50}},
		{envelope.Usage{Seals: 20}, envelope.Usage{Seals: 20, Bytes: 50}},
		{envelope.Usage{Bytes: 1 << 40}, envelope.Usage{Seals: 20, Bytes: 1 << 40}},
		{
			envelope.Usage{Seals: math.MaxUint64, Bytes: math.MaxUint64},
			envelope.Usage{Seals: keystore.MaxCount, Bytes: keystore.MaxCount},
		},
	} {
		require.NoError(t, s.SetReserved(1, c.set))
		require.Equal(t, c.want, usage(t, s, 1))
	}
	_, err := s.Storage().Seal(nil, make([]byte, 5), nil)
	require.NoError(t, err)
	require.Equal(t, envelope.Usage{Seals: keystore.MaxCount + 1, Bytes: keystore.MaxCount + 5}, usage(t, s, 1))
}

// A count from before leaves only the rest of the budget.
func TestHardLimitWithLoadedCount(t *testing.T) {
	for _, loaded := range []int{0, 1, 990, 999, 1000, 1001, math.MaxInt} {
		s := newStore(t, keystore.WithLimits(keystore.Limits{Seals: 1000, Bytes: math.MaxUint64, Refuse: true}))
		install(t, s, 1)
		require.NoError(t, s.SetReserved(1, envelope.Usage{Seals: uint64(loaded)}))
		require.NoError(t, s.Activate(1))
		require.Equal(t, max(0, 1000-loaded), sealAll(t, s.Storage(), 1))
	}
}
