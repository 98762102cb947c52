package main

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every row runs and is printed, once.
func TestQuick(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, start(&out, []string{"-quick", "-dir", t.TempDir()}))
	text := out.String()
	groups := map[string]bool{insideGroup: true}
	for _, i := range insides {
		assert.Regexp(t, `(?m)^\s*`+regexp.QuoteMeta(i.what)+` `, text)
	}
	for _, r := range rows(config{quick: true}) {
		groups[r.group] = true
		assert.Regexp(t, `(?m)^\s*`+regexp.QuoteMeta(r.what)+` `, text)
	}
	for g := range groups {
		assert.Equal(t, 1, strings.Count(text, "\n"+g+"\n"), g)
	}
	lines := len(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' }))
	assert.Equal(t, 2+2*len(groups)+len(rows(config{quick: true}))+len(insides), lines, "%s", text)
}

func TestRunSelectsRows(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, start(&out, []string{"-quick", "-dir", t.TempDir(), "-run", "^envelope, suite 0x01, one goroutine: seal 64 B$"}))
	assert.Contains(t, out.String(), "seal 64 B")
	assert.NotContains(t, out.String(), "open")
}

func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{{"-run", "("}, {"-rounds", "0"}} {
		assert.Error(t, start(&bytes.Buffer{}, args))
	}
}

// A side that does twice the work takes about twice as long, and a row that
// allocates shows it. The bounds are wide: the machine is shared.
func TestMeasure(t *testing.T) {
	var sink []byte
	spin := func(k int) work {
		b, sum := make([]byte, 4096), byte(0)
		return func(n int) {
			for range n * k {
				for _, x := range b {
					sum += x
				}
			}
			b[0] = sum
		}
	}
	cfg := config{rounds: 21, round: 200 * time.Microsecond}
	res, err := measure(row{prepare: func() (trial, error) {
		return trial{ours: []work{spin(4)}, raw: []work{spin(1)}}, nil
	}}, cfg)
	require.NoError(t, err)
	assert.Greater(t, res.ratio, 1.5)
	assert.Positive(t, res.extra)
	assert.Zero(t, res.allocs)

	res, err = measure(row{prepare: func() (trial, error) {
		grow := func(n int) {
			for range n {
				sink = make([]byte, 100)
			}
		}
		return trial{ours: []work{grow}, raw: []work{spin(1)}}, nil
	}}, cfg)
	require.NoError(t, err)
	assert.InDelta(t, 1, res.allocs, 0)
	assert.Len(t, sink, 100)

	broken := errors.New("broken")
	_, err = measure(row{prepare: func() (trial, error) { return trial{}, broken }}, cfg)
	assert.ErrorIs(t, err, broken)
}

// Both sides run on every goroutine, equally often, and are closed at the end.
func TestMeasureSides(t *testing.T) {
	var ours, raw [2]int
	closed := 0
	count := func(c *int) work { return func(n int) { *c += n } }
	_, err := measure(row{ops: 5, prepare: func() (trial, error) {
		return trial{
			ours:  []work{count(&ours[0]), count(&ours[1])},
			raw:   []work{count(&raw[0]), count(&raw[1])},
			close: func() { closed++ },
		}, nil
	}}, config{rounds: 3})
	require.NoError(t, err)
	assert.Equal(t, [2]int{15, 15}, ours)
	assert.Equal(t, ours, raw)
	assert.Equal(t, 1, closed)
}

func TestVerdict(t *testing.T) {
	tests := []struct {
		name string
		row  row
		res  result
		want string
	}{
		{"no goal", row{}, result{ratio: 9}, ""},
		{"at the goal", row{goal: 1.03}, result{ratio: 1.0349}, "ok"},
		{"above it", row{goal: 1.03}, result{ratio: 1.0351}, miss},
		{"allocates", row{goal: 2, allocFree: true}, result{ratio: 1, allocs: 1}, miss},
		{"may allocate", row{goal: 2}, result{ratio: 1, allocs: 1}, "ok"},
		{"within the extra", row{extra: time.Microsecond}, result{ratio: 50, extra: 1000}, "ok"},
		{"beyond the extra", row{extra: time.Microsecond}, result{ratio: 1, extra: 1001}, miss},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, tt.row.verdict(tt.res)) })
	}
}

func TestMedianOf(t *testing.T) {
	const out = "BenchmarkA/n=1-2 \t 10 \t 3.5 ns/op\t 0 B/op\nBenchmarkA/n=10-2 \t 10 \t 9 ns/op\nBenchmarkA/n=1-2 \t 10 \t 1.5 ns/op\nok\n"
	got, err := medianOf(out, "BenchmarkA/n=1")
	require.NoError(t, err)
	assert.InDelta(t, 2.5, got, 1e-9)
	_, err = medianOf(out, "BenchmarkB")
	require.ErrorContains(t, err, "no benchmark BenchmarkB")
}

func TestMedian(t *testing.T) {
	assert.InDelta(t, 2, median([]float64{3, 1, 2}), 0)
	assert.InDelta(t, 2.5, median([]float64{4, 1, 3, 2}), 0)
}

// The associated data that the goals are measured with.
func TestBasis(t *testing.T) {
	v := newValue(64)
	assert.Len(t, v.aad, 38)
	assert.GreaterOrEqual(t, cap(v.dst), 64+6+24+16+38)
}
