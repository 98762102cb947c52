package sidecar_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/sidecar"
)

// The parser sees no MAC, so each of these is refused by itself.
func TestStrictParsing(t *testing.T) {
	data := golden(t)
	text := string(data)
	again, err := sidecar.Parse(data)
	require.NoError(t, err)
	require.Equal(t, text, string(again))

	const (
		nodeID   = `"full_node_id": "81985529216486895"`
		epoch7   = "\n      \"7\": 3,"
		epoch9   = "\n      \"9\": 1,"
		epochs   = "\"epochs\": {\n      \"7\": 3,\n      \"9\": 1,\n      \"10\": 65535\n    }"
		seals    = `"seals": 1048576`
		usage    = "{\n        \"seals\": 1048576,\n        \"bytes\": 17179869184\n      }"
		zero     = "{\n        \"seals\": 0,\n        \"bytes\": 0\n      }"
		through  = ",\n    \"through\": 4711"
		active   = "\"active\": {\n      \"storage\": 7\n    }"
		none     = `"none": []`
		version3 = "{\n  \"version\": 3,\n"
	)
	mac := text[len(text)-len("\"\n}\n")-64:][:64]
	for _, tt := range []struct{ name, old, new string }{
		{"unknown member, first", version3, version3 + "  \"more\": 1,\n"},
		{"unknown member, last", "\"\n}\n", "\",\n  \"more\": 1\n}\n"},
		{"unknown member of node", epoch7, "\n      \"x\": 3," + epoch7},
		{"duplicate member", `  "state": `, "  \"state\": null,\n  \"state\": "},
		{"duplicate version", version3, version3 + "  \"version\": 3,\n"},
		{"duplicate key id", epoch7, epoch7 + epoch7},
		{"key ids in another order", epoch7 + epoch9, epoch9 + epoch7},
		{"key ids in the order of text", epoch7 + epoch9 + "\n      \"10\": 65535", "\n      \"10\": 65535," + epoch7 + strings.TrimSuffix(epoch9, ",")},
		{"another case", `"state"`, `"State"`},
		{"another case of version", `"version"`, `"Version"`},
		{"an escape in a name", `"mac"`, `"\u006dac"`},
		{"a member missing", "  \"version\": 3,\n", ""},
		{"an empty table with a line", epochs, "\"epochs\": {\n    }"},
		{"a table that is null", epochs, `"epochs": null`},
		{"leading zero in a key id", `"7": 3`, `"07": 3`},
		{"sign in a key id", `"7": 3`, `"+7": 3`},
		{"key id 0", epoch7, "\n      \"0\": 3,"},
		{"key id of 2^32", `"4294967295"`, `"4294967296"`},
		{"key id without digits", `"7": 3`, `"": 3`},
		{"leading zero in an epoch", `"7": 3`, `"7": 03`},
		{"epoch 0", `"7": 3`, `"7": 0`},
		{"epoch of 2^16", `"10": 65535`, `"10": 65536`},
		{"epoch below 0", `"7": 3`, `"7": -3`},
		{"epoch with a fraction", `"7": 3`, `"7": 3.0`},
		{"epoch with an exponent", `"7": 3`, `"7": 3e0`},
		{"epoch in quotes", `"7": 3`, `"7": "3"`},
		{"epoch null", `"7": 3`, `"7": null`},
		{"no epoch", `"7": 3`, `"7": `},
		{"usage of 2^64", `"bytes": 18446744073709551615`, `"bytes": 18446744073709551616`},
		{"usage of 21 digits", `"bytes": 18446744073709551615`, `"bytes": 100000000000000000000`},
		{"leading zero in usage", seals, `"seals": 01048576`},
		{"usage of nothing", usage, zero},
		{"usage in another order", usage, "{\n        \"bytes\": 17179869184,\n        \"seals\": 1048576\n      }"},
		{"usage without seals", usage, "{\n        \"bytes\": 17179869184\n      }"},
		{"usage on one line", usage, `{"seals": 1048576, "bytes": 17179869184}`},
		{"through missing", through, ""},
		{"through null", through, ",\n    \"through\": null"},
		{"through in quotes", through, ",\n    \"through\": \"4711\""},
		{"through without digits", through, ",\n    \"through\": "},
		{"through below 0", through, ",\n    \"through\": -1"},
		{"through with a fraction", through, ",\n    \"through\": 4711.0"},
		{"through with a leading zero", through, ",\n    \"through\": 04711"},
		{"through of 2^64", through, ",\n    \"through\": 18446744073709551616"},
		{"through twice", through, through + through},
		{"through before reserved", ",\n    \"reserved\"", through + ",\n    \"reserved\""},
		{"node id 0", nodeID, `"full_node_id": "0"`},
		{"node id without quotes", nodeID, `"full_node_id": 81985529216486895`},
		{"node id with a leading zero", nodeID, `"full_node_id": "081985529216486895"`},
		{"node id of 2^64", nodeID, `"full_node_id": "18446744073709551616"`},
		{"base64 without padding", `7w=="`, `7w"`},
		{"base64 with more padding", `7w=="`, `7w==="`},
		{"base64 with bits left over", `7w=="`, `7x=="`},
		{"base64 cut short", `"file_key": "p`, `"file_key": "`},
		{"base64 of URLs", `"file_key": "p0`, `"file_key": "p_`},
		{"a line break in base64", `"file_key": "`, "\"file_key\": \"\n"},
		{"an escaped line break in base64", `"file_key": "`, `"file_key": "\n`},
		{"state: missing", "\"state\": {", "\"state\": ,{"},
		{"state: space in a list", none, `"none": [ ]`},
		{"state: line break in a list", none, "\"none\": [\n    ]"},
		{"state: on one line", active, `"active": {"storage": 7}`},
		{"state: two spaces", `"storage": 7`, `"storage":  7`},
		{"state: no space", `"storage": 7`, `"storage":7`},
		{"state: tab", "\n      \"storage\"", "\n\t\t\t\"storage\""},
		{"state: carriage return", "\n      \"storage\"", "\r\n      \"storage\""},
		{"state: comma at the end", none, none + ","},
		{"state: leading zero", `"storage": 7`, `"storage": 07`},
		{"state: word", `"storage": 7`, `"storage": seven`},
		{"state: not UTF-8", `"storage"`, "\"stor\xffage\""},
		{"state: control character", `"storage"`, "\"stor\x01age\""},
		{"MAC in capitals", mac, strings.ToUpper(mac)},
		{"MAC too short", mac, mac[1:]},
		{"MAC too long", mac, mac + "0"},
		{"MAC not hexadecimal", mac, mac[1:] + "g"},
		{"no MAC", `"mac": "` + mac + `"`, `"mac": ""`},
		{"MAC null", `"mac": "` + mac + `"`, `"mac": null`},
		{"no line at the end", "}\n", "}"},
		{"two lines at the end", "\"\n}\n", "\"\n}\n\n"},
		{"a space at the end", "\"\n}\n", "\"\n} \n"},
		{"a second object", "\"\n}\n", "\"\n}\n{}\n"},
		{"a NUL at the end", "\"\n}\n", "\"\n}\n\x00"},
		{"a byte order mark", version3, "\xef\xbb\xbf" + version3},
		{"a space before", version3, " " + version3},
		{"on fewer lines", version3, `{"version": 3,` + "\n"},
		{"carriage returns", "\n", "\r\n"},
		{"a comment", version3, "// keys\n" + version3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := strings.LastIndex(text, tt.old)
			require.NotEqual(t, -1, i)
			changed := text[:i] + tt.new + text[i+len(tt.old):]
			got, err := sidecar.Parse([]byte(changed))
			require.ErrorIs(t, err, sidecar.ErrMalformed)
			require.Nil(t, got)
		})
	}
	for name, whole := range map[string]string{
		"nothing": "", "an empty object": "{}", "an empty line": "\n", "null": "null", "a list": "[3]", "zeros": strings.Repeat("\x00", 500),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sidecar.Parse([]byte(whole))
			require.ErrorIs(t, err, sidecar.ErrMalformed)
		})
	}
}

