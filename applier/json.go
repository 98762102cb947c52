package applier

import (
	"encoding/base64"
	"encoding/hex"
	"strconv"

	"github.com/atrestdb/atrest/key"
)

// AppendJSON appends the readable form of the state to dst, without white space.
// The state before any entry is null in generation 2. Equal states have equal
// forms.
//
//	{"generation":2,"cluster":"61..","index":70,"storage_cutover":{"index":20},
//	 "keys":[{"id":1,"purpose":"storage","state":"active","check":"00..","created":10,"container":"p0RL.."},...],
//	 "writers":{"1":["11 0 3 0900..",...],...},"gone":["12"],"backups":[{"id":"07..","index":60,"keys":[1,2]}]}
//
// What is zero is left out. A row of the registry is one string, because there are
// many: full node id, first epoch, last epoch and the load id.
func (s *State) AppendJSON(dst []byte) []byte {
	if !s.Bootstrapped() && s.gen == Generation2 {
		return append(dst, "null"...)
	}
	w := textWriter{dst}
	w.text(`{"generation":`).number(uint64(s.gen))
	if !s.cluster.IsZero() {
		w.text(`,"cluster":"`).hex(s.cluster[:]).text(`"`)
	}
	w.text(`,"index":`).number(s.index)
	w.cutover(`,"storage_cutover":{"index":`, s.storage)
	w.cutover(`,"raft_cutover":{"index":`, s.raft)
	w.text(`,"keys":[`)
	for i := range s.keys {
		w.comma(i).key(&s.keys[i])
	}
	w.text(`],"writers":{`).writers(s.writers)
	w.text(`},"gone":[`)
	for i, n := range s.gone {
		w.comma(i).text(`"`).number(uint64(n)).text(`"`)
	}
	w.text(`],"backups":[`)
	for i := range s.backups {
		w.comma(i).backup(&s.backups[i])
	}
	w.text(`]}`)
	return w.dst
}

// textWriter appends pieces of JSON.
type textWriter struct{ dst []byte }

func (w *textWriter) text(s string) *textWriter {
	w.dst = append(w.dst, s...)
	return w
}

func (w *textWriter) number(v uint64) *textWriter {
	w.dst = strconv.AppendUint(w.dst, v, 10)
	return w
}

func (w *textWriter) hex(b []byte) *textWriter {
	w.dst = hex.AppendEncode(w.dst, b)
	return w
}

func (w *textWriter) comma(i int) *textWriter {
	if i > 0 {
		w.text(",")
	}
	return w
}

func (w *textWriter) cutover(before string, c Cutover) {
	if c.Active {
		w.text(before).number(c.Index).text("}")
	}
}

func (w *textWriter) key(k *Key) {
	w.text(`{"id":`).number(uint64(k.ID)).text(`,"purpose":"`).text(k.Purpose.String()).text(`","state":"`).text(k.State.String()).text(`"`)
	if k.Check != (key.Check{}) {
		w.text(`,"check":"`).hex(k.Check[:]).text(`"`)
	}
	w.text(`,"created":`).number(k.Created)
	for _, at := range [...]struct {
		name  string
		index uint64
	}{{"rewrapped", k.Rewrapped}, {"retired", k.Retired}, {"stopped", k.Stopped}, {"destroyed", k.Destroyed}} {
		if at.index != 0 {
			w.text(`,"`).text(at.name).text(`":`).number(at.index)
		}
	}
	if k.Container != nil {
		w.text(`,"container":"`)
		w.dst = base64.StdEncoding.AppendEncode(w.dst, k.Container)
		w.text(`"`)
	}
	w.text(`}`)
}

func (w *textWriter) writers(rows []Writer) {
	for i := range rows {
		r := &rows[i]
		if first := i == 0; first || rows[i-1].Key != r.Key {
			if !first {
				w.text(`],`)
			}
			w.text(`"`).number(uint64(r.Key)).text(`":["`)
		} else {
			w.text(`,"`)
		}
		w.number(uint64(r.Node)).text(" ").number(uint64(r.First)).text(" ").number(uint64(r.Last))
		if r.Load != (LoadID{}) {
			w.text(" ").hex(r.Load[:])
		}
		w.text(`"`)
	}
	if len(rows) > 0 {
		w.text(`]`)
	}
}

func (w *textWriter) backup(b *Backup) {
	w.text(`{"id":"`).hex(b.ID[:]).text(`","index":`).number(b.Index).text(`,"keys":[`)
	for i, id := range b.Keys {
		w.comma(i).number(uint64(id))
	}
	w.text(`]}`)
}
