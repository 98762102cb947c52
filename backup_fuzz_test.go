package atrest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"testing"

	"github.com/atrestdb/atrest"
)

// Nothing but a backup that somebody wrote is one, nothing panics, and nothing else
// than data comes out.
func FuzzReadBackup(f *testing.F) {
	keks := fixedKEK(f)
	known := map[string]string{}
	for _, v := range readVectors(f).Backups {
		file := must(hex.DecodeString(v.File))
		known[string(file)] = string(must(hex.DecodeString(v.Data)))
		f.Add(file, uint(0), byte(0))
		f.Add(file, uint(len(file)-1), byte(1))
		f.Add(file[:32], uint(0), byte(0))
	}
	f.Fuzz(func(t *testing.T, file []byte, at uint, with byte) {
		file = bytes.Clone(file)
		if len(file) > 0 {
			file[at%uint(len(file))] ^= with
		}
		ctx := context.Background()
		b, err := atrest.ReadBackup(ctx, bytes.NewReader(file), keks)
		if err != nil {
			if b != nil || !errors.Is(err, atrest.ErrBackup) {
				t.Fatal(b, err)
			}
			return
		}
		got, err := io.ReadAll(b)
		want, whole := known[string(file)]
		switch {
		case err == nil && (!whole || string(got) != want):
			t.Fatalf("% x", got)
		case err != nil && (whole || !errors.Is(err, atrest.ErrBackup)):
			t.Fatal(err)
		}
	})
}
