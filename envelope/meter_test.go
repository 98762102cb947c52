package envelope_test

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
)

var errBudget = errors.New("budget used up")

// meter grants from a budget. It checks the sealer's side of the contract.
type meter struct {
	t interface{ Errorf(string, ...any) }

	mu    sync.Mutex
	left  envelope.Usage
	out   envelope.Usage // granted and not returned
	block uint64         // the most seals granted at once, 0: what is asked for
	more  envelope.Usage // granted above what is asked for
	calls int
}

func newMeter(t interface{ Errorf(string, ...any) }, seals, bytes uint64) *meter {
	return &meter{t: t, left: envelope.Usage{Seals: seals, Bytes: bytes}}
}

func (m *meter) Reserve(want envelope.Usage) (envelope.Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if want.Seals == 0 {
		m.t.Errorf("no seal wanted")
	}
	got := envelope.Usage{
		Seals: min(want.Seals+m.more.Seals, m.left.Seals),
		Bytes: min(want.Bytes+m.more.Bytes, m.left.Bytes),
	}
	if m.block > 0 {
		got.Seals = min(got.Seals, m.block)
	}
	if got.Seals == 0 {
		return envelope.Usage{}, errBudget
	}
	m.left.Seals -= got.Seals
	m.left.Bytes -= got.Bytes
	m.out.Seals += got.Seals
	m.out.Bytes += got.Bytes
	return got, nil
}

func (m *meter) Return(unused envelope.Usage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if unused.Seals > m.out.Seals || unused.Bytes > m.out.Bytes || unused == (envelope.Usage{}) {
		m.t.Errorf("returned %v of %v", unused, m.out)
	}
	m.left.Seals += unused.Seals
	m.left.Bytes += unused.Bytes
	m.out.Seals -= unused.Seals
	m.out.Bytes -= unused.Bytes
}

func (m *meter) used(s *envelope.Sealer) envelope.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := s.Unused()
	return envelope.Usage{Seals: m.out.Seals - u.Seals, Bytes: m.out.Bytes - u.Bytes}
}

const plenty = 1 << 60

func TestMeterCountsEverySeal(t *testing.T) {
	c := newCipher(t)
	rapid.Check(t, func(t *rapid.T) {
		m := newMeter(t, plenty, plenty)
		m.block = rapid.Uint64Range(0, 5).Draw(t, "block")
		s, err := c.NewSealer(m)
		require.NoError(t, err)
		var want envelope.Usage
		for range rapid.IntRange(0, 30).Draw(t, "seals") {
			p := make([]byte, rapid.IntRange(0, 100).Draw(t, "size"))
			_, err := s.SealStorage(nil, p, nil)
			require.NoError(t, err)
			want.Seals++
			want.Bytes += uint64(len(p))
			require.Equal(t, want, m.used(s))
		}
		s.Stop()
		require.Zero(t, s.Unused())
		require.Equal(t, want, m.out)
	})
}

