package sim_test

import (
	"crypto/fips140"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/pinned"
	"github.com/atrestdb/atrest/internal/sim"
)

// run runs a script in a bubble, with all that is random drawn from its seed.
func run(t *testing.T, s sim.Script, o sim.Options) (stats sim.Stats, err error) {
	t.Helper()
	// One goroutine at a time, so that a run can be repeated as far as that goes.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if o.Pinned {
		defer pinned.PinStart(math.MaxUint64 - 2)() // it wraps soon
	}
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, s.Seed)
		stats, err = sim.Run(s, o)
	})
	return stats, err
}

var (
	scenarios = flag.Int("sim.scenarios", everyday, "scenarios that TestSimulation runs; each runs twice")
	repeat    = flag.Int("sim.repeat", 1, "how often each script in testdata runs")
	trace     = flag.Bool("sim.trace", false, "show each step of the scripts in testdata, and what comes of it")
)

// set sets a flag of rapid unless it is set.
func set(t *testing.T, name, value string) {
	t.Helper()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		f := flag.Lookup(name)
		old := f.Value.String()
		require.NoError(t, f.Value.Set(value))
		t.Cleanup(func() { require.NoError(t, f.Value.Set(old)) })
	}
}

// Whatever happens to a cluster, nothing happens that must not. A failure prints the
// script that led to it; put it into testdata/scripts, and TestScripts runs it.
func TestSimulation(t *testing.T) {
	set(t, "rapid.checks", strconv.Itoa(*scenarios))
	set(t, "rapid.seed", strconv.FormatUint(rand.Uint64(), 10))
	set(t, "rapid.nofailfile", "true")
	t.Logf("-rapid.seed=%v", flag.Lookup("rapid.seed").Value)
	if serial {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // it makes much garbage, and keeps little
	var (
		total  sim.Stats
		script sim.Script // the shortest that failed
		found  error
	)
	t.Cleanup(func() {
		if found != nil {
			t.Logf("%v\n\n%v", found, script)
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		s := scenario(rt)
		for _, pin := range []bool{true, false} {
			stats, err := run(t, s, sim.Options{Pinned: pin})
			if v := new(sim.ViolationError); errors.As(err, &v) {
				if found == nil || len(s.Steps) < len(script.Steps) {
					found, script = fmt.Errorf("pinned %t: %w", pin, err), s
				}
				rt.Fatalf("%s", v.Rule) // the same text for all failures of a kind: rapid compares it
			}
			total.Add(stats)
		}
	})
	t.Logf("\n%v", total)
	if total.Scenarios >= 2*1000 && !fips140.Enforced() {
		require.Empty(t, total.Never(), "never happened: the scenarios are too tame")
	}
}

// Scripts that found something, and those that tell what must hold in a few lines.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			s, err := sim.Parse(string(b))
			require.NoError(t, err)
			for range *repeat {
				for _, pin := range []bool{true, false} {
					o := sim.Options{Pinned: pin}
					if *trace {
						o.Trace = t.Output()
					}
					stats, err := run(t, s, o)
					require.NoError(t, err, "pinned %t", pin)
					for name, n := range s.Wants {
						require.GreaterOrEqual(t, stats.Count(name), n, name)
					}
				}
			}
		})
	}
}
