package applier

import (
	"encoding/binary"

	"github.com/atrestdb/atrest/key"
)

// Append appends the bytes of an entry to dst. It refuses what would not parse, or
// not as the same. On error the result is nil.
func (g Generation) Append(dst []byte, e Entry) ([]byte, error) {
	if err := g.canHold(e); err != nil {
		return nil, err
	}
	w := writer{dst: append(dst, g.magic()...), g: g}
	w.entry(e)
	if _, err := g.Parse(w.dst[len(dst):]); err != nil {
		return nil, err
	}
	return w.dst, nil
}

// canHold refuses what has no bytes in this generation.
func (g Generation) canHold(e Entry) error {
	switch e := e.(type) {
	case Registration:
		if g == Generation1 && e.Load != (LoadID{}) {
			return malformed("a load id in %v", g)
		}
	case Bootstrap, EnableStorage, EnableRaft:
	case Rotation:
		if !e.Purpose.Valid() {
			return malformed("a key for %v", e.Purpose)
		}
	case Rewrap, Stop, Destroy, WriterGone, BackupAdd, BackupForget:
		if g == Generation1 {
			return malformed("%v in %v", e.op(), g)
		}
	default:
		return malformed("a value of type %T", e)
	}
	return nil
}

// writer appends the fields of an entry.
type writer struct {
	dst []byte
	g   Generation
}

func (w *writer) u8(v byte)    { w.dst = append(w.dst, v) }
func (w *writer) u16(v uint16) { w.dst = binary.BigEndian.AppendUint16(w.dst, v) }
func (w *writer) u32(v uint32) { w.dst = binary.BigEndian.AppendUint32(w.dst, v) }
func (w *writer) u64(v uint64) { w.dst = binary.BigEndian.AppendUint64(w.dst, v) }

func (w *writer) entry(e Entry) {
	switch e := e.(type) {
	case Registration:
		w.head(opcodeRegistration)
		w.row(WriterRow{Key: e.Key, Node: e.Node, Epoch: e.Epoch})
		if w.g != Generation1 {
			w.dst = append(w.dst, e.Load[:]...)
		}
	case Bootstrap:
		w.head(opcodeBootstrap)
		w.wrapped(e.Storage)
		w.wrapped(e.Raft)
		w.u32(uint32(len(e.Writers)))
		for _, row := range e.Writers {
			w.row(row)
		}
	case Rotation:
		w.rotation(subRotateDEK, e.Key, e.Purpose, e.Proposer)
	case EnableStorage:
		w.rotation(subEnableStorage, WrappedKey{ID: e.Key}, key.Storage, e.Proposer)
	case EnableRaft:
		w.rotation(subEnableRaft, WrappedKey{ID: e.Key}, key.Raft, e.Proposer)
	case Rewrap:
		w.sub(subRewrapDEKs)
		w.u32(uint32(len(e.Keys)))
		for _, k := range e.Keys {
			w.wrapped(k)
		}
	default:
		w.sub(subAct)
		w.act(e)
	}
}

func (w *writer) act(e Entry) {
	switch e := e.(type) {
	case Stop:
		w.u8(actStop)
		w.u32(uint32(e.Key))
	case Destroy:
		w.u8(actDestroy)
		w.destroy(e)
	case WriterGone:
		w.u8(actWriterGone)
		w.u64(uint64(e.Node))
	case BackupAdd:
		w.u8(actBackupAdd)
		w.dst = append(w.dst, e.Backup[:]...)
		w.u32(uint32(len(e.Keys)))
		for _, id := range e.Keys {
			w.u32(uint32(id))
		}
	case BackupForget:
		w.u8(actBackupForget)
		w.dst = append(w.dst, e.Backup[:]...)
	}
}

func (w *writer) destroy(e Destroy) {
	w.u32(uint32(e.Key))
	w.u64(e.Stopped)
	w.u32(uint32(len(e.Members)))
	for _, m := range e.Members {
		w.u64(uint64(m))
	}
	w.u32(uint32(len(e.Evidence)))
	for _, v := range e.Evidence {
		w.u64(uint64(v.Node))
		w.u64(v.Taken)
		w.u64(v.Live)
		w.u64(v.FirstLog)
		w.u64(v.OldestSnapshot)
	}
}

func (w *writer) head(opcode byte) {
	w.u8(opcode)
	w.u8(w.g.wireVersion())
}

func (w *writer) sub(tag byte) {
	w.head(opcodeRotation)
	w.u8(tag)
}

func (w *writer) rotation(tag byte, k WrappedKey, p key.Purpose, proposer WriterRow) {
	w.sub(tag)
	w.u32(uint32(k.ID))
	w.u8(byte(p))
	w.u32(uint32(len(k.Wrap)))
	w.dst = append(w.dst, k.Wrap...)
	w.row(proposer)
}

func (w *writer) wrapped(k WrappedKey) {
	w.u32(uint32(k.ID))
	w.u32(uint32(len(k.Wrap)))
	w.dst = append(w.dst, k.Wrap...)
}

func (w *writer) row(r WriterRow) {
	w.u32(uint32(r.Key))
	w.u64(uint64(r.Node))
	w.u16(r.Epoch)
}
