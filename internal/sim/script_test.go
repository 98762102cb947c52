package sim_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/sim"
)

// A script is the same after it was text.
func TestScriptIsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := scenario(t)
		s.Wants = map[string]int{"Destroys": 3, "Clones": 1}
		got, err := sim.Parse("# a comment\n\n" + s.String())
		require.NoError(t, err)
		require.Equal(t, s, got)
	})
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"",
		"seed 1",
		"member b sync voter",
		"member a disk voter",
		"member a sync chief",
		"member a sync voter\nput a",
		"member a sync voter\nput a 6",
		"member a sync voter\nput a -1",
		"member a sync voter\nput h 1",
		"member a sync voter\nput all 1",
		"member a sync voter\nkms all broken",
		"member a sync voter\nsing",
		"member a sync voter\nseed x",
		"member a sync voter\nwant Peace 1",
		"member a sync voter\nwant Clones many",
	} {
		_, err := sim.Parse(text)
		require.Error(t, err, "%q", text)
	}
}

// Every operation comes up, by itself or in a story.
func TestEveryOperationIsDrawn(t *testing.T) {
	drawn := map[string]bool{}
	for i := range 500 {
		for _, s := range rapid.Custom(scenario).Example(i).Steps {
			drawn[s.Op] = true
		}
	}
	require.Equal(t, slices.Sorted(maps.Keys(sim.Grammar)), slices.Sorted(maps.Keys(drawn)))
}
