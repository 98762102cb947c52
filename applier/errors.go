package applier

import (
	"fmt"

	"github.com/cockroachdb/errors"
)

// ErrMalformed says that the body of an entry is not what its version allows. All
// replicas see the same bytes, so the entry is rejected by all of them.
var ErrMalformed = errors.New("malformed entry")

// What makes a replica stop. The entry was not applied, and comes again.
var (
	// ErrIndex says that an entry has index 0, which no log gives.
	ErrIndex = errors.New("an entry has an index above 0")
	// ErrInvariant says that a state is not one that entries can lead to. It is a
	// bug of this library.
	ErrInvariant = errors.New("key state breaks an invariant")
)

// UnknownError says that an entry is of a later version of this library. Others
// apply what this replica does not know, so it must stop, not skip.
type UnknownError struct {
	What  string // opcode, wire version, sub-tag, act, purpose or generation
	Value byte
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("applier: unknown %s %#02x: a later version of this library made the entry; upgrade this node, then start it again", e.What, e.Value)
}

func malformed(format string, args ...any) error {
	return errors.Wrapf(ErrMalformed, "applier: "+format, args...)
}
