package kek_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
)

func ExampleFile() {
	dir, err := os.MkdirTemp("", "kek")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "kek")
	check(os.WriteFile(path, []byte("32 bytes that should be random.."), 0o600))

	k, err := kek.File(path)
	check(err)
	fmt.Println(k.ID())

	check(os.Chmod(path, 0o644))
	_, err = kek.File(path)
	fmt.Println(errors.Is(err, kek.ErrInsecure))
	// Output:
	// file:f016ff8d85daa144
	// true
}

func ExampleEnv() {
	raw := []byte("32 bytes that should be random..")
	check(os.Setenv("MYDB_TEST_KEK", base64.StdEncoding.EncodeToString(raw)))
	k, err := kek.Env("MYDB_TEST_KEK")
	check(err)
	fmt.Println(k.ID())
	_, err = kek.Env("MYDB_TEST_KEK")
	fmt.Println(err)
	// Output:
	// env:f016ff8d85daa144
	// kek: env MYDB_TEST_KEK: not set, or read before, which unsets it
}

// A passphrase that a person remembers, as a second way in beside a key service.
func ExamplePassphrase() {
	ctx := context.Background()
	remote := kektest.New("kms:remote")
	emergency, err := kek.Passphrase([]byte("written on paper, in the safe"), kek.WithName("emergency"))
	check(err)
	keks, err := kek.NewSet(remote, emergency)
	check(err)
	container, err := keks.WrapDEK(ctx, key.NewClusterID(), 7, key.Storage, key.NewDEK())
	check(err)

	remote.Gone()
	header, _, err := keks.UnwrapDEK(ctx, container)
	check(err)
	fmt.Println(header.ID, emergency.ID())
	// Output: 7 passphrase:emergency
}

func ExampleOpenURI() {
	dir, err := os.MkdirTemp("", "kek")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "kek")
	check(os.WriteFile(path, []byte("32 bytes that should be random.."), 0o600))

	k, err := kek.OpenURI(context.Background(), "file:"+path)
	check(err)
	fmt.Println(k.ID())

	_, err = kek.OpenURI(context.Background(), "tink-keyset:/etc/db/keyset.json")
	fmt.Println(err)
	// Output:
	// file:f016ff8d85daa144
	// kek: bad KEK URI: tink-keyset: import github.com/atrestdb/atrest/kek/tinkkek
}

// Moving from one KEK to another, one recipient at a time.
func ExampleSet_AddRecipient() {
	ctx := context.Background()
	old, next := kektest.New("kms:old"), kektest.New("kms:next")
	before, err := kek.NewSet(old)
	check(err)
	container, err := before.WrapDEK(ctx, key.NewClusterID(), 7, key.Storage, key.NewDEK())
	check(err)

	container, err = before.AddRecipient(ctx, container, next)
	check(err)
	after, err := kek.NewSet(next)
	check(err)
	container, err = after.RemoveRecipient(ctx, container, "kms:old")
	check(err)

	_, err = after.RemoveRecipient(ctx, container, "kms:next")
	fmt.Println(err)
	// Output: kek: recipients stay as they are: storage DEK 7: KEK kms:next is the last, and without it nothing opens
}

func ExampleSet() {
	ctx := context.Background()
	local, remote := kektest.New("file:local"), kektest.New("kms:remote")
	keks, err := kek.NewSet(local, remote)
	check(err)

	dek := key.NewDEK()
	container, err := keks.WrapDEK(ctx, key.NewClusterID(), 7, key.Storage, dek)
	check(err)

	local.Gone() // one of the two is enough
	header, again, err := keks.UnwrapDEK(ctx, container)
	check(err)
	fmt.Println(header.Purpose, "DEK", header.ID, key.EqualDEK(dek, again))

	remote.FailNext(1, kek.ErrUnreachable)
	_, _, err = keks.UnwrapDEK(ctx, container)
	fmt.Println(errors.Is(err, kek.ErrUnreachable), errors.Is(err, kek.ErrWrongKey))
	fmt.Println(err)
	// Output:
	// storage DEK 7 true
	// true false
	// kek: no KEK opens storage DEK 7: KEK file:local: wrong KEK: the key is gone; KEK kms:remote: KEK unreachable; try again
}

// Dropping a KEK: rewrap every container with a set that has it no more, while
// the container still opens.
func ExampleSet_RewrapDEK() {
	ctx := context.Background()
	old, next := kektest.New("kms:old"), kektest.New("kms:next")
	before, err := kek.NewSet(old)
	check(err)
	container, err := before.WrapDEK(ctx, key.NewClusterID(), 7, key.Storage, key.NewDEK())
	check(err)

	both, err := kek.NewSet(next, old)
	check(err)
	container, err = both.RewrapDEK(ctx, container)
	check(err)
	after, err := kek.NewSet(next)
	check(err)
	container, err = after.RewrapDEK(ctx, container)
	check(err)

	c, err := key.ParseContainer(container)
	check(err)
	fmt.Println(c.ID, len(c.Recipients), c.Recipients[0].KEK)
	// Output: 7 1 kms:next
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
