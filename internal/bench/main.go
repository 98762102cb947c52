// Bench compares this module with what it is built on, side by side in one
// process, and prints the ratios beside the goals:
//
//	go run ./internal/bench [-rounds N] [-run REGEXP] [-dir DIR] [-quick]
//
// Each row has two sides that do the same work on the same basis: the same
// plaintext, the same length of associated data, buffers of the same size made
// before, the same number of goroutines. The sides take turns, round by round,
// and a row shows medians over the rounds, because the same code measured twice
// in a row differs by more than the goals do on a machine that is shared.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"text/tabwriter"
	"time"
)

// config says how much to measure.
type config struct {
	rounds int           // at least 21 for figures that mean something
	round  time.Duration // what one side of one round takes
	quick  bool          // small tables and files: only that everything runs
	dir    string        // where files are written
	run    *regexp.Regexp
}

func main() {
	if err := start(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(w io.Writer, args []string) error {
	var (
		flags  = flag.NewFlagSet("bench", flag.ContinueOnError)
		rounds = flags.Int("rounds", 41, "rounds of each row; the median counts")
		run    = flags.String("run", "", "only rows whose name matches this regular expression")
		dir    = flags.String("dir", os.TempDir(), "folder on the disk to measure, for files that are removed again")
		quick  = flags.Bool("quick", false, "one short round: shows that everything runs, and nothing else")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	re, err := regexp.Compile(*run)
	if err != nil {
		return err
	}
	cfg := config{rounds: *rounds, round: 4 * time.Millisecond, quick: *quick, dir: *dir, run: re}
	if cfg.quick {
		cfg.rounds, cfg.round = 1, 50*time.Microsecond
	}
	if cfg.rounds < 1 {
		return fmt.Errorf("-rounds %d: at least 1", cfg.rounds)
	}
	return compare(w, cfg)
}

func compare(w io.Writer, cfg config) error {
	fmt.Fprintf(w, "%s %s/%s, %d processors, medians of %d interleaved rounds, times per operation\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), cfg.rounds)
	t := &table{w: w, tw: tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
	for _, r := range rows(cfg) {
		if !cfg.run.MatchString(r.name()) {
			continue
		}
		res, err := measure(r, cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name(), err)
		}
		t.line(r.group, r.what, duration(res.ours), duration(res.raw), r.figure(res), r.limit(), r.allocations(res), r.verdict(res))
	}
	for _, i := range insides {
		if !cfg.run.MatchString(i.name()) {
			continue
		}
		ns, err := i.measure(cfg)
		if err != nil {
			return fmt.Errorf("%s: %w", i.name(), err)
		}
		t.line(insideGroup, i.what, duration(ns), "", "", duration(i.goal), "", i.verdict(ns))
	}
	if err := t.tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nrows that miss their goal: %d\n", t.missed)
	return nil
}

// table prints lines as they come. Columns are as wide as their group needs.
type table struct {
	w      io.Writer
	tw     *tabwriter.Writer
	group  string
	missed int
}

func (t *table) line(group, what, ours, raw, figure, goal, allocs, verdict string) {
	if group != t.group {
		t.group = group
		_ = t.tw.Flush() // an error comes again with the last one
		fmt.Fprintf(t.w, "\n%s\n", group)
		fmt.Fprintf(t.tw, "\tours\traw\tours/raw\tgoal\tallocs\t\t\n")
	}
	fmt.Fprintf(t.tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", what, ours, raw, figure, goal, allocs, verdict)
	if verdict == miss {
		t.missed++
	}
}

// rows lists everything that is compared.
func rows(cfg config) []row {
	var out []row
	out = append(out, valueRows()...)
	out = append(out, saltRows(cfg)...)
	out = append(out, keyRows(cfg)...)
	out = append(out, streamRows(cfg)...)
	out = append(out, fileRows(cfg)...)
	return out
}

func duration(ns float64) string {
	switch {
	case ns < 0:
		return "-" + duration(-ns)
	case ns < 1e4:
		return strconv.FormatFloat(ns, 'f', 1, 64) + " ns"
	case ns < 1e7:
		return strconv.FormatFloat(ns/1e3, 'f', 1, 64) + " us"
	}
	return strconv.FormatFloat(ns/1e6, 'f', 1, 64) + " ms"
}
