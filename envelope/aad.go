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
// version, flag, key id, location.
func AppendStorageAAD(dst []byte, h Header, location []byte) []byte {
	return append(appendHeader(dst, h), location...)
}

// AppendRaftAAD appends the associated data of a Raft payload:
// 'R', version, flag, key id, cluster id, group label.
func AppendRaftAAD(dst []byte, h Header, g RaftGroup) []byte {
	dst = appendHeader(append(dst, 'R'), h)
	dst = append(dst, g.Cluster[:]...)
	return append(dst, g.Label...)
}

// AppendRaftAADGeneration1 appends the associated data of a Raft payload of
// generation 1: 'R', version, key id. It covers no flag, so only 0x01 with flag
// 0 is accepted.
func AppendRaftAADGeneration1(dst []byte, h Header) ([]byte, error) {
	if h.Suite != AES256GCM || h.Flag != 0 {
		return nil, fmt.Errorf("%w: version 0x%02x, flag 0x%02x in a generation-1 Raft payload", ErrSuite, uint8(h.Suite), h.Flag)
	}
	var b [HeaderSize]byte
	h.put(b[:])
	return append(append(dst, 'R', b[0]), b[2:]...), nil
}

func appendHeader(dst []byte, h Header) []byte {
	var b [HeaderSize]byte
	h.put(b[:])
	return append(dst, b[:]...)
}
