package atrest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

// testdata/backups.json holds whole backups. They were made once with -update and have
// not changed since: what was written then opens now.
var update = flag.Bool("update", false, "write testdata anew")

const vectorsFile = "testdata/backups.json"

type backupVectors struct {
	About   string         `json:"about"`
	KEK     string         `json:"kek"`
	Backups []backupVector `json:"backups"`
}

type backupVector struct {
	Note    string `json:"note"`
	Index   uint64 `json:"index"`
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Key     uint32 `json:"key"`
	Data    string `json:"data"`
	Digest  string `json:"digest"`
	AAD     string `json:"associated_data"`
	File    string `json:"file"`
}

// fixedKEK is 32 bytes a5.
func fixedKEK(t testing.TB) *kek.Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kek")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{0xa5}, 32), 0o600))
	return must(kek.NewSet(must(kek.File(path))))
}

func readVectors(t testing.TB) (v backupVectors) {
	t.Helper()
	text, err := os.ReadFile(vectorsFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &v))
	require.NotEmpty(t, v.Backups)
	return v
}

func TestBackupVectors(t *testing.T) {
	keks := fixedKEK(t)
	if *update {
		writeVectors(t, keks)
	}
	for _, v := range readVectors(t).Backups {
		file, data := must(hex.DecodeString(v.File)), must(hex.DecodeString(v.Data))
		b, err := atrest.ReadBackup(t.Context(), bytes.NewReader(file), keks)
		require.NoError(t, err)
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, data, got)
		i := b.Info()
		require.Equal(t, v, vectorOf(v.Note, i, data, file))

		// As docs/FORMATS.md has it.
		require.Equal(t, "\xa7BK\x02", string(file[:4]))
		require.Equal(t, v.Index, binary.BigEndian.Uint64(file[4:]))
		require.Equal(t, v.ID, hex.EncodeToString(file[12:28]))
		part := file[32:][:binary.BigEndian.Uint32(file[28:])]
		require.Equal(t, part, b.Part())
		s, err := applier.ParseSnapshot(part[40:])
		require.NoError(t, err)
		require.Equal(t, v.Cluster, s.Cluster().String())
		k, _ := s.Key(key.ID(v.Key))
		_, dek, err := keks.UnwrapDEK(t.Context(), k.Container)
		require.NoError(t, err)
		store := must(keystore.New())
		require.NoError(t, store.Install(k.ID, k.Purpose, dek))
		digest := sha256.Sum256(part)
		aad := append(bytes.Clone(file[4:28]), digest[:]...)
		require.Equal(t, v.AAD, hex.EncodeToString(aad))
		r, err := stream.NewReader(t.Context(), bytes.NewReader(file[32+len(part):]), store, stream.Place{Label: "atrest/backup", Data: aad})
		require.NoError(t, err)
		got, err = io.ReadAll(r)
		require.NoError(t, err)
		require.Equal(t, v.Data+v.Digest, hex.EncodeToString(got))
	}
}

func vectorOf(note string, i atrest.BackupInfo, data, file []byte) backupVector {
	part := file[32:][:binary.BigEndian.Uint32(file[28:])]
	digest := sha256.Sum256(part)
	return backupVector{
		Note: note, Index: i.Index, ID: hex.EncodeToString(i.ID[:]), Cluster: i.Cluster.String(), Key: uint32(i.Key),
		Data: hex.EncodeToString(data), Digest: hex.EncodeToString(i.Digest[:]),
		AAD: hex.EncodeToString(append(bytes.Clone(file[4:28]), digest[:]...)), File: hex.EncodeToString(file),
	}
}

func writeVectors(t *testing.T, keks *kek.Set) {
	t.Helper()
	v := backupVectors{
		About: "Whole backups, and what is in them. The KEK is that of a file: see AES key wraps. digest is the SHA-256 of data; associated_data is that of the stream.",
		KEK:   hex.EncodeToString(bytes.Repeat([]byte{0xa5}, 32)),
	}
	for note, data := range map[string]string{"some data": "some data of the host, in the clear", "no data": ""} {
		file := localBackup(t, []byte(data), keks)
		info, err := atrest.VerifyBackup(t.Context(), bytes.NewReader(file), keks)
		require.NoError(t, err)
		v.Backups = append(v.Backups, vectorOf(note, info, []byte(data), file))
	}
	text, err := json.MarshalIndent(v, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(vectorsFile, append(text, '\n'), 0o600))
}
