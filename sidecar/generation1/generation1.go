// Package generation1 is keys.json as the reference system writes it, versions 1 and
// 2, bit for bit: the view of a node's keys that hosts in generation-1 mode keep for
// tools of that system, and what they begin with when they take over a directory.
//
// [Parse] reads a file and [File.Append] writes one. Nothing in it is authenticated:
// that is what the file beside it is for, which package sidecar keeps.
//
// # Stricter than the reference system
//
// Parse accepts what that system writes and nothing else. Refused are, where it is
// lenient: members that it does not know (and would drop), a member twice or in other
// letter case, key ids with leading zeros, another order, indentation or end of the
// file, a wrapped key of 0 or of more than 4096 bytes, text in created that is not
// UTF-8, files above [MaxSize], a raft cutover without an active raft key, an index of
// the storage cutover where storage is not active, and one in version 1, which has no
// member for it.
package generation1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/atrestdb/atrest/key"
)

// FileName is the name of the file in its directory.
const FileName = "keys.json"

// Limits of the file.
const (
	MaxSize = 64 << 20 // bytes
	MaxWrap = 4096     // bytes of one wrapped key, and at least one
)

// What is wrong with a file. No retry helps.
var (
	ErrVersion        = errors.New("version is neither 1 nor 2")
	ErrMalformed      = errors.New("not as the reference system writes it")
	ErrKeyID          = errors.New("not a key id")
	ErrPurpose        = errors.New("unknown purpose")
	ErrActiveMissing  = errors.New("the active key is not in the file")
	ErrActiveMismatch = errors.New("the active key has another purpose")
	ErrWrap           = errors.New("wrapped key of a wrong size")
	ErrCutover        = errors.New("cutover without a key")
	ErrTooLarge       = errors.New("too large")
)

// File is what one file says.
type File struct {
	Version        int // 1 or 2
	Applied        uint64
	StorageActive  bool
	StorageCutover uint64 // not in version 1
	RaftCutover    uint64 // 0: none
	Storage, Raft  key.ID // the active keys, 0: none
	Keys           map[key.ID]Key
}

// Key is one wrapped key.
type Key struct {
	Purpose key.Purpose
	Wrapped []byte
	Created string // RFC 3339 as the reference system writes it; anything is accepted
	Epoch   uint16
}

type version1 struct {
	Version       int                `json:"version"`
	Applied       uint64             `json:"raft_applied_index"`
	StorageActive bool               `json:"storage_envelope_active"`
	RaftCutover   uint64             `json:"raft_envelope_cutover_index"`
	Active        active             `json:"active"`
	Keys          map[string]keyText `json:"keys"`
}

type version2 struct {
	Version        int                `json:"version"`
	Applied        uint64             `json:"raft_applied_index"`
	StorageActive  bool               `json:"storage_envelope_active"`
	StorageCutover uint64             `json:"storage_envelope_cutover_index"`
	RaftCutover    uint64             `json:"raft_envelope_cutover_index"`
	Active         active             `json:"active"`
	Keys           map[string]keyText `json:"keys"`
}

type active struct {
	Storage uint32 `json:"storage"`
	Raft    uint32 `json:"raft"`
}

type keyText struct {
	Purpose string `json:"purpose"`
	Wrapped []byte `json:"wrapped"`
	Created string `json:"created"`
	Epoch   uint16 `json:"local_epoch"`
}

// Parse reads a file. The result holds copies; on error it is nil.
func Parse(b []byte) (*File, error) {
	if len(b) > MaxSize {
		return nil, fail(ErrTooLarge, "%d bytes, at most %d are allowed", len(b), MaxSize)
	}
	var head struct{ Version int }
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fail(ErrMalformed, "%v", err)
	}
	t := version2{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var err error
	switch head.Version {
	case 1:
		one := version1{}
		err = d.Decode(&one)
		t = version2{
			Version: one.Version, Applied: one.Applied, StorageActive: one.StorageActive,
			RaftCutover: one.RaftCutover, Active: one.Active, Keys: one.Keys,
		}
	case 2:
		err = d.Decode(&t)
	default:
		return nil, fail(ErrVersion, "got %d", head.Version)
	}
	if err != nil {
		return nil, fail(ErrMalformed, "%v", err)
	}
	f, err := t.file()
	if err != nil {
		return nil, err
	}
	again, err := f.Append(nil)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fail(ErrMalformed, "it says the same in another form")
	}
	return f, nil
}

