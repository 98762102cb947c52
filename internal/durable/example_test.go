package durable_test

import (
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/internal/durable"
)

func Example() {
	fsys := crashfs.New() // durable.OS in a program

	lock, err := fsys.Lock("settings.lock")
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(durable.Probe(fsys, "."), durable.Recover(fsys, "settings")); err != nil {
		log.Fatal(err)
	}
	if err := durable.WriteFile(fsys, "settings", []byte("color = blue")); err != nil {
		log.Fatal(err)
	}
	data, info, err := durable.ReadFile(fsys, "settings", 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Mode(), string(data))
	fmt.Println(lock.Close())
	// Output:
	// -rw------- color = blue
	// <nil>
}

func ExampleFS_lock() {
	fsys := crashfs.New() // durable.OS in a program
	if _, err := fsys.Lock("lock"); err != nil {
		log.Fatal(err)
	}
	_, err := fsys.Lock("lock")
	var locked *durable.LockedError
	fmt.Println(errors.As(err, &locked), locked.Path, locked.PID == os.Getpid())
	// Output: true lock true
}

// After an unknown outcome the file is looked at again, once that is safe.
func ExampleWriteFile_outcomeUnknown() {
	fsys := crashfs.New()
	if err := durable.WriteFile(fsys, "f", []byte("old")); err != nil {
		log.Fatal(err)
	}
	fsys.FailAt(5, nil, crashfs.NotDone) // the sync of the directory
	err := durable.WriteFile(fsys, "f", []byte("new"))
	fmt.Println("unknown:", errors.Is(err, durable.ErrOutcomeUnknown))
	if err := durable.Recover(fsys, "f"); err != nil {
		log.Fatal(err)
	}
	data, _, err := durable.ReadFile(fsys, "f", 100)
	fmt.Println(string(data), err)
	// Output:
	// unknown: true
	// new <nil>
}

func ExampleProbe() {
	fsys := crashfs.New()
	fmt.Println(durable.Probe(fsys, "."))
	fsys.FailAt(0, errors.ErrUnsupported, crashfs.Broken)
	fmt.Println(errors.Is(durable.Probe(fsys, "."), durable.ErrUnsupportedFS))
	// Output:
	// <nil>
	// true
}
