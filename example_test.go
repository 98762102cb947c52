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

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// An embedded database has no Raft, and needs no more than this.
func Example() {
	ctx := context.Background()
	kekPath, dir, remove := newPlace()
	defer remove()

	// README begins
	// 32 random bytes in a file of mode 0600, kept apart from the data.
	master, err := kek.File(kekPath)
	check(err)
	keks, err := kek.NewSet(master)
	check(err)

	// At each start: the first one makes the keys.
	db, err := atrest.OpenLocal(ctx, atrest.LocalConfig{Dir: dir, KEK: keks})
	check(err)
	defer db.Close()
	values := db.Storage()

	// For each value. The location is where the value lives, its key in the database;
	// sealed is kept beside the value.
	stored, sealed, err := values.Seal(nil, []byte("a secret"), []byte("users/42"))
	check(err)

	// Once in a while: new values get a new key, old ones still open.
	_, err = db.Rotate(ctx)
	check(err)
	value, err := values.Open(nil, stored, []byte("users/42"), sealed)
	check(err)
	fmt.Printf("%s\n", value)

	// Moved to another place, it does not open.
	_, err = values.Open(nil, stored, []byte("users/43"), sealed)
	fmt.Println(errors.Is(err, envelope.ErrIntegrity))
	// README ends

	// Output:
	// a secret
	// true
}

// newPlace makes a directory for a database, and beside it what an operator makes
// with
//
//	(umask 077; head -c 32 /dev/urandom > kek)
func newPlace() (kekPath, dir string, remove func()) {
	place, err := os.MkdirTemp("", "")
	check(err)
	kekPath, dir = filepath.Join(place, "kek"), filepath.Join(place, "db")
	check(os.Mkdir(dir, 0o700))
	b := make([]byte, 32)
	rand.Read(b)
	check(os.WriteFile(kekPath, b, 0o600))
	return kekPath, dir, func() { check(os.RemoveAll(place)) }
}

// The examples in README.md are those of the tests, which are compiled and run, and the
// state machine of the smallest host.
func TestREADMEShowsTheExamples(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	shown := 0
	for _, file := range []string{"example_test.go", "example_stream_test.go", "examples/toyfsm/host.go"} {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, part := range strings.Split(string(source), "// README begins\n")[1:] {
			want, _, ok := strings.Cut(part, "// README ends\n")
			require.True(t, ok, file)
			want = strings.TrimRight(want, "\t")
			if strings.HasPrefix(want, "\t") {
				want = strings.ReplaceAll("\n"+want, "\n\t", "\n")[1:]
			}
			require.Contains(t, string(readme), "```go\n"+strings.Trim(want, "\n")+"\n```\n", file)
			shown++
		}
	}
	require.Equal(t, strings.Count(string(readme), "```go\n"), shown)
}
