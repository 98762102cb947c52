package sim

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/atrestdb/atrest/applier"
)

// Stats counts what happened. Every field counts something that a good run of many
// scripts has.
type Stats struct {
	Scenarios, Steps int

	// the log
	Entries, Elections, InFlight, Lost, RejectedPayloads int
	// processes
	Starts, Stops, Kills, PowerLosses, Crashes, Halts, Refusals, BehindLog, KeysMissing, CaughtUp int
	// disks and the key service
	Wipes, Restores, LostKeys, Clones, Rollbacks, Outages int
	// snapshots and members
	Snapshots, Compactions, Installs, Joins, Removals int
	// entries of keys that took effect
	Registrations, Bootstraps, Rotations, Rewraps, KeyStops, Destroys, WritersGone, Backups, Cutovers int
	// and those that did not
	NoOps, Rejections, Forgeries, NotBuilt int
	// values
	Envelopes, Counted, Fallbacks, Opened, Rewrites, Exhausted int
}

// entry counts an entry.
func (s *Stats) entry(o applier.Outcome) {
	switch o.Kind {
	case applier.NoOp:
		s.NoOps++
		return
	case applier.Rejected:
		s.Rejections++
		return
	}
	switch o.Op {
	case applier.OpRegistration:
		s.Registrations++
	case applier.OpBootstrap:
		s.Bootstraps++
	case applier.OpRotateDEK:
		s.Rotations++
	case applier.OpRewrapDEKs:
		s.Rewraps++
	case applier.OpStop:
		s.KeyStops++
	case applier.OpDestroy:
		s.Destroys++
	case applier.OpWriterGone:
		s.WritersGone++
	case applier.OpBackupAdd, applier.OpBackupForget:
		s.Backups++
	case applier.OpEnableStorage, applier.OpEnableRaft:
		s.Cutovers++
	}
}

// Add adds what another run counted.
func (s *Stats) Add(t Stats) {
	a, b := reflect.ValueOf(s).Elem(), reflect.ValueOf(t)
	for i := range a.NumField() {
		a.Field(i).SetInt(a.Field(i).Int() + b.Field(i).Int())
	}
}

// Count returns the count of a name, -1 if there is none.
func (s Stats) Count(name string) int {
	f := reflect.ValueOf(s).FieldByName(name)
	if !f.IsValid() {
		return -1
	}
	return int(f.Int())
}

// Never returns the names of what never happened.
func (s Stats) Never() (names []string) {
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if v.Field(i).Int() == 0 {
			names = append(names, v.Type().Field(i).Name)
		}
	}
	return names
}

// String lists the counts.
func (s Stats) String() string {
	var b strings.Builder
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		fmt.Fprintf(&b, "%-16s %d\n", v.Type().Field(i).Name, v.Field(i).Int())
	}
	return b.String()
}
