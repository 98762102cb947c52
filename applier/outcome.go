package applier

import (
	"fmt"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Outcome is what became of an entry, on every replica. It goes to who proposed
// it, and never into the host's state.
type Outcome struct {
	Kind Kind
	Op   Op // 0 for an entry that was not looked at
	// Why says why nothing happened: [ErrReplayed] or [ErrDuplicate] for a NoOp, a
	// *[Rejection] for a rejection.
	Why error
	// What changed.
	Keys         []key.ID
	Writers      []Writer
	Registration Registered
}

// Kind is the sort of an outcome.
type Kind uint8

// The kinds.
const (
	Applied  Kind = iota + 1 // the state changed
	NoOp                     // it already was as the entry wants it
	Rejected                 // the entry may not take effect
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Applied:
		return "applied"
	case NoOp:
		return "no-op"
	case Rejected:
		return "rejected"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Registered is what an applied registration did.
type Registered uint8

// What a registration can do.
const (
	NotRegistered      Registered = iota
	RegisteredNew                 // the first of this node for this key
	RegisteredAdvanced            // above the node's last epoch
)

// String returns it in one word.
func (r Registered) String() string {
	switch r {
	case NotRegistered:
		return "none"
	case RegisteredNew:
		return "new"
	case RegisteredAdvanced:
		return "advanced"
	}
	return fmt.Sprintf("registered(%d)", uint8(r))
}

// Why an entry does nothing.
var (
	ErrReplayed  = errors.New("applied before")
	ErrDuplicate = errors.New("already so")
)

// Why an entry is rejected, besides [ErrMalformed]. What a proposer does: look at
// the state and make another entry (the first group), take a higher epoch
// (ErrStaleEpoch, ErrSameEpoch), or find out who proposes such things.
var (
	ErrNotBootstrapped = errors.New("there are no keys yet: bootstrap first")
	ErrBootstrapped    = errors.New("there are keys already")
	ErrUnknownKey      = errors.New("no such key")
	ErrKeyExists       = errors.New("the key id is taken")
	ErrKeyReused       = errors.New("the same key has another id already")
	ErrKeyActive       = errors.New("the key is active: rotate first")
	ErrKeyStopped      = errors.New("the key is stopped")
	ErrKeyDestroyed    = errors.New("the key is destroyed")
	ErrNotStopped      = errors.New("the key is not stopped: stop it first")
	ErrStopIndex       = errors.New("the key was stopped at another index")
	ErrEvidence        = errors.New("not proved that nobody needs the key")
	ErrBackup          = errors.New("a registered backup needs the key")
	ErrBackupExists    = errors.New("the backup is registered with other keys")
	ErrStaleMarker     = errors.New("the key is not the active one: make the entry anew")

	ErrStaleEpoch = errors.New("the epoch is below the node's last one")
	ErrSameEpoch  = errors.New("another load of the node has registered the epoch")
	ErrCollision  = errors.New("two nodes share the low 16 bits of their ids: one of them needs another name")
	ErrWriterGone = errors.New("the node was marked as gone for good")

	ErrContainer  = errors.New("the container is not that of the key")
	ErrForeignRow = errors.New("a row of the registry names another key")
	ErrNodeZero   = errors.New("0 names no node")
	ErrLimit      = errors.New("more than the state may hold")
)

// Rejection says why an entry was rejected. It matches its Reason.
type Rejection struct { //nolint:errname // It is an outcome, which every replica agrees on, before it is an error.
	Op     Op
	Reason error
	Key    key.ID    // 0 if it is about none
	Node   nodeid.ID // 0 if it is about none
	Detail string
}

func (r *Rejection) Error() string {
	text := "applier: entry rejected"
	if r.Op != 0 {
		text = fmt.Sprintf("applier: %v rejected", r.Op)
	}
	if r.Key != 0 {
		text += fmt.Sprintf(": key %s", r.Key)
	}
	if r.Node != 0 {
		text += fmt.Sprintf(": node %s", r.Node)
	}
	text += ": " + r.Reason.Error()
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// Unwrap returns the reason.
func (r *Rejection) Unwrap() error { return r.Reason }
