// Package key is the vocabulary of the module: what identifies a data
// encryption key (DEK), what it is for, what state it is in, and the bytes in
// which it travels and rests, wrapped under key encryption keys (KEKs).
//
// Most code meets [ID], [Purpose] and [State]. A [DEK] itself is opaque: it can
// be made ([NewDEK]), passed on and compared by its [Check], never read;
// package key/insecurekey is the door for tests and forensics. A wrapped DEK is
// a [Container]; package kek wraps and unwraps them.
//
// The bytes of a container are stable; docs/FORMATS.md draws them.
package key

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/atrestdb/atrest/internal/secret"
)

// Errors of this package. A caller that sees one holds bytes or numbers that no
// correct writer made.
var (
	ErrReservedID = errors.New("key: id 0 is reserved")
	ErrPurpose    = errors.New("key: unknown purpose")
	ErrState      = errors.New("key: unknown state")
	ErrClusterID  = errors.New("key: a cluster id is 32 hexadecimal digits")
)

// ID names one DEK within a cluster. 0 names none.
type ID uint32

// String returns the id in decimal.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// ParseID reads the canonical decimal form: no sign, no leading zero, not 0.
func ParseID(s string) (ID, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("key: id %q is not a canonical decimal 32-bit number", s)
	}
	if n == 0 {
		return 0, ErrReservedID
	}
	return ID(n), nil
}

// NewID returns a random id other than 0. It may be in use; who owns the key
// table checks that.
func NewID() ID {
	for {
		var b [4]byte
		rand.Read(b[:])
		if id := ID(b[0])<<24 | ID(b[1])<<16 | ID(b[2])<<8 | ID(b[3]); id != 0 {
			return id
		}
	}
}

// Purpose says what a DEK is for. A key of one purpose never works for another.
type Purpose uint8

// The purposes. Their numbers are part of the formats.
const (
	Storage Purpose = 1 // values and streams
	Raft    Purpose = 2 // Raft log payloads
)

// Valid reports whether p is a known purpose.
func (p Purpose) Valid() bool { return p == Storage || p == Raft }

// String returns "storage" or "raft".
func (p Purpose) String() string {
	switch p {
	case Storage:
		return "storage"
	case Raft:
		return "raft"
	}
	return fmt.Sprintf("purpose(%d)", uint8(p))
}

// MarshalText refuses an unknown purpose.
func (p Purpose) MarshalText() ([]byte, error) {
	if !p.Valid() {
		return nil, fmt.Errorf("%w: %d", ErrPurpose, uint8(p))
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (p *Purpose) UnmarshalText(b []byte) error {
	switch string(b) {
	case "storage":
		*p = Storage
	case "raft":
		*p = Raft
	default:
		return fmt.Errorf("%w: %q", ErrPurpose, b)
	}
	return nil
}

// State is a key's place in its life: active, open-only, stopped, destroyed, in
// this order and never back.
type State uint8

// The states. Their numbers are part of the formats.
const (
	Active    State = 1 // new values are sealed under it
	OpenOnly  State = 2 // it was active, or waits to be; it opens
	Stopped   State = 3 // nothing may be sealed under it any more; it opens
	Destroyed State = 4 // the wrapped key is gone; only the id remains
)

var stateNames = [...]string{Active: "active", OpenOnly: "open-only", Stopped: "stopped", Destroyed: "destroyed"}

// Valid reports whether s is a known state.
func (s State) Valid() bool { return s >= Active && s <= Destroyed }

// String returns the state's name.
func (s State) String() string {
	if !s.Valid() {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return stateNames[s]
}

// MarshalText refuses an unknown state.
func (s State) MarshalText() ([]byte, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("%w: %d", ErrState, uint8(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) error {
	for i, name := range stateNames {
		if name != "" && name == string(b) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("%w: %q", ErrState, b)
}

// ClusterID is the 16 random bytes that a cluster gets at bootstrap. Zero means
// none: generation 1 had no cluster id.
type ClusterID [16]byte

// NewClusterID returns a random cluster id.
func NewClusterID() ClusterID {
	var c ClusterID
	rand.Read(c[:])
	return c
}

// IsZero reports whether c is the zero id.
func (c ClusterID) IsZero() bool { return c == ClusterID{} }

// String returns 32 hexadecimal digits.
func (c ClusterID) String() string { return hex.EncodeToString(c[:]) }

// MarshalText returns 32 hexadecimal digits.
func (c ClusterID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads 32 lower-case hexadecimal digits.
func (c *ClusterID) UnmarshalText(b []byte) error {
	var d ClusterID
	if n, err := hex.Decode(d[:], b[:min(len(b), 2*len(d))]); err != nil || n != len(d) || d.String() != string(b) {
		return fmt.Errorf("%w: got %q", ErrClusterID, b)
	}
	*c = d
	return nil
}

// DEK is an opaque data encryption key. It prints, encodes and logs as a fixed
// word. The zero DEK holds no key.
type DEK = secret.Key

// NewDEK returns a new random DEK.
func NewDEK() DEK { return secret.Random() }

// EqualDEK compares two DEKs in constant time.
func EqualDEK(a, b DEK) bool { return secret.Equal(a, b) }

// Check is a key check value: 16 bytes derived from a DEK by HKDF, which tell
// whether an unwrapped key is the one that was wrapped, and say nothing else
// about it. Finding two keys with one check value takes about 2^64 work.
type Check [16]byte

// checkLabel is part of the container format.
const checkLabel = "atrest/v2/key-check"

// CheckOf returns the check value of a DEK, which must not be zero.
func CheckOf(d DEK) Check { return Check(secret.Expand(d, checkLabel, len(Check{}))) }

// String returns 32 hexadecimal digits.
func (c Check) String() string { return hex.EncodeToString(c[:]) }
