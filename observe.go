package atrest

import (
	"context"
	"log/slog"
	"time"

	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// Observer is told what happens in a node: for logs, metrics and alarms. It may
// be called by several goroutines at once, some of which hold locks of the node:
// it returns at once and calls nothing of the node.
type Observer interface{ Observe(e Event) }

// Event is one of the types below, as a value. There will be more of them; an
// Observer ignores what it does not know.
type Event interface {
	// log says how the event reads in a log.
	log() (slog.Level, string, []slog.Attr)
}

type (
	// SealFailed says that a value or payload could not be sealed.
	SealFailed struct {
		Purpose key.Purpose
		Reason  error
	}
	// OpenFailed says that a value or payload does not open. Key is 0 if none is
	// known.
	OpenFailed struct {
		Purpose key.Purpose
		Key     key.ID
		Reason  error
	}
	// KeyInstalled says that a key is unwrapped and can open.
	KeyInstalled struct {
		Key     key.ID
		Purpose key.Purpose
	}
	// KeyMissing says that a key of the state is not unwrapped.
	KeyMissing struct {
		Key     key.ID
		Purpose key.Purpose
		Err     error
	}
	// KeyActivated says under which key a purpose seals from now on, and how.
	KeyActivated struct {
		Key     key.ID
		Purpose key.Purpose
		Suite   envelope.Suite
	}
	// EntryApplied says what became of an entry.
	EntryApplied struct {
		Index   uint64
		Outcome applier.Outcome
	}
	// KEKCall is one call to the key encryption keys, for a key. Op is "wrap",
	// "unwrap" or "rewrap".
	KEKCall struct {
		Op   string
		Key  key.ID
		Took time.Duration
		Err  error
	}
	// BudgetReached says that a key has sealed 90 or 100 percent of its limits: it
	// is time for a rotation.
	BudgetReached struct {
		Key     key.ID
		Percent int
		Used    envelope.Usage
	}
	// EpochsLow says that a key has few epochs left for this node: rotate soon.
	EpochsLow struct {
		Key   key.ID
		Epoch uint16
	}
	// EpochsExhausted says that a key has no epoch left for this node. It seals
	// with suite 0x03 until the next rotation.
	EpochsExhausted struct{ Key key.ID }
	// Registered says that this load's epoch is its own: counted nonces are used.
	Registered struct {
		Key   key.ID
		Epoch uint16
	}
	// RegistrationFailed says that a registration did not go through, and when the
	// next one is tried. Seals go on with suite 0x03.
	RegistrationFailed struct {
		Err   error
		Again time.Duration
	}
	// FileKeyRewrapped says that the file key was wrapped for the KEKs that are
	// configured now, or why not.
	FileKeyRewrapped struct{ Err error }
	// HardwareFavours says at start which suite for extended nonces this processor is
	// fastest with, see [WithSealing].
	HardwareFavours struct{ Suite envelope.Suite }
	// ReserveFailed says that it could not be made durable how much of a key is
	// spoken for. Its count may be too low after a crash.
	ReserveFailed struct {
		Key key.ID
		Err error
	}
)

type discard struct{}

// Observe implements Observer.
func (discard) Observe(Event) {}

// NewLog returns an Observer that logs, to [slog.Default] if l is nil.
func NewLog(l *slog.Logger) Observer {
	if l == nil {
		l = slog.Default()
	}
	return logger{l}
}

type logger struct{ l *slog.Logger }

// Observe implements Observer.
func (g logger) Observe(e Event) {
	level, text, attrs := e.log()
	g.l.LogAttrs(context.Background(), level, "atrest: "+text, attrs...)
}

func keyAttr(id key.ID) slog.Attr         { return slog.String("key", id.String()) }
func purposeAttr(p key.Purpose) slog.Attr { return slog.String("purpose", p.String()) }

// errAttr has the text alone: some handlers would print an error with the stack
// it comes from.
func errAttr(err error) slog.Attr {
	if err == nil {
		return slog.Attr{}
	}
	return slog.String("err", err.Error())
}

// outcome is how something reads that may have failed.
func outcome(err error, good slog.Level, attrs ...slog.Attr) (slog.Level, []slog.Attr) {
	if err == nil {
		return good, attrs
	}
	return slog.LevelWarn, append(attrs, errAttr(err))
}

func (e SealFailed) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "seal failed", []slog.Attr{purposeAttr(e.Purpose), errAttr(e.Reason)}
}

func (e OpenFailed) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "open failed", []slog.Attr{purposeAttr(e.Purpose), keyAttr(e.Key), errAttr(e.Reason)}
}

func (e KeyInstalled) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "key installed", []slog.Attr{keyAttr(e.Key), purposeAttr(e.Purpose)}
}

func (e KeyMissing) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelWarn, "key missing", []slog.Attr{keyAttr(e.Key), purposeAttr(e.Purpose), errAttr(e.Err)}
}

func (e KeyActivated) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "sealing under a key", []slog.Attr{keyAttr(e.Key), purposeAttr(e.Purpose), slog.String("suite", e.Suite.String())}
}

func (e EntryApplied) log() (slog.Level, string, []slog.Attr) {
	o := e.Outcome
	attrs := []slog.Attr{slog.Uint64("index", e.Index), slog.String("op", o.Op.String()), slog.String("outcome", o.Kind.String())}
	if len(o.Keys) > 0 {
		attrs = append(attrs, slog.Any("keys", o.Keys))
	}
	if o.Why != nil {
		attrs = append(attrs, slog.String("why", o.Why.Error()))
	}
	return entryLevels[o.Kind], "entry", attrs
}

var entryLevels = map[applier.Kind]slog.Level{
	applier.Applied:  slog.LevelInfo,
	applier.NoOp:     slog.LevelDebug,
	applier.Rejected: slog.LevelWarn,
}

func (e KEKCall) log() (slog.Level, string, []slog.Attr) {
	level, attrs := outcome(e.Err, slog.LevelDebug, slog.String("op", e.Op), keyAttr(e.Key), slog.Duration("took", e.Took))
	return level, "call to the KEK", attrs
}

func (e BudgetReached) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelWarn, "rotation is due", []slog.Attr{
		keyAttr(e.Key), slog.Int("percent", e.Percent), slog.Uint64("seals", e.Used.Seals), slog.Uint64("bytes", e.Used.Bytes),
	}
}

func (e EpochsLow) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelWarn, "few epochs left for this node, rotate soon", []slog.Attr{keyAttr(e.Key), slog.Int("epoch", int(e.Epoch))}
}

func (e EpochsExhausted) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelWarn, "no epoch left for this node, rotate", []slog.Attr{keyAttr(e.Key)}
}

func (e Registered) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "registered", []slog.Attr{keyAttr(e.Key), slog.Int("epoch", int(e.Epoch))}
}

func (e RegistrationFailed) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelWarn, "registration failed", []slog.Attr{slog.Duration("again", e.Again), errAttr(e.Err)}
}

func (e FileKeyRewrapped) log() (slog.Level, string, []slog.Attr) {
	level, attrs := outcome(e.Err, slog.LevelInfo)
	return level, "file key wrapped anew", attrs
}

func (e ReserveFailed) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelError, "reservation failed", []slog.Attr{keyAttr(e.Key), errAttr(e.Err)}
}

func (e HardwareFavours) log() (slog.Level, string, []slog.Attr) {
	return slog.LevelInfo, "suite that the processor favours", []slog.Attr{slog.String("suite", e.Suite.String())}
}
