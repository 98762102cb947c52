package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/atrestdb/atrest/stream"
)

// A newFile has a name that nobody looks for until all of it is there.
type newFile struct {
	*os.File

	path string
}

// create begins a file. Its name until commit is one that stream.RecoverFile removes.
func create(path string) (*newFile, error) {
	f, err := os.OpenFile(path+"."+rand.Text()+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return &newFile{f, path}, err
}

// abort removes what commit did not make the file.
func (f *newFile) abort() {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// link is a variable because not every file system has links.
var link = os.Link

// commit gives the file its name, unless another one has it by now: a link, unlike a
// rename, replaces nothing.
func (f *newFile) commit() error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := link(f.Name(), f.path); err != nil {
		if err := checkFree(f.path); err != nil {
			return err
		}
		// There are no links on FAT, for one.
		if err := os.Rename(f.Name(), f.path); err != nil {
			return err
		}
	}
	// This syncs the directory as well. It waits until here because what it removes, this
	// run's other name and what others have begun, is of no use now that the name is taken.
	// Windows neither syncs directories nor removes what another run has open.
	if err := stream.RecoverFile(f.path); err != nil && runtime.GOOS != "windows" {
		return fmt.Errorf("it is complete, but may not outlast a power loss: %w", reason(err))
	}
	return nil
}

// checkFree refuses to replace a file.
func checkFree(path string) error {
	switch _, err := os.Lstat(path); {
	case err == nil:
		return refuse("-out %s exists, and is not replaced", path)
	case !errors.Is(err, fs.ErrNotExist):
		return refuse("-out %s cannot be made: %w", path, reason(err))
	}
	return nil
}
