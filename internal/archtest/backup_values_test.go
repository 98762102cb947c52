package archtest_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
)

func backupValues(t *testing.T, l *atrest.Local, set *kek.Set) (*atrest.Backup, atrest.BackupInfo) {
	t.Helper()
	id := applier.BackupID{1}
	require.NoError(t, l.Backup(id))
	var file bytes.Buffer
	_, err := l.WriteBackup(t.Context(), &file, id, func(w io.Writer) error {
		_, err := w.Write([]byte("data"))
		return err
	})
	require.NoError(t, err)
	b, err := atrest.ReadBackup(t.Context(), &file, set)
	require.NoError(t, err)
	_, err = io.ReadAll(b)
	require.NoError(t, err)
	return b, b.Info()
}
