package archtest_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// streamValues also returns what the streams' keys are derived from and to.
func streamValues(t *testing.T, dek key.DEK) (map[string]any, [][]byte) {
	t.Helper()
	st, err := keystore.New()
	require.NoError(t, err)
	require.NoError(t, st.Install(7, key.Storage, dek))
	require.NoError(t, st.Activate(7))
	at := stream.Place{Label: "test", Data: []byte("data")}

	var out bytes.Buffer
	w, err := stream.NewWriter(t.Context(), &out, st, at, stream.WithWorkers(2))
	require.NoError(t, err)
	_, err = w.Write([]byte("value"))
	require.NoError(t, err)
	done, err := stream.NewWriter(t.Context(), &out, st, at)
	require.NoError(t, err)
	require.NoError(t, done.Close())
	path := filepath.Join(t.TempDir(), "f")
	file, err := stream.CreateFile(t.Context(), path, st, at)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	sealed, err := stream.OpenFile(t.Context(), path, st, at)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sealed.Close()) })
	random, err := stream.OpenFileAt(t.Context(), path, st, at)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, random.Close()) })

	salt := [keystore.StreamSalt]byte(out.Bytes()[9:])
	k, err := st.StreamKey(7, salt)
	require.NoError(t, err)
	info := "atrest/v2/stream/keys\x00" + string(out.Bytes()[:46]) + "\x00\x00" + "test" + "data"
	values := map[string]any{
		"stream.Writer":       w,
		"stream.Reader":       sealed.Reader,
		"stream.ReaderAt":     random.ReaderAt,
		"stream.FileWriter":   file,
		"stream.FileReader":   sealed,
		"stream.FileReaderAt": random,
		"stream.Header":       stream.Header{KeyID: 7, Suite: 1, SegmentSize: stream.DefaultSegment, Label: "test"},
		"stream.Place":        at,
		"stream.Option":       stream.WithWorkers(2),
	}
	secrets := [][]byte{
		secret.Bytes(k),
		secret.Expand(k, info, secret.Size),
		secret.Expand(dek, "atrest/v2/stream", secret.Size),
	}
	return values, secrets
}
