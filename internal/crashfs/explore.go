package crashfs

import (
	"errors"
	"fmt"
)

// Outcome says what happened to an operation before a check sees the file
// system.
type Outcome struct {
	Form Form // the fault, or None
	At   int  // the number of the file system operation it struck, from 0
	Op   Op   // that operation
	// Returned says that the process lived to see the result, Err.
	Returned bool
	Err      error
	// Ops is what was asked of the file system.
	Ops []Op
	// Loss says what survived a power loss, and is empty if there was none: then
	// the file system is as the next process finds it on a machine that runs on.
	Loss string
}

// Acknowledged reports whether the operation said that all is well.
func (o Outcome) Acknowledged() bool { return o.Returned && o.Err == nil }

// Tried reports whether an operation of a kind was asked for.
func (o Outcome) Tried(kind Kind) bool {
	for _, op := range o.Ops {
		if op.Kind == kind {
			return true
		}
	}
	return false
}

// String describes the outcome on one line.
func (o Outcome) String() string {
	text := "no fault"
	if o.Form != None {
		text = fmt.Sprintf("%s at operation %d, %s", o.Form, o.At, o.Op)
	}
	if o.Returned {
		text += fmt.Sprintf("; returned %v", o.Err)
	}
	if o.Loss != "" {
		text += "; power loss: " + o.Loss
	}
	return text
}

// Scenario is an operation to try at every instant. Each trial runs Setup on an
// empty file system, makes the result durable, and runs Op; what Setup leaves in
// variables is Op's to use. Check gets a file system of its own each time. Op
// must ask the same of the file system each time, but for names. It should
// write no more than a few blocks: the number of states grows with them.
type Scenario struct {
	Setup func(*FS) error
	Op    func(*FS) error
	Check func(*FS, Outcome) error
	// Limit is the number of combinations up to which all subsets of what is
	// not durable are tried at each instant; see [FS.PowerLosses]. 0 is 256.
	Limit int
	// Seed chooses among the subsets where there are more.
	Seed uint64
}

// Report counts what a scenario tried.
type Report struct {
	Ops    int // operations of the file system in a run without fault
	Points int // faults tried: places times forms
	States int // file systems checked
}

// String is the report on one line.
func (r Report) String() string {
	return fmt.Sprintf("%d operations, %d faults, %d states checked", r.Ops, r.Points, r.States)
}

// maxFailures is how many failed checks are reported.
const maxFailures = 10

var (
	errEnough   = errors.New("crashfs: stopped after that many failures")
	errChanging = errors.New("crashfs: the operation does not ask the same each time")
)

// TB is what [Explore] needs of a testing.TB.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Explore runs a scenario with the usual limits, logs what was tried and fails
// the test if any check failed or anything was left untried.
func Explore(t TB, setup, op func(*FS) error, check func(*FS, Outcome) error) Report {
	t.Helper()
	report, err := Scenario{Setup: setup, Op: op, Check: check}.Run()
	t.Logf("crashfs: %v", report)
	if err != nil {
		t.Errorf("%v", err)
	}
	return report
}

// Run tries the scenario. The error joins what failed.
func (s Scenario) Run() (Report, error) {
	if s.Limit == 0 {
		s.Limit = 256
	}
	r := &run{Scenario: s}
	err := r.all()
	return r.report, errors.Join(append(r.failures, err)...)
}

type run struct {
	Scenario
	report   Report
	failures []error
}

// all tries each recorded operation and then one more, which must not be there:
// an operation that was recorded and not tried, or the other way round, is an
// error.
func (r *run) all() error {
	recorded, err := r.record()
	if err != nil {
		return err
	}
	r.report.Ops = len(recorded)
	for k := range recorded {
		if struck, err := r.point(k, recorded[k]); err != nil {
			return err
		} else if !struck {
			return fmt.Errorf("%w: %d operations recorded, %d tried", errChanging, len(recorded), k)
		}
	}
	if struck, err := r.point(len(recorded), Op{}); err != nil || struck {
		return errors.Join(err, fmt.Errorf("%w: more than the %d recorded operations", errChanging, len(recorded)))
	}
	return nil
}

// record runs the operation without a fault.
func (r *run) record() ([]Op, error) {
	f, err := r.start(0, None)
	if err != nil {
		return nil, err
	}
	if err := r.Op(f); err != nil {
		return nil, fmt.Errorf("crashfs: the operation fails without a fault: %w", err)
	}
	ops := f.Ops()
	return ops, r.checkAll(f, Outcome{Form: None, At: len(ops), Returned: true, Ops: ops})
}

func (r *run) start(k int, form Form) (*FS, error) {
	f := New()
	if err := r.Setup(f); err != nil {
		return nil, fmt.Errorf("crashfs: setup: %w", err)
	}
	f.SyncAll()
	f.FailAt(k, nil, form)
	return f, nil
}

// point tries every form at operation k and reports whether there was one.
func (r *run) point(k int, op Op) (bool, error) {
	for form := NotDone; form <= PowerLoss; form++ {
		if !form.Applies(op) {
			continue
		}
		f, err := r.start(k, form)
		if err != nil {
			return false, err
		}
		opErr := r.Op(f)
		if !f.Fired() {
			return false, nil
		}
		r.report.Points++
		o := Outcome{Form: form, At: k, Op: f.Ops()[k], Ops: f.Ops(), Returned: !form.ends()}
		if o.Op.Kind != op.Kind {
			return false, fmt.Errorf("%w: operation %d is %q, recorded was %q", errChanging, k, o.Op, op)
		}
		if o.Returned {
			o.Err = opErr
		}
		if err := r.checkAll(f, o); err != nil {
			return false, err
		}
	}
	return true, nil
}

// checkAll checks what the next process finds: on a machine that runs on, unless
// it is the machine that failed, and after a power loss, unless only the process
// was killed. Power loss right after a kill leaves no more than a power loss
// instead of it.
func (r *run) checkAll(f *FS, o Outcome) error {
	if o.Form != PowerLoss {
		if err := r.check(f.Restart(), o); err != nil {
			return err
		}
	}
	if o.Form == Kill {
		return nil
	}
	for loss, after := range f.PowerLosses(r.Limit, r.Seed+uint64(o.At)) {
		o.Loss = loss
		if err := r.check(after, o); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) check(f *FS, o Outcome) error {
	r.report.States++
	if err := r.Check(f, o); err != nil {
		r.failures = append(r.failures, fmt.Errorf("%v: %w", o, err))
	}
	if len(r.failures) >= maxFailures {
		return errEnough
	}
	return nil
}
