package applier_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// The largest state fits into keys.json, indented and beside what a node keeps there
// of its own about as many keys. If it did not, an entry that every replica applies
// could not be made durable by any.
func TestLargestStateFitsIntoTheFile(t *testing.T) {
	const last = math.MaxUint64
	s := applier.FillKeys(history(t, boot()), applier.MaxKeys-2, func(i int) applier.Key {
		return applier.Key{
			ID: math.MaxUint32, Purpose: key.Storage, State: key.OpenOnly, Check: key.Check{1},
			Container: make([]byte, 1), // 4 characters; the others are counted below
			Created:   last, Rewrapped: last, Retired: last, Stopped: last, Destroyed: last,
		}
	})
	text := s.AppendJSON(nil)
	replace := func(list, with string, n int) {
		require.True(t, bytes.Contains(text, []byte(list)), list)
		inner := strings.Repeat(with+",", n)
		whole := list[:len(list)-1] + inner[:len(inner)-1] + list[len(list)-1:]
		text = bytes.Replace(text, []byte(list), []byte(whole), 1)
	}
	number := "18446744073709551615"
	replace(`"writers":{}`, `"4294967295":["`+number+` 65535 65535 `+strings.Repeat("f", 32)+`"]`, applier.MaxWriters)
	replace(`"gone":[]`, `"`+number+`"`, applier.MaxGone)
	keys := strings.Repeat("4294967295,", applier.MaxBackupKeys/applier.MaxBackups)
	replace(`"backups":[]`, `{"id":"`+strings.Repeat("f", 32)+`","index":`+number+`,"keys":[`+keys[:len(keys)-1]+`]}`, applier.MaxBackups)

	var file bytes.Buffer
	require.NoError(t, json.Indent(&file, text, "  ", "  "))
	const (
		epoch = `      "4294967295": 65535,` + "\n"
		usage = `      "4294967295": {` + "\n" + `        "seals": 18446744073709551615,` + "\n" +
			`        "bytes": 18446744073709551615` + "\n      },\n"
		fileKey = 96 << 10
		rest    = 1 << 10
	)
	containers := (applier.MaxContainers+2*applier.MaxKeys)/3*4 - 4*applier.MaxKeys
	size := file.Len() + containers + applier.MaxKeys*len(epoch+usage) + fileKey*4/3 + rest
	require.Less(t, size, sidecar.MaxSize)
}

// What is no state costs no more memory than a small multiple of its length.
func TestFormsAllocateByInput(t *testing.T) {
	head := `{"generation":2,"cluster":"61000000000000000000000000000000","index":9,"keys":[`
	row := `{"id":1,"purpose":"raft","state":"active","created":1}`
	snapshot := states(t)["bootstrapped"].AppendSnapshot(nil)
	for name, b := range map[string][]byte{
		"no keys": []byte(`{"generation":2,"index":1,"keys":[` + strings.Repeat("{},", 1<<17) + `{}]}`),
		"keys":    []byte(head + strings.Repeat(row+",", 1<<16)),
		"rows":    []byte(head + `],"writers":{"1":[` + strings.Repeat(`"1 0 0",`, 1<<17)),
		"gone":    []byte(head + `],"writers":{},"gone":[` + strings.Repeat(`"1",`, 1<<17)),
		"backups": []byte(head + `],"writers":{},"gone":[],"backups":[{"id":"61000000000000000000000000000000","index":1,"keys":[` + strings.Repeat(`1,`, 1<<17)),
		"nesting": bytes.Repeat([]byte(`[`), 1<<20),
		"digits":  []byte(`{"generation":` + strings.Repeat("1", 1<<20)),
		"quotes":  []byte(head + `{"id":1,"purpose":"` + strings.Repeat("x", 1<<20)),
	} {
		used := bytesAllocated(func() {
			s, err := applier.ParseJSON(b)
			require.ErrorIs(t, err, applier.ErrForm, name)
			require.Nil(t, s)
		})
		require.Less(t, used, uint64(1<<20+16*len(b)), name)
	}
	counts := bytes.Clone(snapshot[:4+1+16+8+18])
	for _, n := range []string{"\xff\xff\xff\xff", "\x00\x00\x40\x00", "\x00\x00\x00\x04"} {
		b := append(bytes.Clone(counts), n...)
		used := bytesAllocated(func() {
			_, err := applier.ParseSnapshot(b)
			require.ErrorIs(t, err, applier.ErrForm)
		})
		require.Less(t, used, uint64(1<<20))
	}
}

// The readable form with a bit changed, a byte less or a byte more is refused, or
// is that of another state.
func TestChangedJSON(t *testing.T) {
	for name, s := range states(t) {
		text := s.AppendJSON(nil)
		try := func(changed []byte) {
			got, err := applier.ParseJSON(changed)
			if err != nil {
				require.ErrorIs(t, err, applier.ErrForm)
				require.Nil(t, got)
				return
			}
			require.Equal(t, string(changed), string(got.AppendJSON(nil)), name)
			require.False(t, got.Equal(s), name)
		}
		for i := range text {
			try(text[:i])
			try(append(bytes.Clone(text[:i]), text[i+1:]...))
			try(append(append(bytes.Clone(text[:i]), text[i]), text[i:]...))
			for bit := range 8 {
				changed := bytes.Clone(text)
				changed[i] ^= 1 << bit
				try(changed)
			}
		}
	}
}
