// Toyfsm is the smallest host of atrest: three replicas that apply one log to a
// map. host.go is all the wiring that a replicated database needs; this file goes
// through a life of keys with it: bootstrap, cutovers, writes, a rotation, a
// replica that joins by snapshot, stop, rewrite, destroy, and a restart.
//
//	go run ./toyfsm
//
// It prints what happens, and ends with exit code 1 if a step goes wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/nodeid"
)

func main() {
	dir, err := os.MkdirTemp("", "atrest-toyfsm-")
	if err == nil {
		err = errors.Join(run(context.Background(), os.Stdout, dir), os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "toyfsm:", err)
		os.Exit(1)
	}
}

// story is one run of the program.
type story struct {
	*cluster

	dir string
	out io.Writer
}

func (s *story) say(text string) { fmt.Fprintln(s.out, text) }

func run(ctx context.Context, out io.Writer, dir string) (err error) {
	master, err := makeKEK(filepath.Join(dir, "kek"))
	if err != nil {
		return err
	}
	keks, err := kek.NewSet(master)
	if err != nil {
		return err
	}
	s := &story{cluster: &cluster{keks: keks, first: 1}, dir: dir, out: out}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, step := range []func(context.Context) error{
		s.begin, s.bootstrap, s.cutovers, s.rotate, s.join, s.stop, s.destroy, s.restart, s.refusals,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.say("all as it should be")
	return nil
}

// begin starts three replicas that know nothing of encryption yet.
func (s *story) begin(ctx context.Context) error {
	for _, name := range []string{"a", "b", "c"} {
		if err := s.add(ctx, name); err != nil {
			return err
		}
	}
	if err := s.put("early", "written before there were keys"); err != nil {
		return err
	}
	s.say("three replicas, and a first value in clear")
	return s.check("early", "written before there were keys", 0)
}

// add starts a new replica.
func (s *story) add(ctx context.Context, name string) error {
	r := &replica{name: name, values: map[string]stored{}}
	if err := os.Mkdir(s.home(r), 0o700); err != nil {
		return err
	}
	return s.start(ctx, r, s.home(r))
}

func (s *story) home(r *replica) string { return filepath.Join(s.dir, r.name) }

// leader is the node that makes entries.
func (s *story) leader() *atrest.Node { return s.replicas[0].node }

// change proposes an entry, for which a builder returned it and an error. Each replica
// unwraps what the entry brings before it commits, so that none seals under the key
// before for a while.
func (s *story) change(entry []byte, err error) error {
	if err != nil {
		return err
	}
	for _, r := range s.replicas {
		if r.node == nil {
			continue // it is down
		}
		if err := r.node.Prepare(context.Background(), entry); err != nil {
			return err
		}
	}
	outcome, err := s.propose(entry)
	if err == nil && outcome.Kind != applier.Applied {
		err = fmt.Errorf("%v: %v: %w", outcome.Op, outcome.Kind, outcome.Why)
	}
	return err
}

func (s *story) bootstrap(ctx context.Context) error {
	var members []nodeid.Member
	for _, r := range s.replicas {
		members = append(members, nodeid.Member{Name: r.name, ID: r.node.ID()})
	}
	if err := s.change(s.leader().NewBootstrap(ctx, members)); err != nil {
		return err
	}
	s.say("bootstrap: a storage key and a Raft key, on every replica")
	return s.same()
}

func (s *story) cutovers(context.Context) error {
	if err := s.change(s.leader().NewEnableStorage()); err != nil {
		return err
	}
	if err := s.put("second", "a sealed value"); err != nil {
		return err
	}
	if err := s.check("second", "a sealed value", s.active()); err != nil {
		return err
	}
	if err := s.change(s.leader().NewEnableRaft()); err != nil {
		return err
	}
	if err := s.put("third", "sealed in the log as well"); err != nil {
		return err
	}
	s.say("cutovers: values and log payloads are sealed from now on")
	return s.check("third", "sealed in the log as well", s.active())
}

func (s *story) rotate(ctx context.Context) error {
	old := s.active()
	for _, p := range []key.Purpose{key.Storage, key.Raft} {
		if err := s.change(s.leader().NewRotation(ctx, p)); err != nil {
			return err
		}
	}
	if err := s.put("fourth", "under the new key"); err != nil {
		return err
	}
	if s.active() == old {
		return errors.New("the rotation changed nothing")
	}
	s.say("rotation: new values are sealed under the new key, old ones still open")
	return errors.Join(s.check("third", "sealed in the log as well", old), s.check("fourth", "under the new key", s.active()))
}

// join compacts the log, so that a new replica needs the snapshot.
func (s *story) join(ctx context.Context) error {
	if err := s.compact(); err != nil {
		return err
	}
	if err := s.put("fifth", "after the snapshot"); err != nil {
		return err
	}
	if err := s.add(ctx, "d"); err != nil {
		return err
	}
	s.say("replica d joined by snapshot and opens everything")
	return errors.Join(s.check("early", "written before there were keys", 0), s.check("fifth", "after the snapshot", s.active()), s.same())
}

func (s *story) stop(context.Context) error {
	active := s.active()
	if _, err := s.leader().NewStop(active); !errors.Is(err, applier.ErrKeyActive) {
		return notRefused("stopping the active key", err, applier.ErrKeyActive)
	}
	old, _ := s.leader().State().Former(key.Storage)
	if err := s.change(s.leader().NewStop(old.ID)); err != nil {
		return err
	}
	s.say("stop: nothing is sealed under the first storage key any more")
	return nil
}

// destroy gives up the old key, for which no replica may need it any more.
func (s *story) destroy(context.Context) error {
	old, _ := s.leader().State().Former(key.Storage)
	if err := s.tryDestroy(old); !errors.Is(err, applier.ErrEvidence) {
		return notRefused("destroying a key that values need", err, applier.ErrEvidence)
	}
	for _, r := range s.replicas {
		if err := r.rewrite(old.ID); err != nil {
			return err
		}
	}
	if err := s.compact(); err != nil { // the old snapshot and the old log need the key as well
		return err
	}
	if err := s.tryDestroy(old); err != nil {
		return err
	}
	s.say("destroy: every replica proved that it needs the first storage key no more, and it is gone")
	return s.check("second", "a sealed value", s.active())
}

// tryDestroy takes every replica's evidence and proposes to destroy a key.
func (s *story) tryDestroy(k applier.Key) error {
	var (
		members  []nodeid.ID
		evidence []applier.Evidence
	)
	s.mu.Lock()
	for _, r := range s.replicas {
		members = append(members, r.node.ID())
		evidence = append(evidence, applier.Evidence{
			Node: r.node.ID(), Taken: r.applied, Live: r.count(k.ID), FirstLog: s.first, OldestSnapshot: s.snapshot.index,
		})
	}
	s.mu.Unlock()
	return s.change(s.leader().NewDestroy(k.ID, members, evidence))
}

// rewrite seals anew what is sealed under a key.
func (r *replica) rewrite(old key.ID) error {
	for name, v := range r.values {
		if keyOf(v) != old {
			continue
		}
		value, err := r.get(name)
		if err != nil {
			return err
		}
		if err := r.store(name, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

// count is how many values are sealed under a key.
func (r *replica) count(id key.ID) (n uint64) {
	for _, v := range r.values {
		if keyOf(v) == id {
			n++
		}
	}
	return n
}

// keyOf returns the key that a stored value is sealed under, 0 if it is in clear.
func keyOf(v stored) key.ID {
	if !v.sealed {
		return 0
	}
	h, err := envelope.ParseHeader(v.data)
	if err != nil {
		return 0
	}
	return h.KeyID
}

// restart ends every process and starts it again from what lies on disk.
func (s *story) restart(ctx context.Context) error {
	for _, r := range s.replicas {
		if err := s.shutdown(r); err != nil {
			return err
		}
		if err := s.start(ctx, r, s.home(r)); err != nil {
			return err
		}
	}
	if err := s.put("sixth", "after the restart"); err != nil {
		return err
	}
	s.say("restart: all replicas are back, with everything they had")
	return errors.Join(s.check("early", "written before there were keys", 0), s.check("sixth", "after the restart", s.active()), s.same())
}

// refusals tries what must not work.
func (s *story) refusals(ctx context.Context) error {
	entry, err := s.leader().NewRotation(ctx, key.Storage)
	if err != nil {
		return err
	}
	if err := s.put(string(entry), ""); !errors.Is(err, atrest.ErrReservedPrefix) {
		return notRefused("a client's entry", err, atrest.ErrReservedPrefix)
	}
	r := s.replicas[1]
	moved := replica{node: r.node, values: map[string]stored{"fourth": r.values["sixth"]}}
	if _, err := moved.get("fourth"); !errors.Is(err, envelope.ErrIntegrity) {
		return notRefused("a value moved to another place", err, envelope.ErrIntegrity)
	}
	s.say("refused: an entry that a client sent, and a value moved to another place")
	return nil
}

func (s *story) active() key.ID {
	k, _ := s.leader().State().Active(key.Storage)
	return k.ID
}

// notRefused is what is wrong if something has not failed as it should.
func notRefused(what string, err, want error) error {
	return errors.Join(fmt.Errorf("%s: want %q", what, want.Error()), err)
}

// check reads a value on every replica, and looks at what key it is sealed under.
func (s *story) check(name, want string, under key.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.replicas {
		got, err := r.get(name)
		if err != nil || got != want {
			return fmt.Errorf("replica %s: %s: got %q, %w, want %q", r.name, name, got, err, want)
		}
		if id := keyOf(r.values[name]); id != under {
			return fmt.Errorf("replica %s: %s is sealed under key %s, want %s", r.name, name, id, under)
		}
	}
	return nil
}

// same compares the key states of all replicas.
func (s *story) same() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.replicas {
		if !r.node.State().Equal(s.leader().State()) {
			return fmt.Errorf("replica %s has another key state than %s", r.name, s.replicas[0].name)
		}
	}
	return nil
}

func (s *story) close() (err error) {
	for _, r := range s.replicas {
		if r.node != nil {
			err = errors.Join(err, r.node.Close())
		}
	}
	return err
}
