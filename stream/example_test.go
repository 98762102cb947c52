package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/stream"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// exampleStore is the keystore of a process that runs.
func exampleStore() *keystore.Store {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))
	must(s.Activate(1))
	return s
}

func Example() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "snapshot", Data: []byte("index 12, term 3")}

	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, at)
	must(err)
	defer w.Abort() // does nothing once the stream is closed
	_, err = io.Copy(w, strings.NewReader("all of the database"))
	must(err)
	must(w.Close())

	r, err := stream.NewReader(ctx, &sealed, keys, at)
	must(err)
	plaintext, err := io.ReadAll(r) // no error: the stream is complete
	must(err)
	fmt.Printf("%s\n", plaintext)
	// Output: all of the database
}

// A stream that was cut off is not taken for a whole one, even if what is left of
// it is authentic.
func ExampleReader() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "backup", Data: []byte("2026-11-24")}

	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, at, stream.WithSegmentSize(stream.MinSegment))
	must(err)
	_, err = w.Write(make([]byte, 10_000))
	must(err)
	must(w.Close())

	sealed.Truncate(sealed.Len() - 1)
	r, err := stream.NewReader(ctx, &sealed, keys, at)
	must(err)
	n, err := io.Copy(io.Discard, r)
	fmt.Println(n, err)
	// Output: 8192 stream: authentication failed
}

func ExampleWriter_Abort() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "backup"}

	var sealed bytes.Buffer
	write := func() error {
		w, err := stream.NewWriter(ctx, &sealed, keys, at)
		if err != nil {
			return err
		}
		defer w.Abort()
		if _, err := w.Write([]byte("half of it")); err != nil {
			return err
		}
		return errors.New("the other half is not to be had")
	}
	fmt.Println(write())
	r, err := stream.NewReader(ctx, &sealed, keys, at)
	must(err)
	_, err = io.ReadAll(r)
	fmt.Println(err)
	// Output:
	// the other half is not to be had
	// stream: authentication failed: it ends before its last segment
}

// What is sealed for one place does not open in another.
func ExamplePlace() {
	ctx, keys := context.Background(), exampleStore()
	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, stream.Place{Label: "file", Data: []byte("users.db")})
	must(err)
	must(w.Close())

	for _, at := range []stream.Place{
		{Label: "file", Data: []byte("orders.db")},
		{Label: "backup", Data: []byte("users.db")},
	} {
		_, err = stream.NewReader(ctx, bytes.NewReader(sealed.Bytes()), keys, at)
		fmt.Println(err)
	}
	// Output:
	// stream: authentication failed
	// stream: has another label: "file", not "backup"
}

func ExampleWithMetadata() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "backup"}
	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, at, stream.WithMetadata([]byte("taken on Tuesday")))
	must(err)
	must(w.Close())

	r, err := stream.NewReader(ctx, &sealed, keys, at)
	must(err)
	fmt.Printf("%s, under key %s\n", r.Metadata(), r.KeyID())
	// Output: taken on Tuesday, under key 1
}

// Before a key is destroyed: which key does this need?
func ExampleReadHeader() {
	ctx, keys := context.Background(), exampleStore()
	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, stream.Place{Label: "backup", Data: []byte("2026-11-24")})
	must(err)
	must(w.Close())

	h, err := stream.ReadHeader(&sealed)
	must(err)
	fmt.Printf("a %s under key %s\n", h.Label, h.KeyID)
	// Output: a backup under key 1
}

func ExampleVerify() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "backup", Data: []byte("2026-11-24")}
	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, at)
	must(err)
	must(w.Close())

	_, err = stream.Verify(ctx, bytes.NewReader(sealed.Bytes()), keys, at)
	fmt.Println(err)
	_, err = stream.Verify(ctx, bytes.NewReader(sealed.Bytes()[:sealed.Len()-1]), keys, at)
	fmt.Println(err)
	// Output:
	// <nil>
	// stream: authentication failed: it ends before its last segment
}

// A large stream on several processors.
func ExampleWithWorkers() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "snapshot"}
	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, at, stream.WithWorkers(4))
	must(err)
	_, err = w.Write(make([]byte, 10<<20))
	must(err)
	must(w.Close())

	r, err := stream.NewReader(ctx, &sealed, keys, at, stream.WithWorkers(4))
	must(err)
	n, err := r.WriteTo(io.Discard)
	fmt.Println(n, err)
	// Output: 10485760 <nil>
}

func ExampleNewReaderAt() {
	ctx, keys := context.Background(), exampleStore()
	at := stream.Place{Label: "file"}
	var sealed bytes.Buffer
	w, err := stream.NewWriter(ctx, &sealed, keys, at)
	must(err)
	_, err = fmt.Fprintf(w, "%0100000d", 7)
	must(err)
	must(w.Close())

	r, err := stream.NewReaderAt(ctx, bytes.NewReader(sealed.Bytes()), int64(sealed.Len()), keys, at)
	must(err)
	b := make([]byte, 3)
	_, err = r.ReadAt(b, r.Size()-3)
	fmt.Printf("%s of %d bytes, %v\n", b, r.Size(), err)
	// Output: 007 of 100000 bytes, <nil>
}

func ExampleWriteFile() {
	ctx, keys := context.Background(), exampleStore()
	dir, err := os.MkdirTemp("", "stream")
	must(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "backup")
	at := stream.Place{Label: "backup"}

	must(stream.RecoverFile(path)) // at start: what an earlier process left
	must(stream.WriteFile(ctx, path, strings.NewReader("all of it"), keys, at))

	f, err := stream.OpenFile(ctx, path, keys, at)
	must(err)
	defer f.Close()
	plaintext, err := io.ReadAll(f)
	fmt.Printf("%s, %v\n", plaintext, err)
	// Output: all of it, <nil>
}

func ExampleCreateFile() {
	ctx, keys := context.Background(), exampleStore()
	dir, err := os.MkdirTemp("", "stream")
	must(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "log")
	at := stream.Place{Label: "log"}

	w, err := stream.CreateFile(ctx, path, keys, at)
	must(err)
	defer w.Abort()
	for i := range 3 {
		_, err = fmt.Fprintln(w, "line", i)
		must(err)
	}
	must(w.Close())

	f, err := stream.OpenFileAt(ctx, path, keys, at)
	must(err)
	defer f.Close()
	line := make([]byte, 6)
	_, err = f.ReadAt(line, 7)
	fmt.Printf("%s, %v\n", line, err)
	// Output: line 1, <nil>
}
