package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ReadFile returns the content of the regular file at path and what the file
// system says about the very file that was read. A file longer than limit bytes
// gives [ErrTooLarge], anything but a regular file, a symbolic link included,
// [ErrNotRegular], a missing one [fs.ErrNotExist].
func ReadFile(fsys FS, path string, limit int64) ([]byte, fs.FileInfo, error) {
	data, info, err := readFile(fsys, path, limit)
	if err != nil {
		return nil, nil, fmt.Errorf("durable: read %s: %w", path, err)
	}
	return data, info, nil
}

func readFile(fsys FS, path string, limit int64) ([]byte, fs.FileInfo, error) {
	f, info, err := openFile(fsys, path, limit)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() //nolint:errcheck // Nothing was written.
	data, err := readAll(f, info.Size(), limit)
	return data, info, err
}

// openFile opens a regular file of at most limit bytes. The file is looked at
// twice: before opening it, because opening a device may have effects and a link
// may be followed, and then the one opened.
func openFile(fsys FS, path string, limit int64) (File, fs.FileInfo, error) {
	info, err := fsys.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if err := checkFile(info, limit); err != nil {
		return nil, nil, err
	}
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err == nil {
		err = checkFile(info, limit)
	}
	if err != nil {
		f.Close() //nolint:errcheck // Nothing was written.
		return nil, nil, err
	}
	return f, info, nil
}

func checkFile(info fs.FileInfo, limit int64) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: mode %s", ErrNotRegular, info.Mode())
	}
	if info.Size() > limit {
		return fmt.Errorf("%w: got %d bytes, want at most %d", ErrTooLarge, info.Size(), limit)
	}
	return nil
}

// readAll reads to the end in one buffer of the size that the file has, and
// goes on if the file grew.
func readAll(r io.Reader, size, limit int64) ([]byte, error) {
	data := make([]byte, 0, size+1)
	for {
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if int64(len(data)) > limit {
			return nil, fmt.Errorf("%w: want at most %d bytes", ErrTooLarge, limit)
		}
		if err == io.EOF { // and not one that wraps it
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
	}
}
