package crashfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

const target = "data/f"

// Each spans two blocks, so that a torn file is neither.
var (
	oldData = bytes.Repeat([]byte("old "), 200)
	newData = bytes.Repeat([]byte("NEW!"), 210)
)

// steps are the parts of a replacement; the defaults are right.
type steps struct {
	temp       string
	flag       int
	noSync     bool
	syncTwice  bool
	noRename   bool
	noSyncDir  bool
	early      bool // rename before sync
	ignore     bool // go on after errors
	definitely bool // claim the old file after an unknown outcome
	removeOld  bool // remove the old file before the rename
}

func (s steps) replace(fsys *crashfs.FS) error {
	if s.temp == "" {
		s.temp = "data/f.tmp"
	}
	if s.flag == 0 {
		s.flag = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	var first error
	failed := func(err error) bool {
		if err != nil && first == nil && !s.ignore {
			first = err
		}
		return first != nil
	}
	f, err := fsys.OpenFile(s.temp, s.flag, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(newData); failed(err) {
		return first
	}
	if s.early && failed(fsys.Rename(s.temp, target)) {
		return s.unknown(first)
	}
	if !s.noSync {
		err := f.Sync()
		if err != nil && s.syncTwice {
			err = f.Sync()
		}
		if failed(err) {
			return first
		}
	}
	if failed(f.Close()) {
		return first
	}
	if s.removeOld && failed(fsys.Remove(target)) {
		return first
	}
	if !s.noRename && !s.early && failed(fsys.Rename(s.temp, target)) {
		return s.unknown(first)
	}
	if !s.noSyncDir && failed(fsys.SyncDir("data")) {
		return s.unknown(first)
	}
	return nil
}

func (s steps) unknown(err error) error {
	if s.definitely {
		return err
	}
	return &durable.UnknownOutcomeError{Path: target, Err: err}
}

func setup(f *crashfs.FS) error {
	f.Mkdir("data")
	return durable.WriteFile(f, target, oldData)
}

// checkReplace holds a replacement to its promise.
func checkReplace(f *crashfs.FS, o crashfs.Outcome) error {
	h, err := f.OpenFile(target, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(h)
	if err != nil {
		return err
	}
	isOld, isNew := bytes.Equal(got, oldData), bytes.Equal(got, newData)
	switch {
	case !isOld && !isNew:
		return fmt.Errorf("neither old nor new: %d bytes %.8q", len(got), got)
	case o.Acknowledged() && !isNew:
		return errors.New("an acknowledged write is lost")
	case o.Returned && o.Err != nil && !errors.Is(o.Err, durable.ErrOutcomeUnknown) && !isOld:
		return errors.New("a write that failed took place")
	}
	return nil
}

// log is a TB that keeps what it is told.
type log struct{ logged, failed []string }

func (l *log) Helper() {}
func (l *log) Logf(format string, args ...any) {
	l.logged = append(l.logged, fmt.Sprintf(format, args...))
}

func (l *log) Errorf(format string, args ...any) {
	l.failed = append(l.failed, fmt.Sprintf(format, args...))
}

func TestExploreAcceptsTheRightWay(t *testing.T) {
	var l log
	report := crashfs.Explore(&l, setup, steps{}.replace, checkReplace)
	require.Empty(t, l.failed)
	require.Equal(t, []string{"crashfs: " + report.String()}, l.logged)
	require.Equal(t, 6, report.Ops) // create, write, sync, close, rename, syncdir
	// 6 times not done and broken; all but close also done, kill and power loss;
	// all have room to need; the write can be short.
	require.Equal(t, 6*2+5*3+6+1, report.Points)
	require.Greater(t, report.States, 150)
}

func TestExploreCatches(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps steps
		want  string
	}{
		{"no sync of the file", steps{noSync: true}, "neither old nor new"},
		{"no sync of the directory", steps{noSyncDir: true}, "an acknowledged write is lost"},
		{"rename before the sync", steps{early: true}, "neither old nor new"},
		{"a second sync after a failed one", steps{syncTwice: true}, "neither old nor new"},
		{"writing in place", steps{temp: target, noRename: true}, "neither old nor new"},
		{"writing in place without emptying", steps{temp: target, noRename: true, flag: os.O_WRONLY}, "neither old nor new"},
		{"errors passed over", steps{ignore: true}, "neither old nor new"},
		{"a failed rename taken for not done", steps{definitely: true}, "a write that failed took place"},
		{"the old file removed first", steps{removeOld: true}, "file does not exist"},
		{"no rename at all", steps{noRename: true}, "an acknowledged write is lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l log
			crashfs.Explore(&l, setup, tt.steps.replace, checkReplace)
			require.Len(t, l.failed, 1)
			assert.Contains(t, l.failed[0], tt.want)
		})
	}
}

// Which faults show a mistake, each of the mistakes alone.
func TestFormsThatCatch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps steps
		want  []crashfs.Form
	}{
		{"right", steps{}, nil},
		{"no sync of the directory", steps{noSyncDir: true}, []crashfs.Form{crashfs.None}},
		{"a second sync after a failed one", steps{syncTwice: true}, []crashfs.Form{crashfs.NotDone, crashfs.NoSpace}},
		{"a failed rename taken for not done", steps{definitely: true}, []crashfs.Form{crashfs.NotDone, crashfs.ButDone, crashfs.NoSpace, crashfs.Broken}},
		{"emptying in place, before anything else fails", steps{temp: target, noRename: true}, []crashfs.Form{
			crashfs.NotDone, crashfs.ButDone, crashfs.ShortWrite, crashfs.NoSpace, crashfs.Broken, crashfs.Kill, crashfs.PowerLoss,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var forms []crashfs.Form
			_, err := crashfs.Scenario{Setup: setup, Op: tt.steps.replace, Check: func(f *crashfs.FS, o crashfs.Outcome) error {
				if checkReplace(f, o) != nil && !slices.Contains(forms, o.Form) {
					forms = append(forms, o.Form)
				}
				return nil
			}}.Run()
			require.NoError(t, err)
			slices.Sort(forms)
			assert.Equal(t, tt.want, forms)
		})
	}
}

