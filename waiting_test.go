package atrest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/key"
)

// A key that arrives late counts what was used of it, and not what was only
// reserved for this load.
func TestUsageOfAKeyThatArrivesLate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ms := w.bootstrapped("n1", "n2", "n3")
		w.put(ms[0], "a", "1")
		for _, m := range ms { // n1 made the keys, the others unwrapped them after the commit
			k := m.status(m.active(key.Storage))
			require.True(t, k.Registered)
			require.Equal(t, uint64(1), k.Usage.Seals, m.name)
			require.NoError(t, m.restart())
			require.Equal(t, uint64(1<<20), m.status(k.ID).Usage.Seals, "%s: a chunk was reserved", m.name)
		}
	})
}
