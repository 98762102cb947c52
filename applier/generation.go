package applier

import (
	"fmt"

	"github.com/atrestdb/atrest/key"
)

// Generation is a family of formats. Generation 2 is this library's own;
// generation 1 is that of the system whose data it can take over.
type Generation uint8

// The generations.
const (
	Generation1 Generation = 1
	Generation2 Generation = 2
)

// An entry of generation 2 begins with a magic, so that no message of the host is
// taken for one; the first byte begins no message of Protocol Buffers. One of
// generation 1 begins with its opcode.
const (
	entryMagic = "\xa7EN\x02"

	opcodeRegistration = 0x03
	opcodeBootstrap    = 0x04
	opcodeRotation     = 0x05
	opcodeLast         = 0x07 // of those that generation 1 reserves

	subRotateDEK     = 0x01
	subRewrapDEKs    = 0x02
	subAct           = 0x03
	subEnableStorage = 0x04
	subEnableRaft    = 0x05

	actStop         = 0x01
	actDestroy      = 0x02
	actWriterGone   = 0x03
	actBackupAdd    = 0x04
	actBackupForget = 0x05
)

// IsEntry reports whether a payload is an entry of generation 2, known or not.
func IsEntry(payload []byte) bool { return Generation2.IsEntry(payload) }

// IsEntry reports whether a payload is an entry of this generation, known or not.
func (g Generation) IsEntry(payload []byte) bool {
	if g == Generation1 {
		return len(payload) > 0 && opcodeRegistration <= payload[0] && payload[0] <= opcodeLast
	}
	return len(payload) >= len(entryMagic) && string(payload[:len(entryMagic)]) == entryMagic
}

// String returns the generation's name.
func (g Generation) String() string { return fmt.Sprintf("generation %d", uint8(g)) }

func (g Generation) magic() string {
	if g == Generation1 {
		return ""
	}
	return entryMagic
}

// wireVersion is the version of every opcode's body.
func (g Generation) wireVersion() byte { return byte(g) }

// maxWrap bounds a wrapped key, in bytes.
func (g Generation) maxWrap() int {
	if g == Generation1 {
		return MaxWrap1
	}
	return key.MaxContainer
}