func TestOtherVersions(t *testing.T) {
	_, data := filled(t, node, newKEKs("a"))
	for _, got := range []string{"0", "1", "2", "4", "30", "18446744073709551615"} {
		changed := bytes.Replace(data, []byte(`"version": 3`), []byte(`"version": `+got), 1)
		_, err := sidecar.Parse(changed)
		require.ErrorIs(t, err, sidecar.ErrVersion)
		require.ErrorContains(t, err, fmt.Sprintf("got %s, want 3", got))
		// Only those of the reference system have another way than the library's version.
		require.Equal(t, got == "1" || got == "2", strings.Contains(err.Error(), "atrest.WithGeneration1"), got)
	}
	for _, got := range []string{"03", "3.0", "-3", "3e0", `"3"`, "null", "", "18446744073709551616"} {
		changed := bytes.Replace(data, []byte(`"version": 3`), []byte(`"version": `+got), 1)
		_, err := sidecar.Parse(changed)
		require.ErrorIs(t, err, sidecar.ErrMalformed, got)
	}
	// The members of other versions are others, and so may be their spaces.
	_, err := sidecar.Parse([]byte(`{"version":2,"raft_applied_index":17,"keys":{}}`))
	require.ErrorIs(t, err, sidecar.ErrVersion)
}

