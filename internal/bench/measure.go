package main

import (
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"
)

// work does n operations on one goroutine.
type work func(n int)

// trial is both sides of a row, ready to run: one work for each goroutine. The
// sides have equally many.
type trial struct {
	ours, raw []work
	close     func() // may be nil
}

// row is one line of the table.
type row struct {
	group, what string
	goal        float64       // highest ratio of ours to raw; 0: none
	extra       time.Duration // instead of goal: the most that ours may take beyond raw
	allocFree   bool          // part of the goal
	ops         int           // operations a round; 0: as many as fill it
	prepare     func() (trial, error)
}

// result is what a row measured, in nanoseconds.
type result struct {
	ours, raw float64
	ratio     float64 // median of the rounds' ratios
	extra     float64 // median of the rounds' differences
	allocs    float64 // of ours, for one operation; -1: not measured
}

func (r row) name() string { return r.group + ": " + r.what }

// measure runs the two sides in turns. Which one is first changes every round,
// so that neither always finds the caches that the other left.
func measure(r row, cfg config) (result, error) {
	t, err := r.prepare()
	if err != nil {
		return result{}, err
	}
	if t.close != nil {
		defer t.close()
	}
	n := r.ops
	if n == 0 {
		n = fill(t, cfg.round)
	}
	runtime.GC()
	var ours, raw, ratio, extra []float64
	for i := range cfg.rounds {
		var a, b float64
		if i%2 == 0 {
			a = perOp(t.ours, n)
			b = perOp(t.raw, n)
		} else {
			b = perOp(t.raw, n)
			a = perOp(t.ours, n)
		}
		ours, raw = append(ours, a), append(raw, b)
		ratio, extra = append(ratio, a/b), append(extra, a-b)
	}
	res := result{ours: median(ours), raw: median(raw), ratio: median(ratio), extra: median(extra), allocs: -1}
	if r.ops == 0 {
		res.allocs = allocations(t.ours[0], n)
	}
	return res, nil
}

// fill returns how many operations take about d, and warms both sides up.
func fill(t trial, d time.Duration) int {
	n := 1
	for {
		perOp(t.ours, n)
		if took := perOp(t.raw, n) * float64(n); took >= float64(d) || n >= 1<<24 {
			return n
		}
		n *= 2
	}
}

// perOp runs one side, n operations on each of its goroutines at once, and
// returns how long one took.
func perOp(side []work, n int) float64 {
	if len(side) == 1 {
		begin := time.Now()
		side[0](n)
		return float64(time.Since(begin)) / float64(n)
	}
	var (
		ready, done sync.WaitGroup
		start       = make(chan struct{})
	)
	for _, f := range side {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			f(n)
		})
	}
	ready.Wait()
	begin := time.Now()
	close(start)
	done.Wait()
	return float64(time.Since(begin)) / float64(n)
}

// allocations returns the whole allocations of one operation. What happens now
// and then, or in the background, rounds to 0.
func allocations(f work, n int) float64 {
	n = max(n, 100)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f(n)
	runtime.ReadMemStats(&after)
	return math.Floor(float64(after.Mallocs-before.Mallocs) / float64(n))
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

const miss = "MISS"

// verdict compares what is printed, so that a row never misses by a digit that
// nobody sees.
func (r row) verdict(res result) string {
	switch {
	case r.goal == 0 && r.extra == 0:
		return ""
	case r.goal > 0 && math.Round(res.ratio*100)/100 > r.goal,
		r.extra > 0 && res.extra > float64(r.extra),
		r.allocFree && res.allocs > 0:
		return miss
	}
	return "ok"
}

// figure is what the goal is about: a ratio, or a difference.
func (r row) figure(res result) string {
	if r.extra > 0 {
		return "+" + duration(res.extra)
	}
	return strconv.FormatFloat(res.ratio, 'f', 2, 64)
}

func (r row) limit() string {
	switch {
	case r.extra > 0:
		return "+" + duration(float64(r.extra))
	case r.goal > 0:
		return strconv.FormatFloat(r.goal, 'f', 2, 64)
	}
	return ""
}

func (r row) allocations(res result) string {
	if res.allocs < 0 {
		return ""
	}
	return strconv.FormatFloat(res.allocs, 'f', 0, 64)
}
