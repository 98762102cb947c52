// Package atrest is encryption at rest for databases, replicated ones above all:
// sealed values on disk, sealed Raft log payloads, and the life of the keys that
// seal them.
//
// The work is done by the packages below it; this one is their landing page.
//
//   - keystore is where to start. A keystore.Store holds a process's data
//     encryption keys (DEKs). Store.Storage returns the two functions that most
//     code needs: Seal, which turns a value into an envelope, and Open, which
//     turns it back.
//   - kek says where key encryption keys (KEKs) come from and wraps DEKs under
//     one or several of them.
//   - sidecar is keys.json: the file in the data directory that keeps wrapped
//     keys and this node's own counters, authentic as a whole.
//   - key is the vocabulary: ids, purposes, states, and the bytes of a wrapped
//     DEK. DEKs are opaque; their bytes cannot be read or printed by accident.
//   - envelope is the bytes of one sealed value, for who needs them without a
//     keystore.
//   - nodeid derives node ids from names and finds those that collide.
//
// # A value's way
//
// A value is sealed with AES-256-GCM or XAES-256-GCM under the active DEK of its
// purpose, and bound to a location: bytes that the caller chooses, such as the
// database key it is stored under. The envelope names its DEK, so values sealed
// before a rotation open after it. An envelope that was changed, or that is
// presented at another location, does not open.
//
// # What callers guarantee
//
//   - The KEK lives outside the data directory and outside its backups.
//   - The location of a value is the same when it is opened as it was when it was
//     sealed.
//   - Whether a stored value is an envelope is known from elsewhere; nothing
//     guesses it from the bytes.
//
// Callers never choose a nonce and never see one.
//
// # What stays
//
// The formats of envelopes, wrapped keys and keys.json are stable, and
// docs/FORMATS.md draws every byte. docs/THREAT_MODEL.md says what is protected
// and what is not.
package atrest
