package stream_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/stream"
)

// byHand is a second implementation of the format: slow, plain, and without any
// code of the first. It makes counted nonces.
type byHand struct {
	dek      []byte
	id       key.ID
	salt     []byte
	segment  int
	at       stream.Place
	metadata []byte
}

func mac(k []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, k)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// fixed is the header up to the metadata, with a length that may be another.
func (b byHand) fixed(metadata int) []byte {
	out := []byte{0xa7, 'S', 'M', 2, 1}
	out = binary.BigEndian.AppendUint32(out, uint32(b.id))
	out = append(out, b.salt...)
	out = binary.BigEndian.AppendUint32(out, uint32(b.segment))
	out = append(out, byte(len(b.at.Label)), byte(metadata>>8), byte(metadata))
	return append(out, b.at.Label...)
}

// keys returns the key of the segments, the commitment and the MAC key: HKDF of
// RFC 5869, written out.
func (b byHand) keys() (segments, commitment, macKey []byte) {
	subkey := mac(b.dek, []byte("atrest/v2/stream\x01"))
	prk := mac(b.salt, subkey)
	info := append([]byte("atrest/v2/stream/keys\x00"), b.fixed(0)...)
	info = append(info, b.at.Data...)
	segments = mac(prk, info, []byte{1})
	commitment = mac(prk, segments, info, []byte{2})
	macKey = mac(prk, commitment, info, []byte{3})
	return segments, commitment, macKey
}

func (b byHand) header() []byte {
	_, commitment, macKey := b.keys()
	out := append(b.fixed(len(b.metadata)), b.metadata...)
	out = append(out, commitment...)
	return append(out, mac(macKey, out)...)
}

func (b byHand) seal(plaintext []byte) []byte {
	return b.sealWith(plaintext, func(number uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4), number) })
}

func (b byHand) sealWith(plaintext []byte, nonceOf func(number uint64) []byte) []byte {
	k, _, _ := b.keys()
	block, err := aes.NewCipher(k)
	if err != nil {
		panic(err)
	}
	var gcm cipher.AEAD
	fips140.WithoutEnforcement(func() { gcm, err = cipher.NewGCM(block) }) // it is a test that chooses nonces
	if err != nil {
		panic(err)
	}
	out := b.header()
	for number := uint64(0); ; number++ {
		n := min(b.segment, len(plaintext))
		last := byte(0)
		if n < b.segment {
			last = 1
		}
		nonce := nonceOf(number)
		out = append(out, nonce...)
		out = gcm.Seal(out, nonce, plaintext[:n], append(binary.BigEndian.AppendUint64(nil, number), last))
		plaintext = plaintext[n:]
		if last == 1 {
			return out
		}
	}
}
