package pinned_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/pinned"
)

func requireStart(t *testing.T, want uint64, pin bool) {
	t.Helper()
	n, ok := pinned.Start()
	require.Equal(t, pin, ok)
	require.Equal(t, want, n)
}

func TestPinStart(t *testing.T) {
	requireStart(t, 0, false)
	first := pinned.PinStart(0)
	requireStart(t, 0, true)
	second := pinned.PinStart(1<<64 - 1)
	requireStart(t, 1<<64-1, true)
	second()
	requireStart(t, 0, true)
	first()
	requireStart(t, 0, false)
}

func TestStartWhilePinning(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if n, ok := pinned.Start(); ok && n != 7 {
					t.Errorf("got %d, want 7", n)
					return
				}
			}
		})
	}
	for range 1000 {
		pinned.PinStart(7)()
	}
	wg.Wait()
}
