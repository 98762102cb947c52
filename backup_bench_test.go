package atrest_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
)

// BenchmarkBackup writes and verifies backups of 64 MiB, beside the digest alone, which
// every byte costs in any case.
func BenchmarkBackup(b *testing.B) {
	const size = 64 << 20
	data := make([]byte, size)
	disk := newDisk()
	keks := set(b, "kms:a")
	l, err := atrest.OpenLocal(b.Context(), atrest.LocalConfig{Dir: dir, KEK: keks}, atrest.WithFS(disk))
	require.NoError(b, err)
	defer l.Close()
	require.NoError(b, l.Backup(backup1))
	write := func(w io.Writer) error {
		_, err := l.WriteBackup(b.Context(), w, backup1, func(w io.Writer) error {
			_, err := io.Copy(w, struct{ io.Reader }{bytes.NewReader(data)})
			return err
		})
		return err
	}
	var file bytes.Buffer
	require.NoError(b, write(&file))
	for name, f := range map[string]func() error{
		"digest": func() error { sha256.Sum256(data); return nil },
		"write":  func() error { return write(io.Discard) },
		"verify": func() error {
			_, err := atrest.VerifyBackup(b.Context(), bytes.NewReader(file.Bytes()), keks)
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, f())
			}
		})
	}
}
