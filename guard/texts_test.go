package guard_test

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

var digests = regexp.MustCompile(`\b[0-9a-f]{16}\b`)

// testdata/texts shows every refusal as an operator reads it. The first word of
// a block names the check, what follows is its input.
func TestTexts(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths and modes are others")
	}
	checks := map[string]func(t *testing.T, d *datadriven.TestData) error{
		"encryption-off":  textOfEncryptionOff,
		"kek":             func(*testing.T, *datadriven.TestData) error { return guard.KEK(nil) },
		"unwrapped":       textOfUnwrapped,
		"filesystem":      func(*testing.T, *datadriven.TestData) error { return guard.Filesystem(noSyncDir{newFS()}, dir) },
		"sidecar":         textOfSidecar(sidecarErrs(t)),
		"members":         textOfMembers,
		"epoch-rollback":  textOfEpochRollback,
		"epoch-exhausted": textOfEpochExhausted,
		"keys-missing":    textOfKeysMissing,
		"behind-log":      textOfBehindLog,
		"divergence":      textOfDivergence,
		"view":            textOfView,
		"view-ahead": func(*testing.T, *datadriven.TestData) error {
			return guard.ViewAhead(7, "it has epoch 9, and that one 8")
		},
		"not-taken-over":  func(*testing.T, *datadriven.TestData) error { return guard.NotTakenOver("data/keys.json") },
		"not-generation1": textOfNotGeneration1,
	}
	datadriven.RunTest(t, "testdata/texts", func(t *testing.T, d *datadriven.TestData) string {
		if d.Cmd == "epoch-warning" {
			var id, epoch int
			d.ScanArgs(t, "key", &id)
			d.ScanArgs(t, "epoch", &epoch)
			text, _ := guard.EpochWarning(key.ID(id), uint16(epoch))
			return text
		}
		check, ok := checks[d.Cmd]
		if !ok {
			d.Fatalf(t, "no check %q", d.Cmd)
		}
		err := check(t, d)
		if err == nil {
			return "ok"
		}
		text := strings.ReplaceAll(err.Error(), fmt.Sprintf("process %d", os.Getpid()), "process PID")
		return digests.ReplaceAllString(text, "DIGEST")
	})
}

func textOfEncryptionOff(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	fsys := newFS()
	if d.HasArg("keys.json") {
		fsys, _ = withSidecar(t, newSet(t, kektest.New("kms:a")))
	}
	if d.HasArg("no-permission") {
		fsys.FailAt(0, os.ErrPermission, crashfs.NotDone)
	}
	return guard.EncryptionOff(fsys, dir)
}

// textOfView parses its input.
func textOfView(_ *testing.T, d *datadriven.TestData) error {
	_, err := generation1.Parse([]byte(d.Input))
	return guard.View(err)
}

func textOfNotGeneration1(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	fsys := newFS()
	if d.HasArg("keys.meta.json") {
		f, err := fsys.OpenFile(dir+"/"+guard.MetaName, os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
	}
	if d.HasArg("no-permission") {
		fsys.FailAt(0, os.ErrPermission, crashfs.NotDone)
	}
	return guard.NotGeneration1(fsys, dir)
}

// textOfUnwrapped has an argument for each key: its id, and what became of it.
func textOfUnwrapped(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var results []guard.Unwrap
	for _, arg := range d.CmdArgs {
		var id uint32
		if _, err := fmt.Sscan(arg.Key, &id); err != nil {
			d.Fatalf(t, "%v", err)
		}
		u := guard.Unwrap{ID: key.ID(id), Purpose: key.Storage}
		for _, word := range arg.Vals {
			switch word {
			case "active":
				u.Active = true
			case "raft":
				u.Purpose = key.Raft
			case "wrong":
				u.Err = unwrapErr(t, u.ID, nil)
			case "unreachable":
				u.Err = unwrapErr(t, u.ID, kek.ErrUnreachable)
			case "denied":
				u.Err = unwrapErr(t, u.ID, kek.ErrDenied)
			default:
				d.Fatalf(t, "no word %q", word)
			}
		}
		results = append(results, u)
	}
	return guard.Unwrapped(results)
}

func textOfSidecar(errs map[string]error) func(t *testing.T, d *datadriven.TestData) error {
	return func(t *testing.T, d *datadriven.TestData) error {
		err, ok := errs[strings.TrimSpace(d.Input)]
		if !ok {
			d.Fatalf(t, "no error %q", d.Input)
		}
		return guard.Sidecar(err)
	}
}

func textOfMembers(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var members []nodeid.Member
	for _, arg := range d.CmdArgs {
		var id uint64
		if _, err := fmt.Sscan(arg.Vals[0], &id); err != nil {
			d.Fatalf(t, "%v", err)
		}
		members = append(members, nodeid.Member{Name: arg.Key, ID: nodeid.ID(id)})
	}
	return guard.Members(members)
}

func textOfEpochExhausted(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var id, epoch int
	d.ScanArgs(t, "key", &id)
	d.ScanArgs(t, "epoch", &epoch)
	return guard.EpochExhausted(key.ID(id), uint16(epoch))
}

func textOfEpochRollback(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var own, node, epoch, last int
	d.ScanArgs(t, "own", &own)
	d.ScanArgs(t, "epoch", &epoch)
	d.ScanArgs(t, "row", &node, &last)
	return guard.EpochRollback(nodeid.ID(own), uint16(epoch), applier.Writer{Key: 7, Node: nodeid.ID(node), Last: uint16(last)})
}

func textOfKeysMissing(_ *testing.T, d *datadriven.TestData) error {
	return guard.KeysMissing(d.HasArg("keys"), d.HasArg("sealed"), "data/keys.json")
}

func textOfBehindLog(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var r guard.Range
	for name, to := range map[string]*uint64{
		"state": &r.State, "applied": &r.Applied, "first": &r.First, "through": &r.Through, "snapshot": &r.Snapshot,
	} {
		d.MaybeScanArgs(t, name, to)
	}
	return guard.BehindLog(r)
}

// textOfDivergence has two states: the cluster's first byte, and what was done in
// entries 2, 3 and so on, with - for nothing.
func textOfDivergence(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var states []*applier.State
	for _, arg := range d.CmdArgs {
		var cluster byte
		if _, err := fmt.Sscan(arg.Vals[0], &cluster); err != nil {
			d.Fatalf(t, "%v", err)
		}
		entries := []at{{1, bootstrap(t, cluster)}}
		for i, word := range arg.Vals[1:] {
			var e applier.Entry
			switch word {
			case "-":
				continue
			case "storage":
				e = applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 5, Epoch: 1}}
			case "raft":
				e = applier.EnableRaft{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 5, Epoch: 1}}
			case "key-7":
				e = rotation(t, 7, 0)
			case "key-8":
				e = rotation(t, 8, 0)
			default:
				d.Fatalf(t, "no word %q", word)
			}
			entries = append(entries, at{uint64(i) + 2, e})
		}
		states = append(states, state(t, entries...))
	}
	return guard.Divergence(states[0], states[1])
}
