package main

import (
	"context"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A bar shows how far a phase has come.
type bar interface {
	add(n int)
	done()
}

// A progress starts the bar of one phase of total bytes.
type progress func(ctx context.Context, phase string, total int64) bar

// terminalProgress draws bars on a terminal and nothing elsewhere.
func terminalProgress(w *os.File) progress {
	visible := term.IsTerminal(int(w.Fd()))
	return func(_ context.Context, phase string, total int64) bar {
		return terminalBar{progressbar.NewOptions64(
			total,
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetVisibility(visible),
			progressbar.OptionSetDescription(phase),
			progressbar.OptionShowBytes(true),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)}
	}
}

// A terminalBar leaves out what a program cannot help: a bar that is not drawn.
type terminalBar struct{ b *progressbar.ProgressBar }

func (t terminalBar) add(n int) { _ = t.b.Add(n) }
func (t terminalBar) done()     { _ = t.b.Close() }
