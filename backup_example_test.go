package atrest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
)

// A backup opens with the KEK alone, and a changed one does not.
func ExampleReadBackup() {
	db, cfg, remove := newLocal()
	defer remove()
	defer db.Close()
	ctx, keks := context.Background(), cfg.KEK

	id := applier.BackupID{1}
	check(db.Backup(id)) // a replicated database proposes Node.NewBackup
	var file bytes.Buffer
	_, err := db.Node().WriteBackup(ctx, &file, id, 42, func(w io.Writer) error {
		_, err := io.WriteString(w, "all that the database holds")
		return err
	})
	check(err)

	b, err := atrest.ReadBackup(ctx, bytes.NewReader(file.Bytes()), keks)
	check(err)
	data, err := io.ReadAll(b)
	check(err)
	fmt.Printf("index %d: %s\n", b.Info().Index, data)

	file.Bytes()[file.Len()-1] ^= 1
	_, err = atrest.VerifyBackup(ctx, &file, keks)
	fmt.Println(errors.Is(err, atrest.ErrBackup))

	// Output:
	// index 42: all that the database holds
	// true
}
