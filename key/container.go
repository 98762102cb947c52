package key

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Limits of a container. They are part of the format.
const (
	MaxRecipients = 16   // and at least one
	MaxKEKID      = 255  // bytes in the id of a KEK, and at least one
	MaxParams     = 1024 // bytes of parameters
	MaxWrap       = 4096 // bytes of one wrapped key, and at least one

	// MaxContainer is the size of the largest container of either kind.
	MaxContainer = headerSize + 1 + MaxRecipients*(6+MaxKEKID+MaxParams+MaxWrap)
)

// The headers, drawn:
//
//	DEK       A7 'D' 'K' 02 | cluster id 16 | key id 4 | purpose 1 | check value 16
//	file key  A7 'F' 'K' 02 | full node id 8 | check value 16
//
// What follows is the same in both: a byte with the number of recipients, and
// for each of them the length in two bytes of, and then, KEK id, parameters and
// wrap. Numbers are big-endian.
const (
	magicDEK  = "\xa7DK\x02"
	magicFile = "\xa7FK\x02"

	headerSize     = 4 + 16 + 4 + 1 + 16
	fileHeaderSize = 4 + 8 + 16

	minRecipient = 2 + 1 + 2 + 2 + 1

	// fileKeyLabel begins the associated data of a wrapped file key, so that it is
	// none of a wrapped DEK whatever follows.
	fileKeyLabel = "atrest/v2/file-key"
)

// ErrContainer is returned for bytes that are no container and for values that
// fit into none. The text around it says what was found and what was wanted.
var ErrContainer = errors.New("not a valid key container")

// Header says which DEK a container holds. All of it is associated data of
// every wrap in the container.
type Header struct {
	Cluster ClusterID // zero where there is none
	ID      ID
	Purpose Purpose
	Check   Check
}

// FileHeader says whose file key a container holds: the key of one node's own
// files.
type FileHeader struct {
	Node  uint64 // full node id
	Check Check
}

// Recipient is one KEK's copy of the wrapped key.
type Recipient struct {
	KEK    string // id of the KEK: 1 to 255 printable ASCII characters, no spaces
	Params []byte // what the KEK needs to unwrap, such as a salt; may be empty
	Wrap   []byte // what the KEK made of the key
}

// Container is a DEK wrapped for one or more KEKs.
type Container struct {
	Header
	Recipients []Recipient
}

// FileContainer is a file key wrapped for one or more KEKs.
type FileContainer struct {
	FileHeader
	Recipients []Recipient
}

// AAD returns the associated data under which every KEK wraps the DEK.
func (h Header) AAD() []byte { return h.append(make([]byte, 0, headerSize)) }

// AAD returns the associated data under which every KEK wraps the file key.
func (h FileHeader) AAD() []byte {
	return h.append(append(make([]byte, 0, len(fileKeyLabel)+fileHeaderSize), fileKeyLabel...))
}

func (h Header) append(dst []byte) []byte {
	dst = append(dst, magicDEK...)
	dst = append(dst, h.Cluster[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.ID))
	dst = append(dst, byte(h.Purpose))
	return append(dst, h.Check[:]...)
}

func (h FileHeader) append(dst []byte) []byte {
	dst = append(dst, magicFile...)
	dst = binary.BigEndian.AppendUint64(dst, h.Node)
	return append(dst, h.Check[:]...)
}

func (h Header) validate() error {
	if h.ID == 0 {
		return fmt.Errorf("%w: %w", ErrReservedID, ErrContainer)
	}
	if !h.Purpose.Valid() {
		return fmt.Errorf("%w: %d: %w", ErrPurpose, uint8(h.Purpose), ErrContainer)
	}
	return nil
}

// IsFileContainer reports whether b begins like the container of a file key, for
// who handles both kinds.
func IsFileContainer(b []byte) bool { return bytes.HasPrefix(b, []byte(magicFile)) }

// ParseContainer reads the container of a DEK. The result holds copies. Only
// bytes that Append makes are accepted; on error the result is zero.
func ParseContainer(b []byte) (Container, error) {
	h, rest, err := cut(b, magicDEK, headerSize)
	if err != nil {
		return Container{}, err
	}
	c := Container{Header: Header{
		Cluster: ClusterID(h[4:20]),
		ID:      ID(binary.BigEndian.Uint32(h[20:24])),
		Purpose: Purpose(h[24]),
		Check:   Check(h[25:41]),
	}}
	if err := c.validate(); err != nil {
		return Container{}, err
	}
	if c.Recipients, err = parseRecipients(rest); err != nil {
		return Container{}, err
	}
	return c, nil
}

// ParseFileContainer reads the container of a file key. The result holds
// copies. Only bytes that Append makes are accepted; on error the result is
// zero.
func ParseFileContainer(b []byte) (FileContainer, error) {
	h, rest, err := cut(b, magicFile, fileHeaderSize)
	if err != nil {
		return FileContainer{}, err
	}
	c := FileContainer{FileHeader: FileHeader{
		Node:  binary.BigEndian.Uint64(h[4:12]),
		Check: Check(h[12:28]),
	}}
	if c.Recipients, err = parseRecipients(rest); err != nil {
		return FileContainer{}, err
	}
	return c, nil
}

// Append appends the container's bytes to dst. On error it returns nil.
func (c Container) Append(dst []byte) ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if err := validateRecipients(c.Recipients); err != nil {
		return nil, err
	}
	return appendRecipients(c.Header.append(dst), c.Recipients), nil
}

// Append appends the container's bytes to dst. On error it returns nil.
func (c FileContainer) Append(dst []byte) ([]byte, error) {
	if err := validateRecipients(c.Recipients); err != nil {
		return nil, err
	}
	return appendRecipients(c.FileHeader.append(dst), c.Recipients), nil
}

// cut splits off a header of size bytes that begins with magic.
func cut(b []byte, magic string, size int) (header, rest []byte, err error) {
	if len(b) < len(magic) {
		return nil, nil, malformed("%d bytes, want at least %d", len(b), size+1+minRecipient)
	}
	switch got := string(b[:len(magic)]); {
	case got == magic:
	case got == magicDEK:
		return nil, nil, malformed("it is that of a DEK, want that of a file key")
	case got == magicFile:
		return nil, nil, malformed("it is that of a file key, want that of a DEK")
	default:
		return nil, nil, malformed("it begins with %x, want %x", got, magic)
	}
	if len(b) < size {
		return nil, nil, malformed("%d bytes, want at least %d", len(b), size+1+minRecipient)
	}
	return b[:size], b[size:], nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("key: %w: %w", ErrContainer, fmt.Errorf(format, args...))
}
