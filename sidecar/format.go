package sidecar

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/atrestdb/atrest/internal/secret"
)

// The file is one JSON object in the one form that json.Indent gives it, and a
// newline. With <> for what varies:
//
//	{
//	  "version": 3,
//	  "node": {
//	    "full_node_id": "<1 to 2^64-1>",
//	    "epochs": {
//	      "<key id>": <1 to 65535>,
//	      ...
//	    },
//	    "reserved": {
//	      "<key id>": {
//	        "seals": <number>,
//	        "bytes": <number>
//	      },
//	      ...
//	    },
//	    "through": <number>
//	  },
//	  "file_key": "<container, base64>",
//	  "state": <any JSON value>,
//	  "mac": "<64 hexadecimal digits>"
//	}
//
// Members stand in this order, key ids in numeric order. Numbers are decimal
// without leading zeros; an epoch of zero is left out, and so is usage of which
// both numbers are zero. An empty object is {}.
//
// The MAC is HMAC-SHA256 under the subkey of the file key for macLabel. Its
// message is the file with nothing between the quotes of "mac" and, in place of
// the state, the SHA-256 of the state's text in 64 hexadecimal digits between
// quotes. So a write that leaves the state alone does not hash it again.
const (
	version  = 3
	macLabel = "atrest/v2/keys.json"

	textNode     = "{\n  \"version\": 3,\n  \"node\": {\n    \"full_node_id\": \""
	textEpochs   = "\",\n    \"epochs\": "
	textReserved = ",\n    \"reserved\": "
	textThrough  = ",\n    \"through\": "
	textFileKey  = "\n  },\n  \"file_key\": \""
	textState    = "\",\n  \"state\": "
	textMAC      = ",\n  \"mac\": \""
	textEnd      = "\"\n}\n"

	textEmpty = "{}"
	textFirst = "{\n      \""
	textNext  = ",\n      \""
	textValue = "\": "
	textLast  = "\n    }"
	textSeals = "{\n        \"seals\": "
	textBytes = ",\n        \"bytes\": "
	textUsed  = "\n      }"
)

// content is what one file says. It is never changed in place.
type content struct {
	node     uint64
	epochs   table[uint16]
	reserved table[Usage]
	through  uint64
	fileKey  []byte // a container
	state    state
}

// state is a JSON value in canonical form, and its hash.
type state struct {
	text []byte
	sum  [sha256.Size]byte
}

func newState(text []byte) state { return state{text, sha256.Sum256(text)} }

func (c *content) equal(d *content) bool {
	return c.node == d.node && slices.Equal(c.epochs, d.epochs) && slices.Equal(c.reserved, d.reserved) &&
		c.through == d.through && bytes.Equal(c.fileKey, d.fileKey) && bytes.Equal(c.state.text, d.state.text)
}

// appendTo appends the file.
func (c *content) appendTo(dst []byte, macKey secret.Key) []byte {
	start := len(dst)
	dst = c.appendHead(dst)
	mac := macOf(macKey, dst[start:], c.state.sum)
	dst = append(dst, c.state.text...)
	dst = append(dst, textMAC...)
	dst = hex.AppendEncode(dst, mac[:])
	return append(dst, textEnd...)
}

// appendHead appends the file up to the state.
func (c *content) appendHead(dst []byte) []byte {
	dst = append(dst, textNode...)
	dst = strconv.AppendUint(dst, c.node, 10)
	dst = append(dst, textEpochs...)
	dst = appendTable(dst, c.epochs, func(dst []byte, epoch uint16) []byte {
		return strconv.AppendUint(dst, uint64(epoch), 10)
	})
	dst = append(dst, textReserved...)
	dst = appendTable(dst, c.reserved, appendUsage)
	dst = append(dst, textThrough...)
	dst = strconv.AppendUint(dst, c.through, 10)
	dst = append(dst, textFileKey...)
	dst = base64.StdEncoding.AppendEncode(dst, c.fileKey)
	return append(dst, textState...)
}

func appendTable[V comparable](dst []byte, t table[V], value func([]byte, V) []byte) []byte {
	if len(t) == 0 {
		return append(dst, textEmpty...)
	}
	before := textFirst
	for _, r := range t {
		dst = append(dst, before...)
		dst = strconv.AppendUint(dst, uint64(r.id), 10)
		dst = append(dst, textValue...)
		dst = value(dst, r.v)
		before = textNext
	}
	return append(dst, textLast...)
}

func appendUsage(dst []byte, u Usage) []byte {
	dst = append(dst, textSeals...)
	dst = strconv.AppendUint(dst, u.Seals, 10)
	dst = append(dst, textBytes...)
	dst = strconv.AppendUint(dst, u.Bytes, 10)
	return append(dst, textUsed...)
}

// macOf returns the MAC of the file that begins with head and goes on with the
// state whose hash is sum.
func macOf(k secret.Key, head []byte, sum [sha256.Size]byte) (mac [sha256.Size]byte) {
	h := hmac.New(sha256.New, secret.Bytes(k))
	h.Write(head)
	h.Write([]byte(`"` + hex.EncodeToString(sum[:]) + `"` + textMAC + textEnd))
	h.Sum(mac[:0])
	return mac
}
