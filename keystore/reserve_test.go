package keystore_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// owner keeps the counts of key 7 where a crash leaves them, and loads the key
// again afterwards.
type owner struct {
	dek     key.DEK
	durable envelope.Usage
	epoch   uint16
	s       *keystore.Store

	slow    bool // requests wait for answer
	mu      sync.Mutex
	waiting []envelope.Usage
	asked   int
}

func (o *owner) NeedReserve(_ key.ID, upTo envelope.Usage) {
	o.mu.Lock()
	o.asked++
	o.waiting = append(o.waiting, upTo)
	o.mu.Unlock()
	if !o.slow {
		o.answer()
	}
}

func (o *owner) RotationDue(key.ID, int, envelope.Usage) {}

// answer makes durable what was asked for and says so.
func (o *owner) answer() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, u := range o.waiting {
		o.durable.Seals, o.durable.Bytes = max(o.durable.Seals, u.Seals), max(o.durable.Bytes, u.Bytes)
	}
	o.waiting = nil
	if err := o.s.Reserved(7, o.durable); err != nil {
		panic(err) // the key is there
	}
}

// load starts a process anew: all that is left of the former one is durable.
func (o *owner) load(t require.TestingT) {
	var err error
	o.s, err = keystore.New(keystore.WithObserver(o))
	require.NoError(t, err)
	o.waiting = nil
	require.NoError(t, o.s.Install(7, key.Storage, o.dek))
	require.NoError(t, o.s.SetReserved(7, o.durable))
	o.epoch++
	require.NoError(t, o.s.ActivateCounted(7, envelope.Writer{Epoch: o.epoch}))
}

// use has sealers use up so many seals, in blocks as they come.
func (o *owner) use(t require.TestingT, seals, bytesEach uint64) {
	for m := keystore.MeterOf(o.s, 7); seals > 0; {
		n := min(seals, 1024)
		got, err := m.Reserve(envelope.Usage{Seals: n, Bytes: n * bytesEach})
		require.NoError(t, err)
		require.Equal(t, envelope.Usage{Seals: n, Bytes: n * bytesEach}, got)
		seals -= n
	}
}

func (o *owner) requireAhead(t require.TestingT, really envelope.Usage) {
	require.GreaterOrEqual(t, o.durable.Seals, really.Seals)
	require.GreaterOrEqual(t, o.durable.Bytes, really.Bytes)
	used, err := o.s.Usage(7)
	require.NoError(t, err)
	require.GreaterOrEqual(t, used.Seals, really.Seals)
	require.GreaterOrEqual(t, used.Bytes, really.Bytes)
}

// While the owner answers at once, more is durable than was ever used, whenever
// the process ends.
func TestReservedCoversUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &owner{dek: key.NewDEK()}
		var really envelope.Usage
		o.load(t)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { o.requireAhead(t, really) },
			"seal": func(t *rapid.T) {
				value := make([]byte, rapid.IntRange(0, 1<<16).Draw(t, "size"))
				for range rapid.IntRange(1, 20).Draw(t, "seals") {
					_, err := o.s.Storage().Seal(nil, value, nil)
					require.NoError(t, err)
					really.Seals++
					really.Bytes += uint64(len(value))
				}
			},
			"seal much": func(t *rapid.T) {
				seals := rapid.Uint64Range(1, 1<<20).Draw(t, "seals")
				each := rapid.Uint64Range(0, 1<<16).Draw(t, "bytes each")
				o.use(t, seals, each)
				really.Seals += seals
				really.Bytes += seals * each
			},
			"reactivate": func(t *rapid.T) {
				o.epoch++
				require.NoError(t, o.s.ActivateCounted(7, envelope.Writer{Epoch: o.epoch}))
			},
			"crash": func(t *rapid.T) { o.load(t) },
		})
	})
}

// The same with nothing but real seals.
func TestReservedCoversRealSeals(t *testing.T) {
	o := &owner{dek: key.NewDEK()}
	o.load(t)
	dst := make([]byte, 0, 128)
	v := o.s.Storage()
	for n := range uint64(1_300_000 / scale) {
		if _, err := v.Seal(dst, nil, nil); err != nil {
			t.Fatal(err)
		}
		if n >= o.durable.Seals {
			t.Fatalf("seal %d with %d reserved", n, o.durable.Seals)
		}
	}
	if scale == 1 {
		require.Equal(t, 3, o.asked, "at the start and after each half of a chunk")
	}
}

