package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/atrestdb/atrest/examples/internal/bars"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key/insecurekey"
	"github.com/atrestdb/atrest/sidecar"
)

// A job is one run of the program.
type job struct {
	in, out, kek string
	seed         uint64
	stdout       io.Writer
	progress     bars.Start

	input    *input
	samples  []sample
	problems []string // what makes the verdict a bad one
	report   report
}

func (j *job) say(format string, args ...any) { fmt.Fprintf(j.stdout, format+"\n", args...) }

func (j *job) problem(format string, args ...any) {
	j.problems = append(j.problems, fmt.Sprintf(format, args...))
}

func (j *job) run(ctx context.Context) error {
	fresh := true
	var err error
	if j.out != "" {
		if fresh, err = isNew(j.out); err != nil {
			return err
		}
	}
	if j.in == "" && fresh {
		if j.in, err = defaultInput(ctx); err != nil {
			return err
		}
	}
	if j.in != "" {
		if err := j.readInput(ctx); err != nil {
			return err
		}
	}
	if fresh {
		err = j.fill(ctx)
	} else {
		j.say("out    %s, filled by an earlier run: it is verified, nothing is sealed", j.out)
	}
	if err != nil {
		return err
	}
	secrets, err := j.verify(ctx)
	if err != nil {
		return err
	}
	if err := j.search(ctx, secrets); err != nil {
		if len(j.problems) == 0 || ctx.Err() != nil {
			return err
		}
		j.problem("the search could not be finished: %v", err)
	}
	return j.verdict()
}

// readInput lists the input and draws the samples, before anything else is read
// from it.
func (j *job) readInput(ctx context.Context) (err error) {
	if j.input, err = readInput(ctx, j.in); err != nil {
		return err
	}
	if j.samples, err = j.input.samples(ctx, j.seed, sampleCount); err != nil {
		return fmt.Errorf("-in %s cannot be read: %w", j.in, err)
	}
	j.report.files, j.report.skipped, j.report.bytesIn = len(j.input.files), j.input.skipped, j.input.bytes
	j.report.samples = len(j.samples)
	j.say("in     %s: %d files, %d bytes", j.input.dir, len(j.input.files), j.input.bytes)
	if j.input.skipped > 0 {
		j.say("       skipped, because they are not regular files: %d", j.input.skipped)
	}
	return nil
}

// fill makes a store, seals the input into it and closes it.
func (j *job) fill(ctx context.Context) (err error) {
	if j.out == "" {
		if j.out, err = os.MkdirTemp("", "atrest-quickstart-"); err != nil {
			return fmt.Errorf("no temporary directory for -out: %w", err)
		}
		defer func() {
			if err != nil {
				os.Remove(j.out) //nolint:errcheck // It goes if nothing was written to it.
			}
		}()
		if j.kek == "" {
			j.kek = j.out + ".kek"
		}
	}
	if err := checkApart(j.input.dir, j.out, j.kek); err != nil {
		return err
	}
	made, err := ensureKEK(j.kek)
	if err != nil {
		return err
	}
	s, err := j.open(ctx)
	if err != nil {
		return err
	}
	j.say("out    %s", j.out)
	if made {
		j.say("kek    %s, made by this run", j.kek)
	}
	j.report.sealing, err = s.fill(ctx, j.input, j.progress)
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	j.say("sealed %d files, half of them under a second key", len(j.input.files))
	return nil
}

// open opens the store and says what may be done if it does not open.
func (j *job) open(ctx context.Context) (*store, error) {
	s, err := openStore(ctx, j.out, j.kek)
	var (
		locked *sidecar.LockedError
		source *kek.SourceError
	)
	switch {
	case errors.As(err, &source):
		return nil, fmt.Errorf("-kek %s cannot be used: %w", j.kek, reason(source.Err))
	case errors.As(err, &locked):
		return nil, fmt.Errorf("-out %s is in use by process %d", j.out, locked.PID)
	case errors.Is(err, guard.ErrKEKMismatch):
		return nil, fmt.Errorf("-kek %s is not the key that -out %s was sealed under", j.kek, j.out)
	case errors.Is(err, guard.ErrOtherNode):
		return nil, fmt.Errorf("-out %s is the store of another program, or of another version of this one, so nothing was written there", j.out)
	case err != nil:
		return nil, fmt.Errorf("-out %s cannot be opened: %w", j.out, err)
	}
	return s, nil
}

