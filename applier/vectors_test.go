package applier_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

const entryVectorFile = "generation2_entries.json"

// entryVector is one entry of generation 2. It has the fields that its kind needs.
type entryVector struct {
	Kind     string           `json:"kind"`
	Key      *key.ID          `json:"dek_id,omitempty"`
	Node     *nodeid.ID       `json:"full_node_id,string,omitempty"`
	Epoch    *uint16          `json:"local_epoch,omitempty"`
	Load     hexBytes         `json:"load_id,omitempty"`
	Purpose  key.Purpose      `json:"purpose,omitempty"`
	Wrapped  hexBytes         `json:"wrapped,omitempty"`
	Storage  *wrapVector      `json:"storage,omitempty"`
	Raft     *wrapVector      `json:"raft,omitempty"`
	Batch    []rowVector      `json:"batch,omitempty"`
	Proposer *rowVector       `json:"proposer,omitempty"`
	Rewraps  []wrapVector     `json:"keys,omitempty"`
	Stopped  *uint64          `json:"stopped,string,omitempty"`
	Members  []nodeText       `json:"members,omitempty"`
	Evidence []evidenceVector `json:"evidence,omitempty"`
	Backup   hexBytes         `json:"backup_id,omitempty"`
	Keys     []key.ID         `json:"dek_ids,omitempty"`
	Entry    hexBytes         `json:"entry"`
}

type wrapVector struct {
	Key     key.ID   `json:"dek_id"`
	Wrapped hexBytes `json:"wrapped"`
}

type evidenceVector struct {
	Node           nodeid.ID `json:"full_node_id,string"`
	Taken          uint64    `json:"taken,string"`
	Live           uint64    `json:"live,string"`
	FirstLog       uint64    `json:"first_log,string"`
	OldestSnapshot uint64    `json:"oldest_snapshot,string"`
}

// nodeText is a node id that JSON has as a decimal string.
type nodeText nodeid.ID

func (n nodeText) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d", uint64(n)), nil }

func (n *nodeText) UnmarshalText(b []byte) error {
	_, err := fmt.Sscanf(string(b), "%d", (*uint64)(n))
	return err
}

// containerHex is the bytes of one that has one recipient, whose wrap is a filler.
func containerHex(id uint32, purpose int, check byte) hexBytes {
	b, err := hex.DecodeString("a7444b02c0c1c2c3c4c5c6c7c8c9cacbcccdcecf" + fmt.Sprintf("%08x%02x", id, purpose) +
		strings.Repeat(fmt.Sprintf("%02x", check), 16) + "01" + "00056b6d733a61" + "0000" + "0003aabbcc")
	if err != nil {
		panic(err)
	}
	return b
}