// What is at the path must be a plain file that belongs to its owner alone.
func TestKindAndMode(t *testing.T) {
	w := newKEKs("a")
	_, data := filled(t, node, w)
	place := func(t *testing.T, mode fs.FileMode) (dir, path string) {
		t.Helper()
		dir = t.TempDir()
		path = filepath.Join(dir, sidecar.FileName)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return dir, path
	}
	open := func(t *testing.T, dir string) error {
		t.Helper()
		f, err := sidecar.Open(t.Context(), dir, node, w)
		if err == nil {
			require.NoError(t, f.Close())
		}
		return err
	}
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o700} {
		dir, _ := place(t, mode)
		require.NoError(t, open(t, dir), mode)
	}
	if runtime.GOOS != "windows" { // which has no such modes
		for _, mode := range []fs.FileMode{0o644, 0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o660, 0o666, 0o777} {
			dir, path := place(t, mode)
			err := open(t, dir)
			require.ErrorIs(t, err, sidecar.ErrInsecureMode, mode)
			require.ErrorContains(t, err, path)
			require.ErrorContains(t, err, fmt.Sprintf("got %04o", mode))
		}
	}
	t.Run("symbolic link", func(t *testing.T) {
		dir, path := place(t, 0o600)
		require.NoError(t, os.Rename(path, filepath.Join(dir, "real")))
		require.NoError(t, os.Symlink("real", path))
		require.ErrorIs(t, open(t, dir), durable.ErrNotRegular)
		_, err := sidecar.Create(t.Context(), dir, node, w)
		require.ErrorIs(t, err, fs.ErrExist)
	})
	t.Run("symbolic link to nothing", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Symlink("nothing", filepath.Join(dir, sidecar.FileName)))
		require.ErrorIs(t, open(t, dir), durable.ErrNotRegular)
		_, err := sidecar.Create(t.Context(), dir, node, w)
		require.ErrorIs(t, err, fs.ErrExist)
	})
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, sidecar.FileName), 0o700))
		require.ErrorIs(t, open(t, dir), durable.ErrNotRegular)
		_, err := sidecar.Create(t.Context(), dir, node, w)
		require.ErrorIs(t, err, fs.ErrExist)
	})
	t.Run("too large", func(t *testing.T) {
		dir, path := place(t, 0o600)
		require.NoError(t, os.Truncate(path, sidecar.MaxSize+1))
		require.ErrorIs(t, open(t, dir), sidecar.ErrTooLarge)
		require.NoError(t, os.Truncate(path, 100))
		require.ErrorIs(t, open(t, dir), sidecar.ErrMalformed)
	})
}