// A slow owner has the time that the other half of a chunk takes. One that takes
// longer is asked for more, not more often, and one late answer covers all.
func TestSlowOwner(t *testing.T) {
	const half, block = keystore.ChunkSeals / 2, 1024
	o := &owner{dek: key.NewDEK()}
	o.load(t)
	require.Equal(t, envelope.Usage{Seals: keystore.ChunkSeals, Bytes: keystore.ChunkBytes}, o.durable)
	o.slow = true

	o.use(t, half, 0)
	require.Empty(t, o.waiting, "half of the chunk is left")
	o.use(t, block, 0)
	require.Len(t, o.waiting, 1)
	o.use(t, half-block, 0)
	o.requireAhead(t, envelope.Usage{Seals: keystore.ChunkSeals}) // up to here the answer may take
	o.answer()
	require.Equal(t, 2, o.asked)

	o.use(t, 10*keystore.ChunkSeals, 0) // never waits, and what is durable falls behind
	require.Less(t, o.durable.Seals, uint64(11*keystore.ChunkSeals))
	require.LessOrEqual(t, len(o.waiting), 20)
	for i, u := range o.waiting[1:] {
		require.Greater(t, u.Seals, o.waiting[i].Seals)
	}
	o.answer()
	o.requireAhead(t, envelope.Usage{Seals: 11 * keystore.ChunkSeals})
}

// A request that got lost is made again when the key is activated, and no other
// way before the next half chunk.
func TestLostRequest(t *testing.T) {
	o := &owner{dek: key.NewDEK(), slow: true}
	o.load(t)
	require.Len(t, o.waiting, 1)
	first := o.waiting[0]
	o.waiting = nil
	o.use(t, 1024, 1)
	require.Empty(t, o.waiting)
	require.NoError(t, o.s.Activate(7))
	require.Len(t, o.waiting, 1)
	require.GreaterOrEqual(t, o.waiting[0].Seals, first.Seals)
	o.answer()
	require.NoError(t, o.s.Activate(7))
	require.Empty(t, o.waiting, "answered")
}

// Answers that arrive late and out of order take nothing back, nor does it that
// sealers return what they did not use.
func TestReservationsOnlyGrow(t *testing.T) {
	o := &owner{dek: key.NewDEK(), slow: true}
	o.load(t)
	o.use(t, keystore.ChunkSeals, 1)
	require.Len(t, o.waiting, 2)
	highest := o.waiting[1]
	keystore.MeterOf(o.s, 7).Return(envelope.Usage{Seals: keystore.ChunkSeals - 1, Bytes: keystore.ChunkSeals - 1})
	require.NoError(t, o.s.Activate(7))
	require.Len(t, o.waiting, 3)
	require.Equal(t, highest, o.waiting[2])

	require.NoError(t, o.s.Reserved(7, highest))
	require.NoError(t, o.s.Reserved(7, o.waiting[0]))
	require.NoError(t, o.s.Reserved(7, envelope.Usage{}))
	o.use(t, keystore.ChunkSeals/2, 1)
	require.NoError(t, o.s.Activate(7))
	require.Len(t, o.waiting, 3, "all of it is reserved")
}

// Bytes alone make it necessary to reserve, too.
func TestReservedBytes(t *testing.T) {
	o := &owner{dek: key.NewDEK()}
	o.load(t)
	o.use(t, 8, 1<<30) // half a chunk
	require.Equal(t, 1, o.asked)
	o.use(t, 1, 1)
	require.Equal(t, 2, o.asked)
	require.Equal(t, uint64(3*keystore.ChunkBytes/2+1), o.durable.Bytes)
}

// However many goroutines seal, a half chunk is asked for once, and in the end
// more is durable than was used.
func TestReserveFromManyGoroutines(t *testing.T) {
	const goroutines, blocks = 8, 1024 // two chunks in all
	o := &owner{dek: key.NewDEK()}
	o.load(t)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range blocks / 4 {
				o.use(t, 1024, 1)
			}
		})
	}
	wg.Wait()
	used := envelope.Usage{Seals: goroutines * blocks / 4 * 1024, Bytes: goroutines * blocks / 4 * 1024}
	o.requireAhead(t, used)
	require.LessOrEqual(t, o.asked, 1+int(used.Seals/(keystore.ChunkSeals/2)))
}
