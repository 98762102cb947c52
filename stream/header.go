package stream

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/atrestdb/atrest/internal/secret"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

const (
	magic      = "\xa7SM\x02"
	suiteGCM   = 0x01
	fixedSize  = 4 + 1 + 4 + keystore.StreamSalt + 4 + 1 + 2
	commitSize = 32
	macSize    = sha256.Size
	sealSize   = commitSize + macSize
)

// expandLabel is part of the format.
const expandLabel = "atrest/v2/stream/keys"

// header is a parsed header; what seals it is apart.
type header struct {
	id       key.ID
	salt     [keystore.StreamSalt]byte
	segment  int
	label    string
	metadata []byte
}

// append appends the header up to the commitment.
func (h *header) append(dst []byte) []byte {
	dst = append(dst, magic...)
	dst = append(dst, suiteGCM)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.id))
	dst = append(dst, h.salt[:]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.segment))
	dst = append(dst, byte(len(h.label)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(h.metadata)))
	dst = append(dst, h.label...)
	return append(dst, h.metadata...)
}

// size is the length of the whole header.
func (h *header) size() int { return fixedSize + len(h.label) + len(h.metadata) + sealSize }

// parseFixed reads the part of a header that has the same length in each, and
// says how many bytes follow it.
func parseFixed(b []byte) (h header, label, metadata int, err error) {
	switch {
	case len(b) < fixedSize:
		return h, 0, 0, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	case string(b[:3]) != magic[:3]:
		return h, 0, 0, fmt.Errorf("%w: it begins with %x", ErrFormat, b[:4])
	case b[3] != magic[3]:
		return h, 0, 0, fmt.Errorf("%w: version %d", ErrUnsupported, b[3])
	case b[4] != suiteGCM:
		return h, 0, 0, fmt.Errorf("%w: suite 0x%02x", ErrUnsupported, b[4])
	}
	h.id = key.ID(binary.BigEndian.Uint32(b[5:]))
	copy(h.salt[:], b[9:])
	segment := binary.BigEndian.Uint32(b[41:])
	label, metadata = int(b[45]), int(binary.BigEndian.Uint16(b[46:]))
	switch {
	case h.id == 0:
		return header{}, 0, 0, fmt.Errorf("%w: %w", ErrFormat, key.ErrReservedID)
	case segment < MinSegment || segment > MaxSegment:
		return header{}, 0, 0, fmt.Errorf("%w: segments of %d bytes", ErrFormat, segment)
	case label < 1 || label > MaxLabel:
		return header{}, 0, 0, fmt.Errorf("%w: label of %d bytes", ErrFormat, label)
	case metadata > MaxMetadata:
		return header{}, 0, 0, fmt.Errorf("%w: %d bytes of metadata", ErrFormat, metadata)
	}
	h.segment = int(segment)
	return h, label, metadata, nil
}

// readHeader reads a header, and returns its bytes as well.
func readHeader(r io.Reader) (*header, []byte, error) {
	var fixed [fixedSize]byte
	n, _, err := readFull(r, fixed[:])
	if err != nil {
		return nil, nil, fmt.Errorf("stream: read header: %w", err)
	}
	h, label, metadata, err := parseFixed(fixed[:n])
	if err != nil {
		return nil, nil, err
	}
	b := make([]byte, fixedSize+label+metadata+sealSize)
	copy(b, fixed[:])
	n, end, err := readFull(r, b[fixedSize:])
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("stream: read header: %w", err)
	case end:
		return nil, nil, fmt.Errorf("%w: %d bytes, want a header of %d", ErrFormat, fixedSize+n, len(b))
	}
	h.label = string(b[fixedSize:][:label])
	h.metadata = b[fixedSize+label:][:metadata:metadata]
	if err := checkLabel(h.label); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return &h, b, nil
}

// sealHeader appends commitment and MAC to a header without them, and returns the
// segments' cipher. openHeader checks the two.
func sealHeader(b []byte, h *header, k key.DEK, data []byte) ([]byte, *segments, error) {
	keys := expand(k, h, data)
	b = append(b, keys.commitment...)
	b = keys.appendMAC(b, b)
	seg, err := newSegments(keys.segments)
	return b, seg, err
}

func openHeader(b []byte, h *header, k key.DEK, data []byte) (*segments, error) {
	keys := expand(k, h, data)
	mac := len(b) - macSize
	committed := hmac.Equal(b[mac-commitSize:mac], keys.commitment)
	if !hmac.Equal(b[mac:], keys.appendMAC(nil, b[:mac])) || !committed {
		return nil, ErrIntegrity
	}
	return newSegments(keys.segments)
}

// streamKeys is what becomes of a stream's key: the first output of HKDF for the
// segments, the second for the header.
type streamKeys struct{ segments, commitment, mac []byte }

// expand tells HKDF the label, a zero byte, the header without metadata, and the
// associated data. Each part but the last says how long it is.
func expand(k key.DEK, h *header, data []byte) streamKeys {
	bare := *h
	bare.metadata = nil
	info := append(make([]byte, 0, len(expandLabel)+1+fixedSize+MaxLabel+len(data)), expandLabel+"\x00"...)
	info = append(bare.append(info), data...)
	b := secret.Expand(k, string(info), secret.Size+commitSize+macSize)
	return streamKeys{b[:secret.Size], b[secret.Size:][:commitSize], b[secret.Size+commitSize:]}
}

func (k streamKeys) appendMAC(dst, msg []byte) []byte {
	m := hmac.New(sha256.New, k.mac)
	m.Write(msg)
	return m.Sum(dst)
}
