package atrest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/stretchr/testify/require"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func Example() {
	ctx := context.Background()
	kekPath, remove := newKEKFile()
	defer remove()

	// README begins
	// 32 random bytes in a file of mode 0600, kept apart from the data.
	master, err := kek.File(kekPath)
	check(err)
	keks, err := kek.NewSet(master)
	check(err)

	// Once: a data key, which rests wrapped. Store the result with your data.
	id := key.NewID()
	wrapped, err := keks.WrapDEK(ctx, key.NewClusterID(), id, key.Storage, key.NewDEK())
	check(err)

	// At each start.
	_, dek, err := keks.UnwrapDEK(ctx, wrapped)
	check(err)
	keys, err := keystore.New()
	check(err)
	check(keys.Install(id, key.Storage, dek))
	check(keys.Activate(id))
	values := keys.Storage()

	// For each value. The location is where the value lives, its key in the database.
	sealed, err := values.Seal(nil, []byte("a secret"), []byte("users/42"))
	check(err)
	value, err := values.Open(nil, sealed, []byte("users/42"))
	check(err)
	fmt.Printf("%s\n", value)

	// Moved to another place, it does not open.
	_, err = values.Open(nil, sealed, []byte("users/43"))
	fmt.Println(errors.Is(err, envelope.ErrIntegrity))
	// README ends

	// Output:
	// a secret
	// true
}

// newKEKFile makes what an operator makes with
//
//	(umask 077; head -c 32 /dev/urandom > kek)
func newKEKFile() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "")
	check(err)
	path = filepath.Join(dir, "kek")
	b := make([]byte, 32)
	rand.Read(b)
	check(os.WriteFile(path, b, 0o600))
	return path, func() { check(os.RemoveAll(dir)) }
}

// The example in README.md is the one above, which is compiled and run.
func TestREADMEShowsTheExample(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(source), "\t// README begins\n")
	require.True(t, ok)
	want, _, ok := strings.Cut(rest, "\t// README ends\n")
	require.True(t, ok)
	want = strings.ReplaceAll("\n"+want, "\n\t", "\n")

	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "```go"+want+"```\n")
}
