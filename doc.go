// Package atrest is encryption at rest for databases, replicated ones above all:
// sealed values on disk, sealed Raft log payloads, and the life of the keys that
// seal them.
//
// A replicated database imports this package and calls [Open]: a [Node] is the
// encryption state of one process. Its key state is a small deterministic state
// machine inside the database's own, changed by entries of the database's own log,
// so all replicas agree on every key; keys.json in the node's directory is a durable
// copy. [Node.Storage] and [Node.Raft] return what the hot paths need: Seal and Open.
// docs/HOSTING.md is the contract, and examples/toyfsm the smallest host.
//
// An embedded database without Raft calls [OpenLocal], and that is all.
//
// The packages below can be used alone:
//
//   - keystore holds a process's data encryption keys (DEKs) and seals and opens
//     with them.
//   - kek says where key encryption keys (KEKs) come from and wraps DEKs under
//     one or several of them.
//   - applier is the replicated key state: entries, rules, snapshots. It is pure.
//   - guard refuses to start where that would do harm, and says what to do.
//   - sidecar is keys.json: authentic as a whole, and safe against crashes.
//   - key is the vocabulary: ids, purposes, states, and the bytes of a wrapped
//     DEK. DEKs are opaque; their bytes cannot be read or printed by accident.
//   - envelope is the bytes of one sealed value.
//   - nodeid derives node ids from names and finds those that collide.
//
// # A value's way
//
// A value is sealed with AES-256-GCM or XAES-256-GCM under the active DEK of its
// purpose, and bound to a location: bytes that the host chooses, such as the
// database key it is stored under. The envelope names its DEK, so values sealed
// before a rotation open after it. An envelope that was changed, or that is
// presented at another location, does not open.
//
// # A key's way
//
// A builder such as [Node.NewRotation] makes an entry; the host proposes it like any
// command; every replica gives it to [Node.Apply], which decides by the entries alone,
// makes the result durable in one write, and then seals under the new key. Keys are
// unwrapped before their entry commits ([Node.Prepare]) or in the background, never on
// the way of an entry.
//
// # What hosts guarantee
//
//   - The KEK lives outside the data directory and outside its backups.
//   - Entries are applied in log order, and the applied index is not durable before
//     Apply has returned.
//   - The location of a value is the same when it is opened as it was when it was
//     sealed, and whether a stored value is sealed is kept beside it; nothing guesses
//     it from the bytes.
//   - What clients propose goes through [Node.CheckPayload] first.
//
// Nobody chooses a nonce and nobody sees one.
//
// # What stays
//
// All formats are stable, and docs/FORMATS.md draws every byte.
// docs/THREAT_MODEL.md says what is protected and what is not.
package atrest
