package envelope

import (
	"fmt"

	"github.com/atrestdb/atrest/key"
)

// RaftGroup is what a sealed Raft payload is bound to besides its header.
type RaftGroup struct {
	Cluster key.ClusterID
	Label   string // the host's name of the group, at most MaxGroup bytes
}

// AppendStorageAAD appends the associated data of a stored value:
//
//	version | flag | key id 4 | location
func AppendStorageAAD(dst []byte, h Header, location []byte) []byte {
	return append(h.append(dst), location...)
}

// AppendRaftAAD appends the associated data of a Raft payload of generation 2:
//
//	'R' | version | flag | key id 4 | cluster id 16 | group label
//
// The label is last, so no two groups share associated data. The first byte is
// no version, so a payload never passes for a stored value.
func AppendRaftAAD(dst []byte, h Header, g RaftGroup) []byte {
	return appendRaftAAD(dst, h, &g)
}

func appendRaftAAD(dst []byte, h Header, g *RaftGroup) []byte {
	dst = h.append(append(dst, 'R'))
	dst = append(dst, g.Cluster[:]...)
	return append(dst, g.Label...)
}

// AppendRaftAADGeneration1 appends the associated data of a Raft payload of
// generation 1:
//
//	'R' | version | key id 4
//
// It does not cover the flag, so it refuses every header but 0x01 with flag 0.
func AppendRaftAADGeneration1(dst []byte, h Header) ([]byte, error) {
	if h.Suite != AES256GCM || h.Flag != 0 {
		return nil, fmt.Errorf("%w: version 0x%02x, flag 0x%02x in a generation-1 Raft payload", ErrSuite, uint8(h.Suite), h.Flag)
	}
	return appendRaftAADGeneration1(dst, h), nil
}

func appendRaftAADGeneration1(dst []byte, h Header) []byte {
	id := h.KeyID
	return append(dst, 'R', byte(h.Suite), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// binding is what an envelope is sealed for: the part of its associated data
// that is not in its header. It lives on the stack of the call.
type binding struct {
	kind     uint8
	location []byte     // storage
	group    *RaftGroup // raft
}

const (
	storage uint8 = iota
	raft
	raftGeneration1
)

// size is the number of bytes that append appends.
func (b *binding) size() int {
	switch b.kind {
	case storage:
		return HeaderSize + len(b.location)
	case raft:
		return 1 + HeaderSize + len(b.group.Cluster) + len(b.group.Label)
	}
	return HeaderSize
}

// append appends the associated data of an envelope with this header, which for
// raftGeneration1 must be 0x01 with flag 0.
func (b *binding) append(dst []byte, h Header) []byte {
	switch b.kind {
	case storage:
		return AppendStorageAAD(dst, h, b.location)
	case raft:
		return appendRaftAAD(dst, h, b.group)
	}
	return appendRaftAADGeneration1(dst, h)
}

func locationError(location []byte) error {
	return fmt.Errorf("%w: location of %d bytes, at most %d", ErrTooLarge, len(location), MaxLocation)
}

func labelError(label string) error {
	return fmt.Errorf("%w: group label of %d bytes, at most %d", ErrTooLarge, len(label), MaxGroup)
}
