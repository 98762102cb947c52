package applier_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// states has some of each kind.
func states(t testing.TB) map[string]*applier.State {
	t.Helper()
	full := []applier.Entry{
		boot(applier.WriterRow{Key: 1, Node: 11}, applier.WriterRow{Key: 2, Node: 12, Epoch: 4}),
		applier.EnableStorage{Key: 1, Proposer: applier.WriterRow{Key: 1, Node: 11}},
		registration(1, 11, 1, 9), rotation(3, key.Storage),
		applier.Stop{Key: 1},
		applier.EnableRaft{Key: 2, Proposer: applier.WriterRow{Key: 2, Node: 12}},
		applier.WriterGone{Node: 1 << 60},
		applier.BackupAdd{Backup: applier.BackupID{7}, Keys: []key.ID{2, 3}},
		applier.Rewrap{Keys: []applier.WrappedKey{{ID: 3, Wrap: container(cluster, 3, key.Storage, "again")}}},
		applier.Destroy{Key: 1, Stopped: 50, Members: []nodeid.ID{11}, Evidence: evidence(50, 11)},
	}
	all := history(t, full...)
	return map[string]*applier.State{
		"before any entry": applier.New(applier.Generation2),
		"bootstrapped":     history(t, boot()),
		"everything":       all,
		"imported":         imported(t, all),
	}
}

// Both forms of some states, for other implementations.
func TestForms(t *testing.T) {
	type vector struct {
		Name     string          `json:"name"`
		Snapshot hexBytes        `json:"snapshot"`
		State    json.RawMessage `json:"state"`
	}
	var file struct {
		About   string   `json:"about"`
		Vectors []vector `json:"vectors"`
	}
	const name = "states.json"
	names := []string{"before any entry", "bootstrapped", "everything", "imported"}
	all := states(t)
	if *update {
		file.About = "the binary form of a key state, and the same state in its readable form, which has no white space in it"
		for _, n := range names {
			file.Vectors = append(file.Vectors, vector{n, all[n].AppendSnapshot(nil), all[n].AppendJSON(nil)})
		}
		text, err := json.MarshalIndent(file, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("testdata/"+name, append(text, '\n'), 0o600))
	}
	readJSON(t, name, &file)
	require.Len(t, file.Vectors, len(names))
	for _, v := range file.Vectors {
		want := all[v.Name]
		require.Equal(t, []byte(v.Snapshot), want.AppendSnapshot(nil), v.Name)
		s, err := applier.ParseSnapshot(v.Snapshot)
		require.NoError(t, err, v.Name)
		require.True(t, s.Equal(want))
		var text bytes.Buffer
		require.NoError(t, json.Compact(&text, v.State))
		require.Equal(t, text.String(), string(want.AppendJSON(nil)), v.Name)
		s, err = applier.ParseJSON(text.Bytes())
		require.NoError(t, err, v.Name)
		require.True(t, s.Equal(want))
		requireForms(t, want)
	}
}

// Cut short, made longer or with a byte changed, a form is refused or is that of another
// state; it never panics.
func TestChangedForms(t *testing.T) {
	s := states(t)["everything"]
	b := s.AppendSnapshot(nil)
	for n := range b {
		got, err := applier.ParseSnapshot(b[:n])
		require.ErrorIs(t, err, applier.ErrForm)
		require.Nil(t, got)
	}
	got, err := applier.ParseSnapshot(append(bytes.Clone(b), 0))
	require.ErrorIs(t, err, applier.ErrForm)
	require.Nil(t, got)
	for i := range b {
		for bit := range 8 {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << bit
			if got, err := applier.ParseSnapshot(changed); err == nil {
				require.False(t, got.Equal(s), "byte %d", i)
				require.Equal(t, changed, got.AppendSnapshot(nil), "byte %d", i)
			} else {
				require.ErrorIs(t, err, applier.ErrForm)
			}
		}
	}
}

func TestJSONRefuses(t *testing.T) {
	text := string(states(t)["everything"].AppendJSON(nil))
	edit := func(old, with string) string {
		require.Contains(t, text, old)
		return strings.Replace(text, old, with, 1)
	}
	for name, bad := range map[string]string{
		"nothing":              "",
		"another value":        "7",
		"cut":                  text[:len(text)-1],
		"white space":          " " + text,
		"something behind it":  text + "{}",
		"unknown member":       edit(`"index":`, `"indexx":1,"index":`),
		"member twice":         edit(`"index":100`, `"index":100,"index":100`),
		"other case":           edit(`"index":100`, `"Index":100`),
		"generation 3":         edit(`"generation":2`, `"generation":3`),
		"generation 1":         edit(`"generation":2`, `"generation":1`),
		"index too low":        edit(`"index":100`, `"index":99`),
		"another cluster":      edit(`"cluster":"61`, `"cluster":"62`),
		"two active keys":      edit(`"state":"destroyed"`, `"state":"active"`),
		"no active key":        edit(`"state":"active"`, `"state":"open-only"`),
		"stopped, not said":    edit(`"stopped":50,`, ``),
		"unknown state":        edit(`"state":"active"`, `"state":"lost"`),
		"row of another form":  edit(`"11 0 0"`, `"11 0"`),
		"row of an epoch":      edit(`"11 0 0"`, `"11 0 65536"`),
		"row with a backwards": edit(`"11 0 0"`, `"11 2 1"`),
		"rows of no key":       edit(`"writers":{`, `"writers":{"99":["1 0 0"],`),
		"rows of a dead key":   edit(`"writers":{`, `"writers":{"1":["1 0 0"],`),
		"backup of no key":     edit(`"keys":[2,3]`, `"keys":[2,9]`),
		"backup out of order":  edit(`"keys":[2,3]`, `"keys":[3,2]`),
		"gone as a number":     edit(`"gone":["1152921504606846976"]`, `"gone":[1152921504606846976]`),
		"cutover from later":   edit(`"raft_cutover":{"index":60}`, `"raft_cutover":{"index":101}`),
	} {
		s, err := applier.ParseJSON([]byte(bad))
		require.ErrorIs(t, err, applier.ErrForm, name)
		require.Nil(t, s, name)
	}
}

// A rapid history: both forms of whatever entries lead to parse to it.
func TestFormsOfAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModelRun()
		for i := range rapid.IntRange(1, 40).Draw(rt, "length") {
			m.step(rt, uint64(i+1))
		}
		requireForms(t, m.state)
	})
}

func fuzzForm(f *testing.F, appendForm func(*applier.State, []byte) []byte, parse func([]byte) (*applier.State, error)) {
	f.Helper()
	for _, s := range states(f) {
		f.Add(appendForm(s, nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s *applier.State
		var err error
		allocated := bytesAllocated(func() { s, err = parse(b) })
		if limit := uint64(1<<20 + 16*len(b)); allocated > limit {
			t.Fatalf("%d bytes allocated for %d", allocated, len(b))
		}
		if err != nil {
			if s != nil {
				t.Fatal("an error and a state")
			}
			return
		}
		if again := appendForm(s, nil); !bytes.Equal(again, b) {
			t.Fatalf("%q, want %q", again, b)
		}
	})
}

// What parses is written with the same bytes; what does not is nothing at all.
func FuzzParseSnapshot(f *testing.F) {
	fuzzForm(f, (*applier.State).AppendSnapshot, applier.ParseSnapshot)
}

// The same for the readable form.
func FuzzParseJSON(f *testing.F) { fuzzForm(f, (*applier.State).AppendJSON, applier.ParseJSON) }
