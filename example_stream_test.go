package atrest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/stream"
)

// A database's own files and snapshots, under its own keys.
func ExampleLocal_Streams() {
	db, cfg, remove := newLocal()
	defer remove()
	defer db.Close()
	ctx := context.Background()
	path, contents := filepath.Join(filepath.Dir(cfg.Dir), "snapshot"), strings.NewReader("all of the table")

	// README begins
	// A replicated database has node.Streams(). The place binds the file to what it is.
	keys, place := db.Streams(), stream.Place{Label: "snapshot", Data: []byte("index 12, term 3")}
	w, err := stream.CreateFile(ctx, path, keys, place)
	check(err)
	defer w.Abort() // does nothing once the file is closed
	_, err = io.Copy(w, contents)
	check(err)
	check(w.Close()) // the file is there now, whole and durable

	r, err := stream.OpenFile(ctx, path, keys, place)
	check(err)
	defer r.Close()
	plaintext, err := io.ReadAll(r) // no error: it is complete and unchanged
	check(err)
	fmt.Printf("%s\n", plaintext)
	// README ends

	// Output: all of the table
}

// A backup opens with the KEK alone.
func ExampleLocal_WriteBackup() {
	db, cfg, remove := newLocal()
	defer remove()
	defer db.Close()
	ctx, keks := context.Background(), cfg.KEK
	var file bytes.Buffer
	dump := func(w io.Writer) error {
		_, err := io.WriteString(w, "all rows, as they are stored")
		return err
	}

	// README begins
	// From its registration on no key that it needs is destroyed. A replicated database
	// proposes node.NewBackup(id) and calls node.WriteBackup.
	id := applier.BackupID{1}
	check(db.Backup(id))
	_, err := db.WriteBackup(ctx, &file, id, dump)
	check(err)
	_, err = atrest.VerifyBackup(ctx, bytes.NewReader(file.Bytes()), keks)
	check(err)

	// When all is lost but this file and the KEK:
	b, err := atrest.ReadBackup(ctx, &file, keks)
	check(err)
	rows, err := io.ReadAll(b) // for the store of a new database, which begins with
	check(err)                 // atrest.ImportLocal or node.Import, and b.Part()
	fmt.Printf("%d bytes, %d keys\n", len(rows), len(b.Info().Keys))
	// README ends

	// Output: 28 bytes, 2 keys
}
