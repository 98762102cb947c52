package guard

import (
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/sidecar"
)

// EncryptionOff is for a host that runs without encryption: it refuses a directory
// that holds keys. Values that are sealed would not open, and new ones would be
// stored in clear.
func EncryptionOff(fsys durable.FS, dir string) error {
	for _, name := range keyFiles {
		path := filepath.Join(dir, name)
		switch _, err := fsys.Lstat(path); {
		case err == nil:
			return &Refusal{
				Reason: ErrEncryptionOff,
				Detail: path + " is there",
				Do:     "start this node with encryption configured",
			}
		case !errors.Is(err, fs.ErrNotExist):
			return errors.Wrapf(err, "guard: look for %s", path)
		}
	}
	return nil
}

// keyFiles are the files that hold keys. In generation-1 mode keys.json is only a
// view of the second, which is enough for a node to have keys.
var keyFiles = []string{sidecar.FileName, MetaName}

// Filesystem finds out by trying whether the file system of dir can replace a file
// durably. It leaves nothing behind. The caller has the directory to itself. A
// full disk, or one that fails, is no refusal but an error of its own.
func Filesystem(fsys durable.FS, dir string) error {
	err := durable.Probe(fsys, dir)
	if errors.Is(err, durable.ErrUnsupportedFS) {
		return &Refusal{
			Reason: ErrFilesystem,
			Do:     "put the directory on a local file system, such as ext4, XFS or APFS",
			Err:    err,
		}
	}
	return err
}

// Sidecar turns an error of [sidecar.Open] or [sidecar.Create] into the refusal
// that it stands for. Others are returned as they are, among them
// [fs.ErrNotExist], which is no refusal.
func Sidecar(err error) error {
	for _, m := range sidecarErrors {
		if errors.Is(err, m.err) {
			return &Refusal{Reason: m.reason, Do: m.do, Err: err}
		}
	}
	if held := (*sidecar.LockedError)(nil); errors.As(err, &held) {
		return &Refusal{
			Reason: ErrInUse,
			Do:     "two processes of one node must not run at once: end that one first",
			Err:    err,
		}
	}
	return err
}

// sidecarErrors are tried in this order. What the texts of package sidecar advise
// is repeated here word for word, so that it is said once.
var sidecarErrors = []struct {
	err, reason error
	do          string
}{
	{sidecar.ErrOtherNode, ErrOtherNode, "give each node its own directory; one is not made by copying another's"},
	{sidecar.ErrFileKey, ErrKEKMismatch, "if it is gone for good, " + rejoin},
	{sidecar.ErrVersion, ErrTampered, "run the version of the library that wrote it, or upgrade it as the release notes say"},
	{sidecar.ErrMalformed, ErrTampered, "if there is no such copy, " + rejoin},
	{sidecar.ErrMAC, ErrTampered, "if there is no such copy, " + rejoin},
	{sidecar.ErrInsecureMode, ErrTampered, "find out who could read or change it, then chmod 600"},
	{sidecar.ErrTooLarge, ErrTampered, "put back the last copy that this node wrote; if there is none, " + rejoin},
	{durable.ErrNotRegular, ErrTampered, "put the file itself in its place"},
	{kek.ErrUnreachable, ErrKEKUnreachable, doUnreachable},
	{kek.ErrDenied, ErrKEKUnreachable, doDenied},
}
