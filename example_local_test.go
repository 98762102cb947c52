package atrest_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
)

// newLocal begins an embedded database.
func newLocal() (db *atrest.Local, cfg atrest.LocalConfig, remove func()) {
	kekPath, dir, remove := newPlace()
	master, err := kek.File(kekPath)
	check(err)
	keks, err := kek.NewSet(master)
	check(err)
	cfg = atrest.LocalConfig{Dir: dir, KEK: keks}
	db, err = atrest.OpenLocal(context.Background(), cfg)
	check(err)
	return db, cfg, remove
}

// A database that knows that it has sealed values says so, and is not given new
// keys in place of those that were lost.
func ExampleOpenLocal() {
	db, cfg, remove := newLocal()
	defer remove()
	fmt.Println("serving:", db.Status().Serving)
	check(db.Close())

	check(os.Remove(cfg.Dir + "/keys.json"))
	cfg.HadKeys = true
	_, err := atrest.OpenLocal(context.Background(), cfg)
	fmt.Println("refused:", errors.Is(err, guard.ErrKeysMissing))
	// Output:
	// serving: true
	// refused: true
}

// The life of a key ends when nothing needs it any more.
func ExampleLocal_Destroy() {
	db, _, remove := newLocal()
	defer remove()
	defer db.Close()
	values, place := db.Storage(), []byte("users/42")
	stored, sealed, err := values.Seal(nil, []byte("a secret"), place)
	check(err)

	// A new key for new values. Nothing is sealed under the old one after the stop.
	old, _ := db.Node().State().Active(key.Storage)
	_, err = db.Rotate(context.Background())
	check(err)
	check(db.Stop(old.ID))
	err = db.Destroy(old.ID, 1) // one value is still sealed under it
	fmt.Println("refused:", errors.Is(err, applier.ErrEvidence))

	// Once every value was sealed anew, and is synced, the old key can go.
	value, err := values.Open(nil, stored, place, sealed)
	check(err)
	stored, sealed, err = values.Seal(nil, value, place)
	check(err)
	check(db.Destroy(old.ID, 0))

	value, err = values.Open(nil, stored, place, sealed)
	check(err)
	fmt.Printf("%s\n", value)
	// Output:
	// refused: true
	// a secret
}

// A backup holds the data, as it is stored, and a snapshot of the keys. With the
// KEK they make a database of their own in another place.
func ExampleImportLocal() {
	db, cfg, remove := newLocal()
	defer remove()
	place := []byte("users/42")
	stored, sealed, err := db.Storage().Seal(nil, []byte("a secret"), place)
	check(err)
	keys, err := db.Snapshot()
	check(err)
	check(db.Backup(applier.BackupID{1})) // no key of it is destroyed as long as it is registered
	check(db.Close())

	cfg.Dir += "-restored"
	check(os.Mkdir(cfg.Dir, 0o700))
	restored, err := atrest.ImportLocal(context.Background(), cfg, keys)
	check(err)
	defer restored.Close()
	value, err := restored.Storage().Open(nil, stored, place, sealed)
	check(err)
	fmt.Printf("%s\n", value)
	// Output:
	// a secret
}