// Nothing is lost where many goroutines use up the blocks of one shard.
func TestMeterCountsCrowdedSeals(t *testing.T) {
	m := newMeter(t, plenty, plenty)
	m.block = 2
	s := extended(t, newCipher(t), m)
	const goroutines, each = 8, 5000
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range each {
				if _, err := envelope.TakeAt(s, 0, 10); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := envelope.Usage{Seals: goroutines * each, Bytes: 10 * goroutines * each}
	require.Equal(t, want, m.used(s))
	s.Stop()
	require.Equal(t, want, m.out)
}

// A refused seal costs nothing; one that fails for other reasons neither.
func TestFailedSealsAreNotCounted(t *testing.T) {
	m := newMeter(t, plenty, plenty)
	s := extended(t, newCipher(t), m)
	for range 10 {
		_, err := s.SealStorage(nil, nil, make([]byte, envelope.MaxLocation+1))
		require.Error(t, err)
		_, err = s.SealRaftGeneration1(nil, nil)
		require.Error(t, err)
	}
	require.Zero(t, m.used(s))
}

// About one call per thousand seals.
func TestMeterIsOffTheHotPath(t *testing.T) {
	m := newMeter(t, plenty, plenty)
	s := extended(t, newCipher(t), m)
	for range 100 * envelope.BlockSeals {
		_, err := envelope.TakeAt(s, 0, 100)
		require.NoError(t, err)
	}
	require.Equal(t, 100, m.calls)
}

// Of a budget every last seal and byte can be used, whichever shards hold it, and
// not one more.
func TestBudget(t *testing.T) {
	c := newCipher(t)
	tests := []struct {
		name         string
		seals, bytes uint64
		size         int
		want         uint64
	}{
		{"no seal", 0, plenty, 10, 0},
		{"one seal", 1, plenty, 10, 1},
		{"seals", 5000, plenty, 10, 5000},
		{"bytes", plenty, 5009, 10, 500},
		{"no byte", plenty, 0, 1, 0},
		{"no byte for nothing", 100, 0, 0, 100},
		{"less than one", plenty, 9, 10, 0},
		{"both", 100, 1000, 10, 100},
		{"large", plenty, 1<<28 + 5, 1 << 20, 256},
	}
	for _, tt := range tests {
		for _, shards := range []int{1, envelope.Shards} {
			t.Run(fmt.Sprintf("%s, %d shards", tt.name, shards), func(t *testing.T) {
				m := newMeter(t, tt.seals, tt.bytes)
				s := extended(t, c, m)
				var got uint64
				for i := 0; ; i++ {
					_, err := envelope.TakeAt(s, i%shards, tt.size)
					if err != nil {
						require.True(t, errors.Is(err, errBudget) || errors.Is(err, envelope.ErrExhausted), err)
						break
					}
					got++
				}
				require.Equal(t, tt.want, got)
				require.Equal(t, tt.want, m.used(s).Seals)
				require.Equal(t, tt.want*uint64(tt.size), m.used(s).Bytes)
				for range 10 {
					out, err := s.SealStorage(nil, make([]byte, tt.size), nil)
					require.Error(t, err)
					require.Nil(t, out)
				}
				require.Equal(t, tt.want, m.used(s).Seals)

				m.mu.Lock()
				m.left = envelope.Usage{Seals: 1, Bytes: uint64(tt.size)}
				m.mu.Unlock()
				_, err := s.SealStorage(nil, make([]byte, tt.size), nil)
				require.NoError(t, err, "a raised budget is used at once")
			})
		}
	}
}

// What a block cannot hold of a grant goes back: what is above the block, above
// the salt's or the counted nonces' end, and bytes without number.
func TestRestOfGrantGoesBack(t *testing.T) {
	c := newCipher(t)
	check := func(m *meter, s *envelope.Sealer, unused uint64) {
		t.Helper()
		_, err := envelope.TakeAt(s, 0, 10)
		require.NoError(t, err)
		require.Equal(t, unused, s.Unused().Seals)
		require.Equal(t, envelope.Usage{Seals: 1, Bytes: 10}, m.used(s))
		s.Stop()
		require.Equal(t, envelope.Usage{Seals: 1, Bytes: 10}, m.out)
	}
	m := newMeter(t, plenty, plenty)
	check(m, extended(t, c, m), envelope.BlockSeals-1)

	m = newMeter(t, plenty, plenty)
	m.more = envelope.Usage{Seals: 5, Bytes: 1 << 50}
	check(m, extended(t, c, m), envelope.BlockSeals-1)

	m = newMeter(t, plenty, plenty)
	s := extended(t, c, m)
	envelope.PinSalted(t, s, envelope.MaxSalted-10)
	check(m, s, 9)

	if fips140.Enforced() {
		return
	}
	m = newMeter(t, plenty, plenty)
	s = counted(t, c, m)
	envelope.PinStart(s, 0, envelope.MaxCounted-10)
	check(m, s, 9)
}

// fixedMeter grants the same whatever is asked for.
type fixedMeter envelope.Usage

func (m fixedMeter) Reserve(envelope.Usage) (envelope.Usage, error) { return envelope.Usage(m), nil }
func (m fixedMeter) Return(envelope.Usage)                          {}

// A meter that grants nothing, too little or too much harms nobody.
func TestOddMeters(t *testing.T) {
	c := newCipher(t)
	for _, grant := range []envelope.Usage{{}, {Seals: 5}, {Bytes: plenty}, {Seals: 1, Bytes: 9}} {
		out, err := extended(t, c, fixedMeter(grant)).SealStorage(nil, make([]byte, 10), nil)
		require.ErrorIs(t, err, envelope.ErrExhausted, "%v", grant)
		require.Nil(t, out)
	}
	s := extended(t, c, fixedMeter{Seals: plenty, Bytes: 1 << 63})
	for range 3 * envelope.BlockSeals {
		_, err := s.SealStorage(nil, make([]byte, 10), nil)
		require.NoError(t, err)
	}
}

// After Stop has returned no seal starts, what was reserved is back, and what was
// sealed before is counted, all while others seal.
func TestStop(t *testing.T) {
	c := newCipher(t)
	for name := range sealers(t, c) {
		for range 100 {
			m := newMeter(t, plenty, plenty)
			m.block = 16
			s := extended(t, c, m)
			if name == "counted" {
				s = counted(t, c, m)
			}
			var (
				wg             sync.WaitGroup
				sealed         atomic.Uint64
				stopped        atomic.Bool
				begun          = make(chan struct{}, 100)
				sealers        = 4
				plaintext, buf = make([]byte, 10), 200
			)
			for range sealers {
				wg.Go(func() {
					dst := make([]byte, 0, buf)
					for i := 0; ; i++ {
						if i == 20 {
							begun <- struct{}{}
						}
						if i%16 == 0 {
							runtime.Gosched()
						}
						late := stopped.Load()
						env, err := s.SealStorage(dst, plaintext, location)
						if err != nil {
							if !errors.Is(err, envelope.ErrStopped) || env != nil {
								t.Error(env, err)
							}
							return
						}
						if late {
							t.Error("a seal began after Stop had returned")
							return
						}
						sealed.Add(1)
					}
				})
			}
			for range sealers {
				<-begun
			}
			for range 2 {
				wg.Go(func() {
					s.Stop()
					stopped.Store(true)
				})
			}
			wg.Wait()
			require.Zero(t, s.Unused())
			require.Equal(t, envelope.Usage{Seals: sealed.Load(), Bytes: 10 * sealed.Load()}, m.out)
			s.Stop()
			calls := m.calls
			for _, k := range kinds[:2] {
				out, err := k.seal(s, nil, nil)
				require.ErrorIs(t, err, envelope.ErrStopped)
				require.Nil(t, out)
			}
			require.Equal(t, calls, m.calls, "a stopped sealer asks for nothing")
		}
	}
}

// stoppingMeter stops the sealer that asks it.
type stoppingMeter struct {
	*meter
	s *envelope.Sealer
}

func (m *stoppingMeter) Reserve(want envelope.Usage) (envelope.Usage, error) {
	m.s.Stop()
	return m.meter.Reserve(want)
}

// A meter may stop the sealer that asks it: no lock is held meanwhile.
func TestMeterMayStop(t *testing.T) {
	m := &stoppingMeter{meter: newMeter(t, plenty, plenty)}
	m.s = extended(t, newCipher(t), m)
	out, err := m.s.SealStorage(nil, nil, nil)
	require.ErrorIs(t, err, envelope.ErrStopped)
	require.Nil(t, out)
	require.Zero(t, m.out)
}

// Seals, opens and stops of several sealers of one key at once.
func TestConcurrentUse(t *testing.T) {
	c := newCipher(t)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			buf := make([]byte, 0, 300)
			for i := range 20 {
				s, err := c.NewCountedSealer(envelope.Writer{Node16: uint16(g), Epoch: uint16(i)}, nil)
				if i%2 == 0 {
					s, err = c.NewSealer(nil)
				}
				if err != nil {
					t.Error(err)
				}
				for j := range 50 {
					k := kinds[j%2]
					env, err := k.seal(s, buf, []byte("plaintext"))
					if err != nil {
						t.Error(err)
					}
					got, err := k.open(c, env[len(env):], env)
					if err != nil || string(got) != "plaintext" {
						t.Error(got, err)
					}
				}
				s.Stop()
			}
		})
	}
	wg.Wait()
}
