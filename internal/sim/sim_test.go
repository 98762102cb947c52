package sim_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/cryptotest"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/internal/pinned"
	"github.com/atrestdb/atrest/internal/sim"
)

func itoa(n int) string { return strconv.Itoa(n) }

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

var trace = flag.Bool("sim.trace", false, "print each step of the scripts in testdata")

func TestSimulation(t *testing.T) {
	var (
		total sim.Stats
		worst sim.Script // the shortest that failed
		found error
	)
	t.Cleanup(func() {
		if found != nil {
			t.Logf("%v\n\n%v", found, worst)
		}
	})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	rapid.Check(t, func(rt *rapid.T) {
		s := script(rt)
		for _, pin := range []bool{true, false} {
			stats, err := run(t, s, sim.Options{Pinned: pin})
			if v := new(sim.Violation); errors.As(err, &v) {
				if found == nil || len(s.Steps) < len(worst.Steps) {
					found, worst = fmt.Errorf("pinned %t: %w", pin, err), s
				}
				rt.Fatalf("%s", v.Rule)
			}
			total.Add(stats)
		}
	})
	t.Logf("\n%v", total)
	require.Empty(t, total.Never())
}

func TestScript(t *testing.T) {
	b, err := os.ReadFile(os.Getenv("SCRIPT"))
	if err != nil {
		t.Skip()
	}
	s, err := sim.Parse(string(b))
	require.NoError(t, err)
	for _, pin := range []bool{true, false} {
		o := sim.Options{Pinned: pin}
		if *trace {
			o.Trace = t.Output()
		}
		_, err = run(t, s, o)
		if err != nil {
			t.Fatal(pin, err)
		}
	}
}
