package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// dbDir is the database's directory, beside keys.json.
const dbDir = "db"

// The kinds of records. A record's key in Pebble is its kind, a slash and its
// name; keys are stored in clear, values are sealed.
const (
	kindFile     = "file"     // the name is the file's path
	kindManifest = "manifest" // one record: what the store holds
)

func recordKey(kind, name string) []byte { return []byte(kind + "/" + name) }

// location binds a sealed value to its place. The length in front keeps every
// two places apart, whatever their names contain.
func location(kind, name string) []byte {
	b := append([]byte{byte(len(kind))}, kind...)
	return append(b, name...)
}

// disk is where databases lie.
var disk = vfs.Default

// openPebble opens the database in dir and makes it if there is none.
// Compression is off, so that whatever is stored in clear can be found by a
// search of the files. If the disk is full or fails, the program ends; before
// that it calls atEnd.
func openPebble(dir string, atEnd func() error) (*pebble.DB, error) {
	log := &fatalLogger{atEnd: atEnd}
	opts := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             log,
		// By default Pebble waits for room or panics.
		FS: vfs.OnDiskFull(disk, func() { log.Fatalf("no space left on the disk of %s", dir) }),
		EventListener: &pebble.EventListener{
			// Damaged data comes back as an error; by default it is fatal.
			DataCorruption: func(pebble.DataCorruptionInfo) {},
			// By default Pebble tries again without end.
			BackgroundError: func(err error) {
				if _, ok := errors.AsType[syscall.Errno](err); ok {
					log.Fatalf("%w", err)
				}
			},
		},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return pebble.Open(dir, opts)
}

// A fatalLogger drops what Pebble reports about its routine work.
type fatalLogger struct {
	once  sync.Mutex
	atEnd func() error
}

func (*fatalLogger) Infof(string, ...any)  {}
func (*fatalLogger) Errorf(string, ...any) {}

// Fatalf ends the program. Pebble calls it, from any goroutine, when it cannot
// go on; it must not return.
func (l *fatalLogger) Fatalf(format string, args ...any) {
	l.once.Lock() // and never unlocked: one sentence is enough
	err := errors.Join(fmt.Errorf(format, args...), l.atEnd())
	fmt.Fprintln(os.Stderr, "quickstart: "+oneLine(err))
	os.Exit(exitRefused) //nolint:forbidigo // The other goroutines wait for Pebble.
}