// verify opens the store from what lies on disk, reads all of it back and
// returns its keys as patterns to search for.
func (j *job) verify(ctx context.Context) (secrets []pattern, err error) {
	s, err := j.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	m, err := s.manifest()
	if err != nil {
		j.problem("%v", err)
	}
	if j.input == nil {
		if j.in = m.Source; j.in == "" {
			return nil, fmt.Errorf("-out %s does not say what it was filled from, so -in is needed", j.out)
		}
		if err := j.readInput(ctx); err != nil {
			return nil, err
		}
	}
	if err := checkApart(j.input.dir, j.out, j.kek); err != nil {
		return nil, err
	}
	c, err := s.compare(ctx, j.input, j.progress)
	if err != nil {
		return nil, err
	}
	j.judge(m, c)
	return j.secrets(ctx, s)
}

func (j *job) judge(m manifest, c *comparison) {
	j.report.opening = c.opening
	j.problems = append(j.problems, c.different...)
	if !m.Complete {
		j.problem("the run that filled -out did not finish: %d of %d files are in it; remove it and start again", c.stored, len(j.input.files))
	} else {
		for _, path := range c.missing {
			j.problem("%q is in the input and not in the store", path)
		}
		if c.stored != m.Files {
			j.problem("the store holds %d files, and its manifest says %d", c.stored, m.Files)
		}
	}
	j.report.mismatches = len(j.problems)
	j.say("opened everything again and read it back: %d of %d files are equal", c.equal, len(j.input.files))
}

// secrets returns the forms of the KEK and of every DEK.
func (j *job) secrets(ctx context.Context, s *store) ([]pattern, error) {
	raw, err := os.ReadFile(j.kek)
	if err != nil {
		return nil, err
	}
	ps := keyPatterns("the KEK", raw)
	for k := range s.keys.Node().State().Keys() {
		_, dek, err := s.kek.UnwrapDEK(ctx, k.Container)
		if err != nil {
			return nil, err
		}
		ps = append(ps, keyPatterns("DEK "+k.ID.String(), insecurekey.Bytes(dek))...)
		j.report.keys++
	}
	return ps, nil
}

// search looks for the samples and the keys in all of -out, and for the samples
// in an unsealed copy.
func (j *job) search(ctx context.Context, secrets []pattern) error {
	var err error
	if j.report.bytesOnDisk, err = diskUsage(j.out); err != nil {
		return err
	}
	patterns := append(samplePatterns(j.samples), secrets...)
	s := newSearcher(patterns)
	hits, err := s.searchDir(ctx, j.out, j.report.bytesOnDisk, "searching", j.progress)
	if err != nil {
		return err
	}
	for _, h := range hits {
		j.problem("%s lies in clear in %s at %d", patterns[h.pattern].name, h.path, h.at)
	}
	j.report.hits = len(hits)
	j.say("searched every file under -out for %d samples (-seed %d), the KEK and %d DEKs: %d hits", len(j.samples), j.seed, j.report.keys, len(hits))
	if len(j.samples) == 0 {
		j.say("no sample could be taken from so small an input: the search was for the keys alone and has no control")
		return nil
	}
	if j.report.controlHits, err = j.control(ctx, newSearcher(samplePatterns(j.samples))); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	j.say("control: the same search over an unsealed copy found %d of %d", j.report.controlHits, len(j.samples))
	if 10*j.report.controlHits < 9*len(j.samples) {
		j.problem("the control failed: the search finds too little of what lies in clear to prove anything")
	}
	return nil
}

// control counts the patterns that the search finds in a database with the same
// files unsealed, which is removed again.
func (j *job) control(ctx context.Context, s *searcher) (found int, err error) {
	dir, err := os.MkdirTemp("", "atrest-quickstart-control-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := openPebble(dir, func() error { return os.RemoveAll(dir) })
	if err != nil {
		return 0, err
	}
	err = copyFiles(ctx, j.input, db, j.progress, "control", func(_ int, _ string, data []byte) ([]byte, error) { return data, nil })
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	size, err := diskUsage(dir)
	if err != nil {
		return 0, err
	}
	hits, err := s.searchDir(ctx, dir, size, "searching", j.progress)
	return len(hits), err
}

// verdict says what is wrong and ends with the table.
func (j *job) verdict() error {
	const most = 10
	for i, p := range j.problems {
		if i == most {
			j.say("and %d more", len(j.problems)-most)
			break
		}
		j.say("WRONG: %s", p)
	}
	j.say("")
	if err := j.report.table(j.stdout); err != nil {
		return err
	}
	switch n := len(j.problems); n {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %s", errFailed, j.problems[0])
	default:
		return fmt.Errorf("%w: %s (and %d more)", errFailed, j.problems[0], n-1)
	}
}