// file converts the keys in the order of their ids, so that of several errors always
// the same one is reported.
func (t version2) file() (*File, error) {
	f := &File{
		Version: t.Version, Applied: t.Applied, StorageActive: t.StorageActive, StorageCutover: t.StorageCutover,
		RaftCutover: t.RaftCutover, Storage: key.ID(t.Active.Storage), Raft: key.ID(t.Active.Raft), Keys: map[key.ID]Key{},
	}
	for _, name := range slices.Sorted(maps.Keys(t.Keys)) {
		id, err := key.ParseID(name)
		if err != nil {
			return nil, fmt.Errorf("generation1: keys.json: %w: %w", ErrKeyID, err)
		}
		k := t.Keys[name]
		p, ok := purposes[k.Purpose]
		if !ok {
			return nil, fail(ErrPurpose, "key %s: %q", id, k.Purpose)
		}
		f.Keys[id] = Key{Purpose: p, Wrapped: k.Wrapped, Created: k.Created, Epoch: k.Epoch}
	}
	return f, nil
}

var purposes = map[string]key.Purpose{"storage": key.Storage, "raft": key.Raft}

// Append appends the file's bytes to dst: no newline at the end. On error it returns
// nil.
func (f *File) Append(dst []byte) ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	t := version2{
		Version: f.Version, Applied: f.Applied, StorageActive: f.StorageActive, StorageCutover: f.StorageCutover,
		RaftCutover: f.RaftCutover, Active: active{uint32(f.Storage), uint32(f.Raft)}, Keys: map[string]keyText{},
	}
	for id, k := range f.Keys {
		t.Keys[id.String()] = keyText{Purpose: k.Purpose.String(), Wrapped: k.Wrapped, Created: k.Created, Epoch: k.Epoch}
	}
	var v any = t
	if f.Version == 1 {
		v = version1{t.Version, t.Applied, t.StorageActive, t.RaftCutover, t.Active, t.Keys}
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fail(ErrMalformed, "%v", err)
	}
	return append(dst, text...), nil
}

func (f *File) check() error {
	switch {
	case f.Version != 1 && f.Version != 2:
		return fail(ErrVersion, "got %d", f.Version)
	case f.Version == 1 && f.StorageCutover != 0:
		return fail(ErrVersion, "version 1 has no index of the storage cutover")
	case f.RaftCutover != 0 && f.Raft == 0:
		return fail(ErrCutover, "of Raft, at %d", f.RaftCutover)
	case f.StorageCutover != 0 && !f.StorageActive:
		return fail(ErrCutover, "of storage, at %d, is not in force", f.StorageCutover)
	}
	for _, id := range slices.Sorted(maps.Keys(f.Keys)) {
		k := f.Keys[id]
		switch {
		case id == 0:
			return fmt.Errorf("generation1: keys.json: %w: %w", ErrKeyID, key.ErrReservedID)
		case !k.Purpose.Valid():
			return fail(ErrPurpose, "key %s", id)
		case len(k.Wrapped) == 0 || len(k.Wrapped) > MaxWrap:
			return fail(ErrWrap, "key %s: %d bytes, want 1 to %d", id, len(k.Wrapped), MaxWrap)
		case strings.ToValidUTF8(k.Created, "") != k.Created:
			return fail(ErrMalformed, "key %s: created is not UTF-8", id)
		}
	}
	for _, a := range [...]struct {
		id key.ID
		p  key.Purpose
	}{{f.Storage, key.Storage}, {f.Raft, key.Raft}} {
		if a.id == 0 {
			continue
		}
		k, ok := f.Keys[a.id]
		switch {
		case !ok:
			return fail(ErrActiveMissing, "%v key %s", a.p, a.id)
		case k.Purpose != a.p:
			return fail(ErrActiveMismatch, "%v key %s", a.p, a.id)
		}
	}
	return nil
}

func fail(err error, format string, args ...any) error {
	return fmt.Errorf("generation1: keys.json: %w: %s", err, fmt.Sprintf(format, args...))
}
