package atrest

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// raftMagic begins a sealed Raft payload; behind it stands the envelope. Like an
// entry's, its first byte begins no message of Protocol Buffers.
const raftMagic = "\xa7RP\x02"

// Raft seals and opens the payloads of the Raft log.
type Raft struct{ n *Node }

// Raft returns the way to Raft payloads. It may be called again and again.
func (n *Node) Raft() *Raft { return &Raft{n: n} }

// IsEntry reports whether an opened payload belongs to this package: give it to
// [Node.Apply]. Nothing that a client may propose does, see [Node.CheckPayload].
func IsEntry(payload []byte) bool { return applier.IsEntry(payload) }

// IsEntry is the function of this name, and in generation-1 mode reports whether a
// payload begins with one of that generation's opcodes.
func (n *Node) IsEntry(payload []byte) bool { return n.generation().IsEntry(payload) }

// CheckPayload refuses a payload that could be taken for an entry or for a sealed
// one, with [ErrReservedPrefix]. A host calls it on what its clients send, before
// it proposes that: no client can inject an entry then.
func (n *Node) CheckPayload(payload []byte) error {
	if IsEntry(payload) || framed(payload) || n.IsEntry(payload) {
		return errors.Wrapf(ErrReservedPrefix, "atrest: %x", payload[:min(len(payload), len(raftMagic))])
	}
	return nil
}

func framed(payload []byte) bool {
	return len(payload) >= len(raftMagic) && string(payload[:len(raftMagic)]) == raftMagic
}

// Seal appends to dst what to propose for a payload: before the Raft cutover the
// payload itself, after it a sealed one. The proposer calls it; retries seal anew.
// payload is only read, and must not lie in the spare capacity of dst.
//
// The error matches [ErrRetry] while no key is loaded that may seal.
func (r *Raft) Seal(dst, payload []byte) ([]byte, error) {
	n := r.n
	if !n.State().RaftCutover().Active || n.neverSealed(payload) {
		return append(dst, payload...), nil
	}
	out, err := (*n.raft.Load()).Seal(append(dst, n.frame()...), payload)
	if err == nil {
		return out, nil
	}
	if noKey(err) {
		err = retry(errors.Wrap(err, "atrest: the active Raft key is not loaded, and the one before may not be used; see Status"))
	}
	n.observe(SealFailed{Purpose: key.Raft, Reason: err})
	return nil, err
}

// Open appends to dst the payload of the entry at index, where data is what was
// proposed. The state machine calls it first, for every entry that carries a
// payload of the host.
//
// [ErrRejected] means that every replica rejects this entry: fail its proposal,
// advance, go on. After any other error stop without advancing. Open waits for a
// key that is not loaded yet. data is only read, and must not lie in the spare
// capacity of dst.
func (r *Raft) Open(dst []byte, index uint64, data []byte) ([]byte, error) {
	n := r.n
	if !n.sealed(index, data) && (!n.aboveCutover(index) || n.neverSealed(data)) {
		return append(dst, data...), nil
	}
	out, err := n.openAt(dst, index, data)
	for n.awaited(err) {
		ch := n.change()
		if out, err = n.openAt(dst, index, data); n.awaited(err) {
			if err := n.wait(context.Background(), ch); err != nil {
				return nil, err
			}
		}
	}
	return out, err
}

// openAt opens a payload that is sealed, or should be.
func (n *Node) openAt(dst []byte, index uint64, data []byte) ([]byte, error) {
	if n.sealed(index, data) {
		return n.openFrame(dst, index, data)
	}
	return nil, n.unframed(index, data)
}

// unframed says what is wrong with a payload above the cutover that has no frame. All
// replicas reject it, but for one of generation 1 from before the upgrade, which other
// members have applied: it halts one that is to apply it now.
func (n *Node) unframed(index uint64, data []byte) error {
	rejected := errors.Wrapf(ErrRejected, "atrest: entry %d is in clear above the Raft cutover", index)
	if n.first() || index > n.file.Through() {
		return rejected
	}
	_, err := n.keys.RaftGeneration1().Open(nil, data)
	switch {
	case err == nil:
		return errors.Newf("atrest: entry %d is of generation 1, and this member had not applied it when it was upgraded: "+
			"restore a snapshot in this start, or let it join again with an empty directory", index)
	case errors.Is(err, keystore.ErrUnknownKey) && n.knowsRaftKey(data):
		return errAwaited
	}
	return rejected
}

// knowsRaftKey reports whether an envelope names a Raft key of the state.
func (n *Node) knowsRaftKey(env []byte) bool {
	h, err := envelope.ParseHeader(env)
	if err != nil || h.Suite != envelope.AES256GCM {
		return false
	}
	k, ok := n.State().Key(h.KeyID)
	return ok && k.Purpose == key.Raft
}

func (n *Node) aboveCutover(index uint64) bool {
	c := n.State().RaftCutover()
	return c.Active && index > c.Index
}

// openFrame opens a sealed payload, or says by its index alone that it is
// rejected.
func (n *Node) openFrame(dst []byte, index uint64, data []byte) ([]byte, error) {
	s := n.State()
	if !n.aboveCutover(index) {
		return nil, errors.Newf("atrest: entry %d is sealed, and this node knows of no Raft cutover before it: "+
			"its key state is not that of this log; install a snapshot", index)
	}
	data = data[len(n.frame()):]
	h, err := envelope.ParseHeader(data)
	if err != nil {
		return nil, n.openFailed(key.Raft, 0, errors.Wrapf(err, "atrest: entry %d", index))
	}
	k, ok := s.Key(h.KeyID)
	if ok && k.Stopped != 0 && index > k.Stopped {
		return nil, errors.Wrapf(ErrRejected, "atrest: entry %d is sealed under key %s, which was stopped at %d", index, k.ID, k.Stopped)
	}
	out, err := (*n.raft.Load()).Open(dst, data)
	switch {
	case err == nil:
		return out, nil
	case ok && errors.Is(err, keystore.ErrUnknownKey):
		return nil, errAwaited
	default:
		return nil, n.openFailed(key.Raft, h.KeyID, errors.Wrapf(err, "atrest: entry %d", index))
	}
}

// errAwaited says that a key is in the state and not in the keystore.
var errAwaited = errors.New("atrest: the key is not loaded")

func (n *Node) awaited(err error) bool { return errors.Is(err, errAwaited) }

func (n *Node) openFailed(p key.Purpose, id key.ID, err error) error {
	n.observe(OpenFailed{Purpose: p, Key: id, Reason: err})
	return err
}
