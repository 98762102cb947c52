package applier

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

// The readable form of a state, for keys.json. Members stand in the order of the
// types below; what is zero is left out where "omitzero" says so. A row of the
// registry is one string, because there are many: full node id, first epoch, last
// epoch, and the load id if there is one.
type stateText struct {
	Generation uint8               `json:"generation"`
	Cluster    key.ClusterID       `json:"cluster,omitzero"`
	Index      uint64              `json:"index"`
	Storage    *cutoverText        `json:"storage_cutover,omitzero"`
	Raft       *cutoverText        `json:"raft_cutover,omitzero"`
	Keys       []keyText           `json:"keys"`
	Writers    map[string][]string `json:"writers"` // by key id
	Gone       []string            `json:"gone"`
	Backups    []backupText        `json:"backups"`
}

type cutoverText struct {
	Index uint64 `json:"index"`
}

type keyText struct {
	ID        key.ID      `json:"id"`
	Purpose   key.Purpose `json:"purpose"`
	State     key.State   `json:"state"`
	Check     string      `json:"check,omitzero"`
	Created   uint64      `json:"created"`
	Rewrapped uint64      `json:"rewrapped,omitzero"`
	Retired   uint64      `json:"retired,omitzero"`
	Stopped   uint64      `json:"stopped,omitzero"`
	Destroyed uint64      `json:"destroyed,omitzero"`
	Container []byte      `json:"container,omitzero"`
}

type backupText struct {
	ID    string   `json:"id"`
	Index uint64   `json:"index"`
	Keys  []key.ID `json:"keys"`
}

// AppendJSON appends the readable form of the state to dst, without white space.
// The state before any entry is null in generation 2. Equal states have equal
// forms.
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

// ParseJSON reads the readable form of a state. It accepts only what AppendJSON
// makes of a state that entries can lead to. The result holds copies; on error it
// is nil.
func ParseJSON(b []byte) (*State, error) {
	if string(b) == "null" {
		return New(Generation2), nil
	}
	var t stateText
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return nil, errors.Wrapf(ErrForm, "applier: %v", err)
	}
	s, err := t.state()
	if err != nil {
		return nil, errors.Wrapf(ErrForm, "applier: %v", err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(s.AppendJSON(make([]byte, 0, len(b))), b) {
		return nil, errors.Wrap(ErrForm, "applier: it is not written as this library writes it")
	}
	return s, nil
}

func (t *stateText) state() (*State, error) {
	s := &State{gen: Generation(t.Generation), cluster: t.Cluster, index: t.Index, storage: t.Storage.cutover(), raft: t.Raft.cutover()}
	for _, k := range t.Keys {
		check, err := fixedHex[key.Check](k.Check)
		if err != nil && k.Check != "" {
			return nil, err
		}
		s.keys = append(s.keys, Key{
			ID: k.ID, Purpose: k.Purpose, State: k.State, Container: k.Container, Check: check,
			Created: k.Created, Rewrapped: k.Rewrapped, Retired: k.Retired, Stopped: k.Stopped, Destroyed: k.Destroyed,
		})
	}
	// The rows come in the order of the keys, which is theirs.
	for _, k := range s.keys {
		for _, text := range t.Writers[k.ID.String()] {
			w, err := parseRow(k.ID, text)
			if err != nil {
				return nil, err
			}
			s.writers = append(s.writers, w)
		}
	}
	for _, text := range t.Gone {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, err
		}
		s.gone = append(s.gone, nodeid.ID(n))
	}
	for _, b := range t.Backups {
		id, err := fixedHex[BackupID](b.ID)
		if err != nil {
			return nil, err
		}
		s.backups = append(s.backups, Backup{ID: id, Index: b.Index, Keys: b.Keys})
	}
	return s, nil
}

func (t *cutoverText) cutover() Cutover {
	if t == nil {
		return Cutover{}
	}
	return Cutover{Active: true, Index: t.Index}
}

func parseRow(id key.ID, text string) (Writer, error) {
	fields := strings.Split(text, " ")
	if len(fields) != 3 && len(fields) != 4 {
		return Writer{}, fmt.Errorf("a row of the registry: %q", text)
	}
	node, err1 := strconv.ParseUint(fields[0], 10, 64)
	first, err2 := strconv.ParseUint(fields[1], 10, 16)
	last, err3 := strconv.ParseUint(fields[2], 10, 16)
	w := Writer{Key: id, Node: nodeid.ID(node), First: uint16(first), Last: uint16(last)}
	var err4 error
	if len(fields) == 4 {
		w.Load, err4 = fixedHex[LoadID](fields[3])
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Writer{}, fmt.Errorf("a row of the registry: %q: %w", text, err)
	}
	return w, nil
}

func fixedHex[T ~[16]byte](text string) (T, error) {
	var b [16]byte
	if len(text) != hex.EncodedLen(len(b)) {
		return T(b), fmt.Errorf("got %q, want 32 hexadecimal digits", text)
	}
	_, err := hex.Decode(b[:], []byte(text))
	return T(b), err
}