// Texts that would become long, or make many small things, cost no more memory
// than a few times their length.
func TestMemoryOfHostileFiles(t *testing.T) {
	_, data := filled(t, node, newKEKs("a"))
	head, _, ok := bytes.Cut(data, []byte(`"epochs": `))
	require.True(t, ok)
	upToState, _, ok := bytes.Cut(data, []byte(`"state": `))
	require.True(t, ok)
	const n = 1 << 19
	var ids bytes.Buffer
	for i := range n / 16 {
		fmt.Fprintf(&ids, ",\n      \"%d\": 1", i+1)
	}
	for name, text := range map[string]string{
		"brackets":          string(upToState) + `"state": ` + strings.Repeat("[", n),
		"a deep list":       string(upToState) + `"state": ` + strings.Repeat("[", sidecar.MaxDepth) + strings.Repeat("1,", n),
		"a wide list":       string(upToState) + `"state": [` + strings.Repeat("\n    1,", n/7),
		"a long string":     string(upToState) + `"state": "` + strings.Repeat("x", n),
		"an endless number": string(upToState) + `"state": ` + strings.Repeat("1", n),
		"many epochs":       string(head) + `"epochs": {` + ids.String()[1:],
		"a long key id":     string(head) + "\"epochs\": {\n      \"" + strings.Repeat("1", n),
		"a long container":  string(fileKeyField.ReplaceAll(data, []byte(`"file_key": "`+strings.Repeat("A", n)+`"`))),
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			used := allocated(func() { _, err = sidecar.Parse([]byte(text)) })
			require.ErrorIs(t, err, sidecar.ErrMalformed)
			require.Less(t, used, maxAllocated(len(text)))
			require.Less(t, len(err.Error()), 500)
		})
	}
}

// maxAllocated is what reading a file of n bytes may allocate in all, growing
// tables and the copy of the text included.
func maxAllocated(n int) uint64 { return uint64(10*n + 1<<16) }

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Errors say what happened, to which file, and what to do.
func TestErrorTexts(t *testing.T) {
	w := newKEKs("a")
	fsys, data := filled(t, node, w)
	down := newKEKs("a")
	down.down = errDown
	f := mustOpen(t, fsys, node, w)
	_, errLocked := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(fsys))
	errLowered := f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(7, 2) })
	require.NoError(t, f.Close())
	_, errExist := sidecar.Create(t.Context(), dir, node, w, sidecar.WithFS(fsys))
	_, errMissing := sidecar.Open(t.Context(), dir, node, w, sidecar.WithFS(newFS()))
	for _, tt := range []struct {
		err  error
		want string
	}{
		{refused(t, with(t, bytes.Replace(data, []byte(`"7": 3`), []byte(`"7": 2`), 1)), node, w), "sidecar: data/keys.json: MAC of keys.json does not match; put back the last copy that this node wrote, and find out who changed it"},
		{refused(t, fsys, node, newKEKs("b")), "sidecar: data/keys.json: no configured KEK opens the file key: kek: no KEK opens the file key of node 81985529216486895: KEK a: not configured here; configure or restore the KEK that wrapped the key"},
		{refused(t, fsys, node, down), "sidecar: data/keys.json: unwrap the file key: the KEK does not answer"},
		{refused(t, fsys, 5, w), "sidecar: data/keys.json: keys.json of another node: got 81985529216486895, want 5; give each node its own directory; one is not made by copying another's"},
		{refused(t, with(t, []byte(`{"version": 4}`)), node, w), "sidecar: data/keys.json: version of keys.json is not supported: got 4, want 3; run the version of the library that wrote it, or upgrade it as the release notes say"},
		{refused(t, with(t, data[:100]), node, w), `sidecar: data/keys.json: malformed keys.json: line 6: the file ends; want "\n      \"" next; put back the last copy that this node wrote`},
		{errLocked, fmt.Sprintf("sidecar: data/keys.json is in use by process %d; two processes of one node must not run at once: end that one first", os.Getpid())},
		{errLowered, "sidecar: data/keys.json: an epoch cannot be lowered: key 7: got 2, want at least 3"},
		{errExist, "sidecar: data/keys.json: file already exists: it is opened, not created again"},
		{errMissing, "sidecar: durable: read data/keys.json: lstat data/keys.json: file does not exist"},
	} {
		require.EqualError(t, tt.err, tt.want)
	}
}
