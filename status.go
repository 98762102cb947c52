package atrest

import (
	"fmt"
	"strings"
	"time"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
)

// Status describes a node at one moment. It holds no secret.
type Status struct {
	Name           string
	Node           nodeid.ID `json:",string"`
	Phase          string    // "opened", "caught up", "ready" or "closed"
	Cluster        key.ClusterID
	Index          uint64 // of the last entry that changed the key state
	StorageCutover applier.Cutover
	RaftCutover    applier.Cutover
	Keys           []KeyStatus // by ascending id
	KEKs           []string    // ids of the configured KEKs
	FileKeyCurrent bool        // the file key is wrapped for these
	// Favoured is the suite for extended nonces that the processor is fastest with.
	Favoured envelope.Suite
	// Serving says that every value of the state can be opened and sealed. What it
	// waits for stands in Waiting, in words.
	Serving bool
	Waiting []string `json:",omitempty"`
}

// KeyStatus describes one key on this node.
type KeyStatus struct {
	ID      key.ID
	Purpose key.Purpose
	State   key.State
	Suite   envelope.Suite `json:",omitempty"` // of the next seal; 0 if nothing is sealed under it here
	Usage   envelope.Usage
	Due     int // percent of its limits that is reached: 0, 90 or 100
	// Epoch is this load's, 0 if it has none; Registered says that it is its own.
	Epoch      uint16      `json:",omitempty"`
	Registered bool        `json:",omitempty"`
	Missing    *MissingKey `json:",omitempty"` // nil if the key is loaded, or destroyed
}

// MissingKey says why a key cannot be used here.
type MissingKey struct {
	Since    time.Time
	Attempts int    // to unwrap it in the background
	Err      string // of the last one
}

// Status returns what an operator wants to know.
func (n *Node) Status() Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.State()
	st := Status{
		Name:           n.name,
		Node:           n.id,
		Phase:          n.phaseText(),
		Cluster:        s.Cluster(),
		Index:          s.Index(),
		StorageCutover: s.StorageCutover(),
		RaftCutover:    s.RaftCutover(),
		KEKs:           n.keks.IDs(),
		Favoured:       envelope.Favoured(),
		FileKeyCurrent: n.file.FileKeyCurrent(),
	}
	used := map[key.ID]keystore.KeyStatus{}
	for _, k := range n.keys.Status() {
		used[k.ID] = k
	}
	for k := range s.Keys() {
		st.Keys = append(st.Keys, n.keyStatus(k, used[k.ID]))
	}
	st.Waiting = n.waiting(st.Keys)
	st.Serving = len(st.Waiting) == 0
	return st
}

// keyStatus describes a key. n.mu is held.
func (n *Node) keyStatus(k applier.Key, here keystore.KeyStatus) KeyStatus {
	ks := KeyStatus{
		ID: k.ID, Purpose: k.Purpose, State: k.State,
		Suite: here.Suite, Usage: here.Usage, Due: here.Due,
		Epoch: n.epochs[k.ID], Registered: n.counted[k.ID],
	}
	if m := n.missing[k.ID]; m != nil {
		ks.Missing = &MissingKey{Since: m.since, Attempts: m.attempts}
		if m.last != nil {
			ks.Missing.Err = m.last.Error()
		}
	}
	return ks
}

// waiting says what keeps the node from serving. n.mu is held.
func (n *Node) waiting(keys []KeyStatus) (why []string) {
	if n.closed() {
		return []string{"the node is closed"}
	}
	if n.phase != ready {
		why = append(why, "the host has not called Ready")
	}
	for _, k := range keys {
		if k.Missing != nil {
			why = append(why, fmt.Sprintf("%v key %s is missing since %s: %s", k.Purpose, k.ID, k.Missing.Since.UTC().Format(time.RFC3339), k.Missing.Err))
		}
		if epoch, taken := n.epochs[k.ID]; n.first() && k.State == key.Active && taken && epoch == 0 {
			why = append(why, fmt.Sprintf("%v key %s has no epoch left for this node: rotate it on another member, and if this one does not get there, let it join again with an empty directory", k.Purpose, k.ID))
		}
	}
	return why
}

// phaseText is the phase in words. n.mu is held.
func (n *Node) phaseText() string {
	if n.closed() {
		return "closed"
	}
	return [...]string{opened: "opened", caughtUp: "caught up", ready: "ready"}[n.phase]
}

// String is the status in a few lines.
func (s Status) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, cluster %s at %d\n", nodeid.Member{Name: s.Name, ID: s.Node}, s.Phase, s.Cluster, s.Index)
	for _, k := range s.Keys {
		fmt.Fprintf(&b, "%v key %s: %v, %d seals, %d bytes", k.Purpose, k.ID, k.State, k.Usage.Seals, k.Usage.Bytes)
		if k.Suite != 0 {
			fmt.Fprintf(&b, ", sealing with %v", k.Suite)
		}
		b.WriteByte('\n')
	}
	for _, w := range s.Waiting {
		fmt.Fprintf(&b, "waiting: %s\n", w)
	}
	return b.String()
}
