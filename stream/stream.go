// Package stream seals byte streams of any length: snapshots, backups, files.
//
// [NewWriter] returns an io.Writer that seals what is written to it, segment by
// segment; [Writer.Close] seals the last one, and a stream without it is not
// valid. [NewReader] returns an io.Reader that gives out a byte only after it was
// authenticated, and whose EOF means that the stream is complete. [NewReaderAt]
// reads anywhere in a stream whose size is known. [CreateFile], [WriteFile] and
// [OpenFile] do the same with files, and replace them so that a crash leaves the
// old one or the new one. [Verify] reads a stream for the verdict alone, and
// [ReadHeader] shows which key one needs, without having it.
//
// A stream has a [Place]: what kind it is and where it belongs, such as the index
// of a snapshot. It opens in the place that it was sealed for and nowhere else.
//
// The key of a stream comes from the active storage key of a keystore.Store and a
// random salt, so streams share neither keys nor nonces with values or with each
// other. A stopped key begins no new streams; streams under it open until the key
// is destroyed.
//
// What callers guarantee: a Writer or Reader is used by one goroutine at a time, a
// [ReaderAt] may be used by several. Nobody changes the bytes given to Write
// before it returns.
//
// # The bytes
//
// All numbers are big-endian.
//
//	 0  magic         A7 'S' 'M' 02
//	 4  suite         1 byte, 01: AES-256-GCM
//	 5  key id        4 bytes, not 0
//	 9  salt          32 bytes, random
//	41  segment size  4 bytes: 4 KiB to 1 MiB of plaintext
//	45  length        1 byte, of the label
//	46  length        2 bytes, of the metadata
//	48  label         1 to 64 bytes
//	 .  metadata      0 to 16384 bytes, in the clear
//	 .  commitment    32 bytes, to the key, the place and the header
//	 .  MAC           32 bytes, over all of the above
//
// Segments follow, each a 12-byte nonce, as many bytes of ciphertext as of
// plaintext, and a 16-byte tag. Each is full but the last, which never is: where
// the plaintext ends with a full segment, an empty one follows. The number of the
// segment, from 0, in 8 bytes and a byte that is 1 for the last are its associated
// data, so segments that are missing, moved or repeated do not open.
//
// The nonces of a stream are the segments' numbers, or random: under
// GODEBUG=fips140=only, and with [WithRandomNonces]. Readers take both. docs/FORMATS.md draws all of it.
package stream

