package atrest

import (
	"github.com/cockroachdb/errors"
)

// What a host does about an error of this package.
var (
	// ErrRejected says that a Raft payload must not take effect. All replicas
	// say so of the same payloads: fail that proposal, advance the applied
	// index, go on.
	ErrRejected = errors.New("Raft payload rejected by every replica")
	// ErrRetry matches every error that may pass: nothing was changed, and the
	// same call may succeed later.
	ErrRetry = errors.New("try again")
	// ErrClosed says that the node is closed.
	ErrClosed = errors.New("atrest: node is closed")
	// ErrConfig says what is missing or wrong in a Config.
	ErrConfig = errors.New("bad configuration")
	// ErrOrder says that a call came at the wrong time: an Apply before CatchUp,
	// a second CatchUp, an Import into a node that has keys. The program is
	// wrong, not the data; but that a backup has to be registered anew may be due
	// to a rotation that came first.
	ErrOrder = errors.New("called at the wrong time")
	// ErrReservedPrefix refuses a payload that begins like one of this package's
	// own: if a client could propose it, it could change keys.
	ErrReservedPrefix = errors.New("payload begins with bytes that are reserved for encryption")
	// ErrCleartext refuses a value in clear after the storage cutover, where
	// the host asked for that with WithStrictValues.
	ErrCleartext = errors.New("value in clear after the storage cutover")
	// ErrSnapshot says that the bytes given to Restore or Import were not made by
	// Snapshot, or were changed since.
	ErrSnapshot = errors.New("not an authentic snapshot of key state")
	// ErrBackup says that the bytes are not a whole backup that the given KEKs open.
	ErrBackup = errors.New("not a whole and authentic backup, or one for other KEKs")
	// ErrVersion says that a later version of this library wrote the bytes.
	ErrVersion = errors.New("of a version that is not known here")
	// ErrOtherCluster says that a snapshot is of another cluster.
	ErrOtherCluster = errors.New("snapshot of another cluster")
)

// marked is an error that also matches another one, which says what kind it is.
type marked struct {
	error
	kind error
}

func (m marked) Unwrap() []error { return []error{m.kind, m.error} }

func (m marked) Error() string { return m.error.Error() + ": " + m.kind.Error() }

// retryable is an error that also matches ErrRetry.
type retryable struct{ error }

func (r retryable) Unwrap() []error { return []error{ErrRetry, r.error} }

// retry makes an error one that may pass.
func retry(err error) error { return retryable{err} }
