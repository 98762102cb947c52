// Package guard holds the refusals to start: what a node checks before it uses a
// directory, a key or an epoch that could do harm.
//
// Each check is a small function of plain inputs. It returns nil, an error of what
// it asked (a full disk, a cancelled context), or a *[Refusal], whose text names
// the cause, the key or the member, and what the operator does next. A check never
// changes anything, and where several keys or members are at fault it always names
// the same one: the one with the lowest id.
//
// [ErrKEKUnreachable] is the one reason that may pass by itself. After all others
// the same start fails again until somebody does what the text says.
package guard

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
)

// The reasons of a [Refusal].
var (
	// ErrEncryptionOff says that there is encryption state and no encryption.
	ErrEncryptionOff = errors.New("encryption is off, but the directory holds keys")
	// ErrNoKEK says that there is nothing to wrap and unwrap keys with.
	ErrNoKEK = errors.New("no KEK is configured")
	// ErrKEKMismatch says that the configured KEKs do not open a key, and never
	// will.
	ErrKEKMismatch = errors.New("the configured KEKs are not those of the keys")
	// ErrKEKUnreachable says that no KEK did its work now; it may later.
	ErrKEKUnreachable = errors.New("no KEK can be used at the moment")
	// ErrFilesystem says that what was made durable may be gone after a power loss.
	ErrFilesystem = errors.New("the file system cannot keep keys")
	// ErrInUse says that another process has the directory.
	ErrInUse = errors.New("the directory is in use")
	// ErrOtherNode says that the directory was made by another node.
	ErrOtherNode = errors.New("the directory is another node's")
	// ErrTampered says that keys.json was changed, or could have been, by something
	// else than this version of the library.
	ErrTampered = errors.New("keys.json cannot be used as it is")
	// ErrKeysMissing says that keys.json is lost, or an empty one is in its place.
	ErrKeysMissing = errors.New("the keys are missing")
	// ErrBehindLog says that the log lacks entries that the key state needs.
	ErrBehindLog = errors.New("the key state is behind the log")
	// ErrDivergence says that two states of one log contradict each other.
	ErrDivergence = errors.New("the key states differ")
	// ErrCollision says that two members could repeat each other's nonces.
	ErrCollision = errors.New("node ids collide")
	// ErrEpochRollback says that this node used an epoch that it knows nothing of.
	ErrEpochRollback = errors.New("an epoch was used that keys.json does not know")
	// ErrEpochExhausted says that a key has no epoch left for another start.
	ErrEpochExhausted = errors.New("no epoch is left")
)

// Refusal says why a node does not start. It matches Reason, and Err if there is
// one.
type Refusal struct { //nolint:errname // The word of this package.
	Reason error
	Key    key.ID // 0 where it is about none
	Member string // or several, or empty
	Detail string // what was found
	Do     string // what the operator does next
	Err    error  // what it was found by, or nil
}

// Error puts the parts together. What the text of Err says already is not said
// again.
func (r *Refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "guard: %v", r.Reason)
	if r.Key != 0 {
		fmt.Fprintf(&b, ": key %s", r.Key)
	}
	for _, part := range []string{r.Member, r.Detail} {
		if part != "" {
			b.WriteString(": " + part)
		}
	}
	cause := ""
	if r.Err != nil {
		cause = r.Err.Error()
		b.WriteString(": " + cause)
	}
	if r.Do != "" && !strings.HasSuffix(cause, r.Do) {
		b.WriteString("; " + r.Do)
	}
	return b.String()
}

// Unwrap makes errors.Is and errors.As work.
func (r *Refusal) Unwrap() []error {
	var out []error
	for _, err := range []error{r.Reason, r.Err} {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}

// rejoin is what is left where nothing on this node helps. The others have the
// keys, and the registry knows the epochs of a member that starts from nothing.
const rejoin = "remove this member from the cluster and let it join again with an empty directory"