// makeEntryVectors computes the vectors without the package: hexadecimal text put
// together as the format is drawn.
func makeEntryVectors() []entryVector {
	row := rowVector{Key: 9, Node: 0x1122334455667788, Epoch: 3}
	top := rowVector{Key: 0xffffffff, Node: 0xffffffffffffffff, Epoch: 0xffff}
	load := hexBytes("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f")
	backup := hexBytes("\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xbb\xbc\xbd\xbe\xbf")
	storage, raft := &wrapVector{7, containerHex(7, 1, 0x51)}, &wrapVector{8, containerHex(8, 2, 0x52)}
	vs := []entryVector{
		{Kind: "registration", Key: &row.Key, Node: &row.Node, Epoch: &row.Epoch, Load: load},
		{Kind: "registration", Key: &top.Key, Node: &top.Node, Epoch: &top.Epoch, Load: backup},
		{Kind: "bootstrap", Storage: storage, Raft: raft, Batch: []rowVector{
			{Key: 7, Node: 0x1122334455667788, Epoch: 1}, {Key: 8, Node: 0x1122334455667788, Epoch: 1}, {Key: 7, Node: 2},
		}},
		{Kind: "bootstrap", Storage: &wrapVector{Key: 7}, Raft: &wrapVector{Key: 8}},
		{Kind: "rotate-dek", Key: &row.Key, Purpose: key.Storage, Wrapped: containerHex(9, 1, 0x53), Proposer: &row},
		{Kind: "rotate-dek", Key: &top.Key, Purpose: key.Raft, Wrapped: containerHex(0xffffffff, 2, 0x54), Proposer: &top},
		{Kind: "rewrap-deks", Rewraps: []wrapVector{*storage, *raft}},
		{Kind: "stop", Key: &storage.Key},
		{
			Kind: "destroy", Key: &storage.Key, Stopped: new(uint64(500)), Members: []nodeText{1, 0x1122334455667788},
			Evidence: []evidenceVector{
				{Node: 1, Taken: 900, FirstLog: 501, OldestSnapshot: 800},
				{Node: 0x1122334455667788, Taken: 910, FirstLog: 902},
				{Node: 0xffffffffffffffff, Taken: 0xffffffffffffffff, Live: 3, FirstLog: 4, OldestSnapshot: 5},
			},
		},
		{Kind: "destroy", Key: &storage.Key, Stopped: new(uint64(0))},
		{Kind: "writer-gone", Node: &row.Node},
		{Kind: "backup-add", Backup: backup, Keys: []key.ID{7, 8, 0xffffffff}},
		{Kind: "backup-add", Backup: backup},
		{Kind: "backup-forget", Backup: backup},
		{Kind: "enable-storage-envelope", Key: &row.Key, Proposer: &row},
		{Kind: "enable-raft-envelope", Key: &row.Key, Proposer: &row},
	}
	for i := range vs {
		b, err := hex.DecodeString("a7454e02" + vs[i].body())
		if err != nil {
			panic(err)
		}
		vs[i].Entry = b
	}
	return vs
}

// body is everything behind the magic, in hexadecimal.
func (v entryVector) body() string {
	switch v.Kind {
	case "registration":
		return "0302" + fmt.Sprintf("%08x%016x%04x%x", uint32(*v.Key), uint64(*v.Node), *v.Epoch, []byte(v.Load))
	case "bootstrap":
		return "0402" + v.Storage.hex() + v.Raft.hex() + countHex(v.Batch) + eachHex(v.Batch, rowVector.hex)
	case "rotate-dek":
		return "050201" + fmt.Sprintf("%08x%02x%08x%x", uint32(*v.Key), uint8(v.Purpose), len(v.Wrapped), []byte(v.Wrapped)) + v.Proposer.hex()
	case "rewrap-deks":
		return "050202" + countHex(v.Rewraps) + eachHex(v.Rewraps, wrapVector.hex)
	case "stop":
		return "05020301" + fmt.Sprintf("%08x", uint32(*v.Key))
	case "destroy":
		return "05020302" + fmt.Sprintf("%08x%016x", uint32(*v.Key), *v.Stopped) +
			countHex(v.Members) + eachHex(v.Members, func(n nodeText) string { return fmt.Sprintf("%016x", uint64(n)) }) +
			countHex(v.Evidence) + eachHex(v.Evidence, func(e evidenceVector) string {
			return fmt.Sprintf("%016x%016x%016x%016x%016x", uint64(e.Node), e.Taken, e.Live, e.FirstLog, e.OldestSnapshot)
		})
	case "writer-gone":
		return "05020303" + fmt.Sprintf("%016x", uint64(*v.Node))
	case "backup-add":
		return "05020304" + fmt.Sprintf("%x", []byte(v.Backup)) +
			countHex(v.Keys) + eachHex(v.Keys, func(id key.ID) string { return fmt.Sprintf("%08x", uint32(id)) })
	case "backup-forget":
		return "05020305" + fmt.Sprintf("%x", []byte(v.Backup))
	case "enable-storage-envelope":
		return "050204" + fmt.Sprintf("%08x", uint32(*v.Key)) + "01" + "00000000" + v.Proposer.hex()
	default:
		return "050205" + fmt.Sprintf("%08x", uint32(*v.Key)) + "02" + "00000000" + v.Proposer.hex()
	}
}

func countHex[T any](list []T) string { return fmt.Sprintf("%08x", len(list)) }

