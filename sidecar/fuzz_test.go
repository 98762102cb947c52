package sidecar_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/sidecar"
)

// What parses is written again as the same bytes, and an error comes alone.
func FuzzParse(f *testing.F) {
	data := golden(f)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add(bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")))
	f.Fuzz(func(t *testing.T, data []byte) {
		var (
			again []byte
			err   error
		)
		used := allocated(func() { again, err = sidecar.Parse(data) })
		if err != nil {
			require.Nil(t, again)
			require.True(t, isRefusal(err), err)
			require.Less(t, used, maxAllocated(len(data)))
			return
		}
		require.Equal(t, string(data), string(again))
		require.True(t, json.Valid(data))
	})
}

// A state is accepted if the standard library accepts it, but for nesting, and
// is then indented as it does.
func FuzzState(f *testing.F) {
	for _, value := range goodJSON {
		f.Add([]byte(value))
	}
	for _, value := range badJSON {
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		text, _, err := sidecar.State(value)
		if err != nil {
			require.Nil(t, text)
			deep := bytes.Count(value, []byte("["))+bytes.Count(value, []byte("{")) > sidecar.MaxDepth
			require.True(t, deep || !json.Valid(value) || !utf8.Valid(value), "refused: %v", err)
			return
		}
		checkState(t, value)
	})
}

// What is read as a state in a file is the canonical form of itself.
func FuzzReadState(f *testing.F) {
	for _, value := range goodJSON {
		if text, _, err := sidecar.State([]byte(value)); err == nil {
			f.Add(text)
		}
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if !utf8.Valid(src) {
			return // the parser has looked
		}
		text, err := sidecar.ReadState(src)
		if err != nil {
			require.Nil(t, text)
			return
		}
		require.Equal(t, string(src[:len(text)]), string(text))
		checkState(t, text)
	})
}