import (
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// What a caller may do about an error of this package: nothing but report the
// data as damaged ([ErrIntegrity], [ErrFormat]), use a newer version of this
// module ([ErrUnsupported]), look where the stream belongs ([ErrLabel]), correct
// the program ([ErrArgument], [ErrClosed]), or write several streams
// ([ErrTooLong]). What is wrong with a key is what the [Keys] say: a keystore.Store
// has keystore.ErrNoActiveKey and, for all else, a keystore.KeyError; the Keys of a
// node have errors of the node as well, such as that a key is not loaded yet.
//
// An error of the reader or writer below matches what it is, also where that is
// io.ErrUnexpectedEOF, but never io.EOF. Of one that breaks its contract, a count
// that cannot be gives an error that matches nothing, a short write
// io.ErrShortWrite, and a reader without progress io.ErrNoProgress. An error of the
// context matches context.Canceled or context.DeadlineExceeded; it has the text of
// the cause, but does not match it, as the cause may be what is wrong with another
// stream. Of files there are [ErrOutcomeUnknown], [ErrNotRegular] and what package
// io/fs has.
var (
	// ErrIntegrity says that the stream is not, or not all of, what was sealed
	// under this key for this place. It never says why an authentication failed.
	ErrIntegrity = errors.New("stream: authentication failed")
	// ErrFormat says that the bytes do not begin a sealed stream.
	ErrFormat = errors.New("stream: not a sealed stream")
	// ErrUnsupported says that the version or the suite is not known here.
	ErrUnsupported = errors.New("stream: version or suite not supported")
	// ErrLabel says that the stream is of another kind.
	ErrLabel = errors.New("stream: has another label")
	// ErrArgument says that an argument, such as an offset, or an option is beyond
	// its limits.
	ErrArgument = errors.New("stream: argument beyond its limits")
	// ErrTooLong says that a stream can get no longer.
	ErrTooLong = errors.New("stream: longer than a stream may be")
	// ErrClosed says that a Writer was closed or aborted before.
	ErrClosed = errors.New("stream: closed")
)

// Sizes and limits. They are part of the format.
const (
	MinSegment     = 4 << 10
	DefaultSegment = 64 << 10
	MaxSegment     = 1 << 20
	MaxSegments    = 1 << 32 // of one stream, the last one included
	MaxBytes       = 1 << 46 // of plaintext
	MaxLabel       = 64
	MaxMetadata    = 16 << 10
	MaxData        = 64 << 10 // of associated data

	// Overhead is what each segment has beyond its plaintext.
	Overhead = nonceSize + tagSize
)

// maxWorkers is not part of the format.
const maxWorkers = 64

// Keys is where a stream gets its key from: a *keystore.Store. If it has a method
// RandomNonces() bool that returns true, writers draw their nonces as [WithRandomNonces]
// makes them.
type Keys interface {
	// NewStreamKey returns the key of a new stream, the id of the DEK that it is
	// derived from and the salt, which no other stream has.
	NewStreamKey() (key.ID, [keystore.StreamSalt]byte, key.DEK, error)
	// StreamKey returns that key again.
	StreamKey(id key.ID, salt [keystore.StreamSalt]byte) (key.DEK, error)
}

// Place is what a stream is bound to.
type Place struct {
	// Label says what kind of stream it is, such as "snapshot": 1 to 64 printable
	// ASCII characters without spaces. It stands in the header for everybody to
	// read. Labels that begin with "atrest/" are this module's own by convention:
	// nothing refuses them.
	Label string
	// Data says which one it is: the index and term of a snapshot, the name of a
	// file. It is not stored, and has at most 64 KiB. It is read when a stream is begun
	// or its header is opened, and not kept: then it is the caller's again.
	Data []byte
}

func (p Place) check() error {
	if err := checkLabel(p.Label); err != nil {
		return fmt.Errorf("%w: %w", ErrArgument, err)
	}
	if len(p.Data) > MaxData {
		return fmt.Errorf("%w: %d bytes of associated data, at most %d", ErrArgument, len(p.Data), MaxData)
	}
	return nil
}

func checkLabel(label string) error {
	if len(label) < 1 || len(label) > MaxLabel {
		return fmt.Errorf("label of %d bytes, want 1 to %d", len(label), MaxLabel)
	}
	for _, c := range []byte(label) {
		if c < 0x21 || c > 0x7e {
			return fmt.Errorf("byte 0x%02x in a label", c)
		}
	}
	return nil
}

// Option sets what a stream can do without.
type Option func(*options)

type options struct {
	segment  int // 0: the default
	metadata []byte
	workers  int
	random   bool
	forWrite bool // an option was given that a reader takes from the header
}

// WithSegmentSize sets how many bytes of plaintext a segment has, 4 KiB to 1 MiB.
// It is for writers. The default of 64 KiB is right for most: larger segments save
// little time, and smaller ones are for those who read at random.
func WithSegmentSize(n int) Option {
	return func(o *options) { o.segment, o.forWrite = n, true }
}

// WithMetadata puts up to 16 KiB into the header that everybody can read who has
// the file, and that a reader gets authenticated. It is for writers, which copy b
// when they begin a stream: then it is the caller's again, as far as the option is
// not used for another one.
func WithMetadata(b []byte) Option {
	return func(o *options) { o.metadata, o.forWrite = b, true }
}

// WithRandomNonces draws the nonces instead of counting them. It is for writers in
// a process that may be copied, or set back, with its memory while it writes a
// stream, as a virtual machine can: two copies that went on counting would seal two
// segments under one nonce. The format is the same, and so is the speed.
func WithRandomNonces() Option {
	return func(o *options) { o.random, o.forWrite = true, true }
}

// WithWorkers lets up to n goroutines, the caller's included, seal or open
// segments at once, 1 to 64; the default is 1. Order stays as it is. There are
// buffers for two segments per worker. Goroutines beyond the caller's end by
// themselves as soon as there is nothing to do; for one segment there are none. A
// Reader with several workers reads ahead from its source as far as its buffers
// go, before it gives out the first byte of a segment.
func WithWorkers(n int) Option {
	return func(o *options) { o.workers = n }
}

func newOptions(opts []Option) (options, error) {
	o := options{segment: DefaultSegment, workers: 1}
	for _, set := range opts {
		set(&o)
	}
	switch {
	case o.segment < MinSegment || o.segment > MaxSegment:
		return o, fmt.Errorf("%w: segments of %d bytes, want %d to %d", ErrArgument, o.segment, MinSegment, MaxSegment)
	case len(o.metadata) > MaxMetadata:
		return o, fmt.Errorf("%w: %d bytes of metadata, at most %d", ErrArgument, len(o.metadata), MaxMetadata)
	case o.workers < 1 || o.workers > maxWorkers:
		return o, fmt.Errorf("%w: %d workers, want 1 to %d", ErrArgument, o.workers, maxWorkers)
	}
	return o, nil
}

// readOptions are those of a reader.
func readOptions(opts []Option) (options, error) {
	o, err := newOptions(opts)
	if err == nil && o.forWrite {
		err = fmt.Errorf("%w: an option for writers", ErrArgument)
	}
	return o, err
}

// capacity is how many bytes of plaintext a stream with segments of this size can
// have: its last segment is not full.
func capacity(segment int) uint64 {
	return min(MaxBytes, MaxSegments*uint64(segment)-1)
}
