package main

import (
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
)

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

// openPebble opens the database in dir and makes it if there is none.
// Compression is off, so that whatever is stored in clear can be found by a
// search of the files.
func openPebble(dir string) (*pebble.DB, error) {
	opts := &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             quietLogger{},
		// Damaged data comes back as an error; by default it ends the program.
		EventListener: &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}},
	}
	opts.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return pebble.Open(dir, opts)
}

// quietLogger drops what Pebble reports about its routine work.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}

// Fatalf ends the program: Pebble calls it when it cannot go on.
func (quietLogger) Fatalf(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "quickstart: Pebble stopped: "+oneLine(fmt.Errorf(format, args...)))
	os.Exit(exitRefused) //nolint:forbidigo // Fatalf must not return, and nothing can be done here.
}
