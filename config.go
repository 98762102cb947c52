package atrest

import (
	"context"
	"crypto/fips140"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/guard"
	"github.com/atrestdb/atrest/internal/durable"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
)

// Config is what a [Node] cannot do without. All fields are required.
type Config struct {
	// Dir is an existing directory that belongs to this node alone. Its
	// keys.json is part of the node's state: it is neither copied to another
	// node nor restored without the rest.
	Dir string
	// Name is this member's name in the cluster: unique in it and never changed.
	// The node's id is derived from it.
	Name string
	// KEK wraps and unwraps the data encryption keys. Every member can reach it.
	KEK *kek.Set
	// Propose sends an entry down the host's own proposal path, the same that
	// client commands take, and returns when it was applied here, or when that is
	// not known. It is called from a goroutine of the node, never while one of the
	// node's own methods runs, and must return when the context ends.
	Propose func(ctx context.Context, entry []byte) error
}

// Option sets what a Node can do without.
type Option func(*options)

type options struct {
	group      string
	observer   Observer
	limits     keystore.Limits
	extended   bool
	sealing    []envelope.SealerOption
	kekTimeout time.Duration
	members    []nodeid.Member
	strict     bool
	several    bool
	mirror     applier.Mirror
	first      *Generation1 // not nil: generation-1 mode
	fsys       durable.FS
}

func defaults() options {
	return options{
		observer:   discard{},
		limits:     keystore.DefaultLimits,
		kekTimeout: 10 * time.Second,
		fsys:       durable.OS,
	}
}

// with is what the defaults become by options.
func with(opts []Option) options {
	o := defaults()
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// WithGroup names the Raft group whose payloads are sealed. The label is part of
// what they are bound to, so it must be the same on all members and never change.
func WithGroup(label string) Option { return func(o *options) { o.group = label } }

// WithObserver names who is told what happens. [NewLog] makes one that logs.
func WithObserver(w Observer) Option { return func(o *options) { o.observer = w } }

// WithLimits sets after how many seals and bytes a rotation of a key is due.
func WithLimits(l keystore.Limits) Option { return func(o *options) { o.limits = l } }

// WithExtendedOnly makes the node seal with suite 0x03 alone, whose nonces need
// no registration: 12 bytes more for each value, and somewhat slower for small
// ones. Streams under the node's keys draw their nonces then.
func WithExtendedOnly() Option { return func(o *options) { o.extended = true } }

// WithSealing sets how values are sealed: [envelope.WithCompression] for values that
// get smaller by it, [envelope.WithXChaCha] for processors without instructions for
// AES. Whatever was sealed opens whatever this says.
func WithSealing(opts ...envelope.SealerOption) Option {
	return func(o *options) { o.sealing = append(o.sealing, opts...) }
}

// WithKEKTimeout bounds each call to a KEK. The default is 10 seconds.
func WithKEKTimeout(d time.Duration) Option { return func(o *options) { o.kekTimeout = d } }

// WithMembers names the members of the cluster as far as the host knows them at
// start, so that two whose nonces could collide are found before anything is
// sealed.
func WithMembers(members []nodeid.Member) Option { return func(o *options) { o.members = members } }

// WithStrictValues refuses every value in clear once the storage cutover is in
// force. It is for hosts that have rewritten all that was stored before.
func WithStrictValues() Option { return func(o *options) { o.strict = true } }

// WithSeveralGroups is for hosts with several Raft groups of which this node's
// keys serve all: one of them, the key group, carries the entries. A value of
// another group may name a key whose entry has not reached this node; opening it
// waits. The Raft cutover is not possible then.
func WithSeveralGroups() Option { return func(o *options) { o.several = true } }

// WithMirror keeps a copy of the writer registry in the host's own store, in the
// form of generation 1. It is written and never read.
func WithMirror(m applier.Mirror) Option { return func(o *options) { o.mirror = m } }

// WithFS puts the node's files on another file system than the operating
// system's. It is for this module's own tests, which let one fail and lose power.
func WithFS(fsys durable.FS) Option { return func(o *options) { o.fsys = fsys } }

// check says what is wrong before anything is touched.
func (c Config) check(o options) error {
	switch {
	case c.Dir == "":
		return configError("Dir is empty: name a directory that belongs to this node alone")
	case c.Name == "":
		return configError("Name is empty: give each member a name of its own")
	case c.KEK == nil:
		return guard.KEK(c.KEK)
	case c.Propose == nil:
		return configError("Propose is nil: give the function that sends an entry through Raft")
	}
	return o.check()
}

func (o options) check() error {
	switch {
	case len(o.group) > envelope.MaxGroup:
		return configError("the group's label has %d bytes, at most %d are possible", len(o.group), envelope.MaxGroup)
	case o.observer == nil:
		return configError("the Observer is nil: leave the option out")
	case o.kekTimeout <= 0:
		return configError("a KEK timeout of %v is no time at all", o.kekTimeout)
	case o.first != nil && (o.extended || o.several):
		return configError("generation-1 mode has counted nonces and one group: leave out WithExtendedOnly and WithSeveralGroups")
	case o.first != nil && fips140.Enforced():
		return configError("generation-1 mode needs nonces that strict FIPS mode does not allow")
	case o.fsys == nil:
		return configError("the file system is nil: leave the option out")
	}
	return trySealing(o.sealing)
}

// trySealing finds out now whether values can be sealed as the options say: strict FIPS
// mode refuses suite 0x04, and once a key is active that would halt a replica.
func trySealing(opts []envelope.SealerOption) error {
	c, err := envelope.NewCipher(1, key.NewDEK())
	if err == nil {
		_, err = c.NewSealer(nil, opts...)
	}
	if err != nil {
		return errors.CombineErrors(configError("WithSealing: %v", err), err)
	}
	return nil
}

func configError(format string, args ...any) error {
	return errors.Wrapf(ErrConfig, "atrest: "+format, args...)
}
