package guard

import (
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// MetaName is the file of version 3 beside a keys.json of generation 1.
const MetaName = "keys.meta.json"

// View turns an error of reading a keys.json of generation 1 into the refusal that it
// stands for. Others, and nil, are returned as they are.
func View(err error) error {
	if errors.Is(err, generation1.ErrVersion) {
		return &Refusal{Reason: ErrTampered, Do: "start without generation-1 mode if this directory was upgraded", Err: err}
	}
	for _, e := range []error{
		generation1.ErrMalformed, generation1.ErrKeyID, generation1.ErrPurpose, generation1.ErrActiveMissing,
		generation1.ErrActiveMismatch, generation1.ErrWrap, generation1.ErrCutover, generation1.ErrTooLarge,
		durable.ErrTooLarge, durable.ErrNotRegular,
	} {
		if errors.Is(err, e) {
			return &Refusal{Reason: ErrTampered, Do: "put back the last copy that the reference system wrote", Err: err}
		}
	}
	return err
}

// ViewAhead is the refusal of a keys.json of generation 1 that knows more than the
// keys.meta.json from which it is written: detail says what, of a key if it is not 0.
func ViewAhead(k key.ID, detail string) error {
	return &Refusal{
		Reason: ErrTampered,
		Key:    k,
		Detail: "it is ahead of " + MetaName + ": " + detail + ": another program has written it, or " + MetaName + " is an old copy",
		Do: "put back the last " + MetaName + " that this node wrote; if the reference system has run here, " +
			"move " + MetaName + " away and take over again",
	}
}

// NotTakenOver is the refusal of a keys.json of generation 1 that lies alone: the file
// that is authentic is lost, or was removed, or there was none yet.
func NotTakenOver(view string) error {
	return &Refusal{
		Reason: ErrKeysMissing,
		Detail: view + " is there without " + MetaName + ", and nothing authenticates it",
		Do: "put back the last " + MetaName + " that this node wrote; if the reference system wrote " + view +
			", take over in one start (TakeOver); else " + rejoin,
	}
}

// NotGeneration1 refuses to begin anew, in generation 2, a directory that lost its
// keys.json and is of generation 1.
func NotGeneration1(fsys durable.FS, dir string) error {
	path := filepath.Join(dir, MetaName)
	switch _, err := fsys.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errors.Wrapf(err, "guard: look for %s", path)
	}
	return &Refusal{
		Reason: ErrKeysMissing,
		Detail: "there is no keys.json, and " + path + " says that this directory is of generation 1",
		Do:     "start it in generation-1 mode, or upgrade it first; if it was upgraded before, put back its keys.json, or else " + rejoin,
	}
}
