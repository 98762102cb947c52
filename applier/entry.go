package applier

import (
	"encoding/hex"
	"fmt"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// Entry is one of the types below, as a value.
type Entry interface{ op() Op }

// Op is what an entry does.
type Op uint8

// The operations.
const (
	OpRegistration Op = iota + 1
	OpBootstrap
	OpRotateDEK
	OpRewrapDEKs
	OpStop
	OpDestroy
	OpWriterGone
	OpBackupAdd
	OpBackupForget
	OpEnableStorage
	OpEnableRaft
)

var opNames = [...]string{
	OpRegistration: "registration", OpBootstrap: "bootstrap", OpRotateDEK: "rotate-dek", OpRewrapDEKs: "rewrap-deks",
	OpStop: "stop", OpDestroy: "destroy", OpWriterGone: "writer-gone", OpBackupAdd: "backup-add",
	OpBackupForget: "backup-forget", OpEnableStorage: "enable-storage-envelope", OpEnableRaft: "enable-raft-envelope",
}

// String returns the operation's name.
func (o Op) String() string {
	if o == 0 || int(o) >= len(opNames) {
		return fmt.Sprintf("op(%d)", uint8(o))
	}
	return opNames[o]
}

// LoadID names one process's use of its keys, from start to end. It is random.
type LoadID [16]byte

// String returns 32 hexadecimal digits.
func (l LoadID) String() string { return hex.EncodeToString(l[:]) }

// BackupID names a backup. The host chooses it.
type BackupID [16]byte

// String returns 32 hexadecimal digits.
func (b BackupID) String() string { return hex.EncodeToString(b[:]) }

// WrappedKey is a DEK on its way: a [key.Container], or in generation 1 the bytes
// that a KEK made.
type WrappedKey struct {
	ID   key.ID
	Wrap []byte
}

// WriterRow says that a node may seal under a key, from an epoch on.
type WriterRow struct {
	Key   key.ID
	Node  nodeid.ID
	Epoch uint16
}

// Registration makes an epoch of a key one load's own.
type Registration struct {
	Key   key.ID
	Node  nodeid.ID
	Epoch uint16
	Load  LoadID // zero in generation 1
}

// Bootstrap brings the first two keys. Writers reserves a place in the registry
// for each member.
type Bootstrap struct {
	Storage, Raft WrappedKey
	Writers       []WriterRow
}

// Rotation brings a new key and makes it the active one of its purpose.
type Rotation struct {
	Key      WrappedKey
	Purpose  key.Purpose
	Proposer WriterRow
}

// Rewrap replaces the containers of keys, ascending by id.
type Rewrap struct{ Keys []WrappedKey }

// Stop ends sealing under a key that is not active.
type Stop struct{ Key key.ID }

// Destroy gives up a stopped key.
type Destroy struct {
	Key      key.ID
	Stopped  uint64      // index of its stop
	Members  []nodeid.ID // of the cluster, ascending
	Evidence []Evidence  // ascending by node
}

// Evidence is what one node says about its need of a key.
type Evidence struct {
	Node           nodeid.ID
	Taken          uint64 // applied index at which it was taken
	Live           uint64 // values under the key in the synced store and in every snapshot that is kept or being taken
	FirstLog       uint64 // first index that the log still has
	OldestSnapshot uint64 // index of the oldest snapshot that is kept or being taken, 0 if there is none
}

// WriterGone says that a node will never seal again.
type WriterGone struct{ Node nodeid.ID }

// BackupAdd says that a backup needs keys, ascending by id.
type BackupAdd struct {
	Backup BackupID
	Keys   []key.ID
}

// BackupForget says that a backup needs no keys any more.
type BackupForget struct{ Backup BackupID }

// EnableStorage begins to seal values.
type EnableStorage struct {
	Key      key.ID // the active storage key
	Proposer WriterRow
}

// EnableRaft begins to seal Raft payloads.
type EnableRaft struct {
	Key      key.ID // the active Raft key
	Proposer WriterRow
}

func (Registration) op() Op  { return OpRegistration }
func (Bootstrap) op() Op     { return OpBootstrap }
func (Rotation) op() Op      { return OpRotateDEK }
func (Rewrap) op() Op        { return OpRewrapDEKs }
func (Stop) op() Op          { return OpStop }
func (Destroy) op() Op       { return OpDestroy }
func (WriterGone) op() Op    { return OpWriterGone }
func (BackupAdd) op() Op     { return OpBackupAdd }
func (BackupForget) op() Op  { return OpBackupForget }
func (EnableStorage) op() Op { return OpEnableStorage }
func (EnableRaft) op() Op    { return OpEnableRaft }
