package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

const insideGroup = "inside the packages, by their own benchmarks"

// inside is a cost that no exported function has for itself: a benchmark of the
// package measures it.
type inside struct {
	what, pkg, bench string
	goal             float64 // ns
}

var insides = []inside{
	{"nonce, one goroutine", "envelope", "BenchmarkNonce/suite=0x01/serial", 3},
	{"nonce, all processors", "envelope", "BenchmarkNonce/suite=0x01/parallel", 1.5},
	{"look up one of 1,000 keys", "keystore", "BenchmarkLookup/keys=1000", 12},
	{"look up one of 100,000 keys", "keystore", "BenchmarkLookup/keys=100000", 30},
	{"unwrap 1,000 keys at a start, KEK in a file", "kek", "BenchmarkUnwrapDEK1000", 100e6},
}

func (i inside) name() string { return insideGroup + ": " + i.what }

func (i inside) verdict(ns float64) string {
	if ns > i.goal {
		return miss
	}
	return "ok"
}

// measure runs the benchmark with the go command and returns the median time of
// an operation in nanoseconds.
func (i inside) measure(cfg config) (float64, error) {
	benchtime := "100ms" // a hundred thousand keys take a while to be in the caches
	if cfg.quick {
		benchtime = "1x"
	}
	parts := strings.Split(i.bench, "/")
	for n, p := range parts {
		parts[n] = "^" + p + "$"
	}
	//nolint:gosec // Nothing in it comes from outside but the number of rounds.
	cmd := exec.CommandContext(context.Background(), "go", "test", "-run", "^$", "-bench", strings.Join(parts, "/"),
		"-benchtime", benchtime, "-count", strconv.Itoa(cfg.rounds), "github.com/atrestdb/atrest/"+i.pkg)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, out)
	}
	return medianOf(string(out), i.bench)
}

// medianOf returns the median ns/op of the lines of a benchmark.
func medianOf(out, bench string) (float64, error) {
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(bench) + `(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op`)
	var all []float64
	for _, m := range line.FindAllStringSubmatch(out, -1) {
		ns, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		all = append(all, ns)
	}
	if len(all) == 0 {
		return 0, fmt.Errorf("no benchmark %s in\n%s", bench, out)
	}
	return median(all), nil
}
