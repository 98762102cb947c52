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

// aadSize is the number of bytes that AppendRaftAAD appends.
func (g *RaftGroup) aadSize() int { return 1 + HeaderSize + len(g.Cluster) + len(g.Label) }

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
		return nil, generation1Error(h)
	}
	return appendRaftAADGeneration1(dst, h), nil
}

func appendRaftAADGeneration1(dst []byte, h Header) []byte {
	id := h.KeyID
	return append(dst, 'R', byte(h.Suite), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func generation1Error(h Header) error {
	return fmt.Errorf("%w: version 0x%02x, flag 0x%02x in a generation-1 Raft payload", ErrSuite, uint8(h.Suite), h.Flag)
}

// binding is what an envelope is sealed for besides its header, where the kind
// matters little.
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

// check refuses what is above its limit.
func (b *binding) check() error {
	switch {
	case len(b.location) > MaxLocation:
		return fmt.Errorf("%w: location of %d bytes, at most %d", ErrTooLarge, len(b.location), MaxLocation)
	case b.group != nil && len(b.group.Label) > MaxGroup:
		return fmt.Errorf("%w: group label of %d bytes, at most %d", ErrTooLarge, len(b.group.Label), MaxGroup)
	}
	return nil
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
