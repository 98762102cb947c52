// Package bars shows how far a program has come.
package bars

import (
	"context"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// A Bar shows how far a phase has come.
type Bar interface {
	Add(n int)
	Done()
}

// A Start starts the bar of one phase of total bytes, -1 if nobody knows how many.
type Start func(ctx context.Context, phase string, total int64) Bar

// Terminal draws bars on a terminal and nothing elsewhere.
func Terminal(w *os.File) Start {
	visible := term.IsTerminal(int(w.Fd()))
	return func(_ context.Context, phase string, total int64) Bar {
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

// Add moves the bar.
func (t terminalBar) Add(n int) { _ = t.b.Add(n) }

// Done removes the bar.
func (t terminalBar) Done() { _ = t.b.Close() }

// Silent draws nothing anywhere.
func Silent(context.Context, string, int64) Bar { return silent{} }

type silent struct{}

// Add does nothing.
func (silent) Add(int) {}

// Done does nothing.
func (silent) Done() {}