func TestExploreNoticesWhatItHasNotTried(t *testing.T) {
	runs := 0
	varying := func(more func(run int) bool) func(*crashfs.FS) error {
		runs = 0
		return func(f *crashfs.FS) error {
			runs++
			if more(runs) {
				if err := f.SyncDir("data"); err != nil {
					return err
				}
			}
			return steps{}.replace(f)
		}
	}
	pass := func(*crashfs.FS, crashfs.Outcome) error { return nil }
	for _, tt := range []struct {
		name string
		more func(run int) bool
		want string
	}{
		{"more in the recording run", func(run int) bool { return run == 1 }, "recorded was"},
		{"more later", func(run int) bool { return run > 1 }, "recorded was"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := crashfs.Scenario{Setup: setup, Op: varying(tt.more), Check: pass}.Run()
			require.ErrorContains(t, err, tt.want)
		})
	}
	t.Run("fewer at the end", func(t *testing.T) {
		n := 0
		op := func(f *crashfs.FS) error {
			n++
			for range 3 - min(n, 2) {
				if err := f.SyncDir("data"); err != nil {
					return err
				}
			}
			return nil
		}
		_, err := crashfs.Scenario{Setup: setup, Op: op, Check: pass}.Run()
		require.ErrorContains(t, err, "2 operations recorded, 1 tried")
	})
	t.Run("more at the end", func(t *testing.T) {
		n := 0
		op := func(f *crashfs.FS) error {
			n++
			for range min(n, 2) {
				if err := f.SyncDir("data"); err != nil {
					return err
				}
			}
			return nil
		}
		_, err := crashfs.Scenario{Setup: setup, Op: op, Check: pass}.Run()
		require.ErrorContains(t, err, "more than the 1 recorded")
	})
}

func TestScenarioErrors(t *testing.T) {
	boom := errors.New("boom")
	fail := func(*crashfs.FS) error { return boom }
	pass := func(*crashfs.FS, crashfs.Outcome) error { return nil }
	_, err := crashfs.Scenario{Setup: fail, Op: steps{}.replace, Check: pass}.Run()
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "setup")
	_, err = crashfs.Scenario{Setup: setup, Op: fail, Check: pass}.Run()
	require.ErrorIs(t, err, boom)
	require.ErrorContains(t, err, "without a fault")
	report, err := crashfs.Scenario{Setup: setup, Op: steps{}.replace, Check: func(*crashfs.FS, crashfs.Outcome) error { return boom }}.Run()
	require.ErrorIs(t, err, boom)
	require.Equal(t, 10, strings.Count(err.Error(), "boom"), "it stops after ten")
	require.Equal(t, 10, report.States)
}

func TestOutcomeString(t *testing.T) {
	op := crashfs.Op{Kind: crashfs.KindSync, Path: "f"}
	for want, o := range map[string]crashfs.Outcome{
		"no fault; returned <nil>":                                         {Returned: true},
		"error, not done at operation 2, sync f; returned EOF":             {Form: crashfs.NotDone, At: 2, Op: op, Returned: true, Err: io.EOF},
		"power loss at operation 2, sync f; power loss: nothing survived!": {Form: crashfs.PowerLoss, At: 2, Op: op, Loss: "nothing survived!"},
	} {
		assert.Equal(t, want, o.String())
	}
}

func ExampleExplore() {
	t := &log{} // a *testing.T in a test
	report := crashfs.Explore(t,
		func(f *crashfs.FS) error { return durable.WriteFile(f, "f", []byte("old")) },
		func(f *crashfs.FS) error { return durable.WriteFile(f, "f", []byte("new")) },
		func(f *crashfs.FS, o crashfs.Outcome) error {
			got, _, err := durable.ReadFile(f, "f", 100)
			if err == nil && o.Acknowledged() && string(got) != "new" {
				err = errors.New("lost")
			}
			return err
		})
	fmt.Println(report.Ops, "operations,", len(t.failed), "failures")
	// Output: 6 operations, 0 failures
}