func eachHex[T any](list []T, f func(T) string) string {
	var out strings.Builder
	for _, v := range list {
		out.WriteString(f(v))
	}
	return out.String()
}

func (r rowVector) hex() string {
	return fmt.Sprintf("%08x%016x%04x", uint32(r.Key), uint64(r.Node), r.Epoch)
}

func (w wrapVector) hex() string {
	return fmt.Sprintf("%08x%08x%x", uint32(w.Key), len(w.Wrapped), []byte(w.Wrapped))
}

// value is the entry that the fields describe.
func (v entryVector) value() applier.Entry {
	wrap := func(w wrapVector) applier.WrappedKey {
		return applier.WrappedKey{ID: w.Key, Wrap: append([]byte{}, w.Wrapped...)}
	}
	switch v.Kind {
	case "registration":
		return applier.Registration{Key: *v.Key, Node: *v.Node, Epoch: *v.Epoch, Load: applier.LoadID(v.Load)}
	case "bootstrap":
		e := applier.Bootstrap{Storage: wrap(*v.Storage), Raft: wrap(*v.Raft)}
		for _, r := range v.Batch {
			e.Writers = append(e.Writers, r.row())
		}
		return e
	case "rotate-dek":
		return applier.Rotation{Key: wrap(wrapVector{*v.Key, v.Wrapped}), Purpose: v.Purpose, Proposer: v.Proposer.row()}
	case "rewrap-deks":
		var e applier.Rewrap
		for _, w := range v.Rewraps {
			e.Keys = append(e.Keys, wrap(w))
		}
		return e
	case "stop":
		return applier.Stop{Key: *v.Key}
	case "destroy":
		e := applier.Destroy{Key: *v.Key, Stopped: *v.Stopped}
		for _, n := range v.Members {
			e.Members = append(e.Members, nodeid.ID(n))
		}
		for _, x := range v.Evidence {
			e.Evidence = append(e.Evidence, applier.Evidence(x))
		}
		return e
	case "writer-gone":
		return applier.WriterGone{Node: *v.Node}
	case "backup-add":
		return applier.BackupAdd{Backup: applier.BackupID(v.Backup), Keys: v.Keys}
	case "backup-forget":
		return applier.BackupForget{Backup: applier.BackupID(v.Backup)}
	case "enable-storage-envelope":
		return applier.EnableStorage{Key: *v.Key, Proposer: v.Proposer.row()}
	default:
		return applier.EnableRaft{Key: *v.Key, Proposer: v.Proposer.row()}
	}
}

// The bytes of generation 2, for other implementations.
func TestGeneration2Entries(t *testing.T) {
	type file struct {
		Note    string        `json:"note"`
		Vectors []entryVector `json:"vectors"`
	}
	if *update {
		text, err := json.MarshalIndent(file{
			Note: "whole Raft entries of generation 2 from their fields: magic, opcode, wire version 2, body. Byte strings are hexadecimal, " +
				"64-bit numbers decimal strings. An absent list or wrap is empty. The containers are well formed, their wraps fillers",
			Vectors: makeEntryVectors(),
		}, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("testdata/"+entryVectorFile, append(text, '\n'), 0o600))
	}
	var got file
	readJSON(t, entryVectorFile, &got)
	require.Len(t, got.Vectors, len(makeEntryVectors()))
	kinds := map[string]bool{}
	for i, v := range got.Vectors {
		require.Equal(t, makeEntryVectors()[i].Entry, v.Entry, v.Kind)
		e, err := applier.Generation2.Parse(v.Entry)
		require.NoError(t, err, v.Kind)
		require.Equal(t, v.value(), e)
		b, err := applier.Generation2.Append([]byte("x"), v.value())
		require.NoError(t, err, v.Kind)
		require.Equal(t, append([]byte("x"), v.Entry...), b)
		require.True(t, applier.IsEntry(v.Entry))
		require.False(t, applier.Generation1.IsEntry(v.Entry))
		kinds[v.Kind] = true
	}
	for op := applier.OpRegistration; op <= applier.OpEnableRaft; op++ {
		require.True(t, kinds[op.String()], "no vector of %v", op)
	}
}
