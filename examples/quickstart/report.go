package main

import (
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// A report is what one run found out.
type report struct {
	files, skipped int
	bytesIn        int64
	bytesOnDisk    int64
	sealing        time.Duration // the time in seal alone; zero if nothing was sealed
	opening        time.Duration // the time in open alone
	mismatches     int
	keys           int
	samples        int
	hits           int
	controlHits    int
}

// table writes the report, one figure to a line.
func (r report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	row("files", "%d", r.files)
	row("bytes in", "%d", r.bytesIn)
	row("bytes on disk", "%d", r.bytesOnDisk)
	row("overhead", "%s", overhead(r.bytesIn, r.bytesOnDisk))
	row("seal MB/s", "%s", rate(r.bytesIn, r.sealing))
	row("open MB/s", "%s", rate(r.bytesIn, r.opening))
	row("mismatches", "%d", r.mismatches)
	row("keys", "%d", r.keys)
	row("hits", "%d", r.hits)
	row("control hits", "%s", share(r.controlHits, r.samples))
	return t.Flush()
}

func overhead(in, disk int64) string {
	if in == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f %%", 100*float64(disk-in)/float64(in))
}

func rate(n int64, d time.Duration) string {
	if n == 0 || d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(n)/1e6/d.Seconds())
}

func share(n, of int) string {
	if of == 0 {
		return "- (no samples)"
	}
	return fmt.Sprintf("%d of %d", n, of)
}

// diskUsage adds up the sizes of all regular files under dir.
func diskUsage(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
