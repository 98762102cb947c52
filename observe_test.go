package atrest_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

// withStack prints many lines where it is formatted with %+v.
var withStack = errors.Wrap(errors.New("no answer"), "asking")

var events = []struct {
	event atrest.Event
	want  string // in a log
}{
	{
		atrest.SealFailed{Purpose: key.Raft, Reason: withStack},
		`level=ERROR msg="atrest: seal failed" purpose=raft err="asking: no answer"`,
	},
	{
		atrest.OpenFailed{Purpose: key.Storage, Key: 7, Reason: envelope.ErrIntegrity},
		`level=ERROR msg="atrest: open failed" purpose=storage key=7 err="envelope: authentication failed"`,
	},
	{
		atrest.KeyInstalled{Key: 7, Purpose: key.Storage},
		`level=INFO msg="atrest: key installed" key=7 purpose=storage`,
	},
	{
		atrest.KeyMissing{Key: 7, Purpose: key.Storage, Err: withStack},
		`level=WARN msg="atrest: key missing" key=7 purpose=storage err="asking: no answer"`,
	},
	{
		atrest.KeyActivated{Key: 7, Purpose: key.Storage, Suite: envelope.AES256GCM},
		`level=INFO msg="atrest: sealing under a key" key=7 purpose=storage suite=AES-256-GCM`,
	},
	{
		atrest.EntryApplied{Index: 5, Outcome: applier.Outcome{Kind: applier.Applied, Op: applier.OpRotateDEK, Keys: []key.ID{7, 8}}},
		`level=INFO msg="atrest: entry" index=5 op=rotate-dek outcome=applied keys="[7 8]"`,
	},
	{
		atrest.EntryApplied{Index: 5, Outcome: applier.Outcome{Kind: applier.NoOp, Op: applier.OpStop, Why: applier.ErrDuplicate}},
		`level=DEBUG msg="atrest: entry" index=5 op=stop outcome=no-op why="` + applier.ErrDuplicate.Error() + `"`,
	},
	{
		atrest.EntryApplied{Index: 5, Outcome: applier.Outcome{
			Kind: applier.Rejected, Op: applier.OpStop,
			Why: &applier.Rejection{Op: applier.OpStop, Reason: applier.ErrKeyActive, Key: 7},
		}},
		`level=WARN msg="atrest: entry" index=5 op=stop outcome=rejected why="` +
			(&applier.Rejection{Op: applier.OpStop, Reason: applier.ErrKeyActive, Key: 7}).Error() + `"`,
	},
	{
		atrest.KEKCall{Op: "unwrap", Key: 7, Took: time.Second},
		`level=DEBUG msg="atrest: call to the KEK" op=unwrap key=7 took=1s`,
	},
	{
		atrest.KEKCall{Op: "wrap", Key: 7, Took: time.Second, Err: withStack},
		`level=WARN msg="atrest: call to the KEK" op=wrap key=7 took=1s err="asking: no answer"`,
	},
	{
		atrest.BudgetReached{Key: 7, Percent: 90, Used: envelope.Usage{Seals: 1, Bytes: 2}},
		`level=WARN msg="atrest: rotation is due" key=7 percent=90 seals=1 bytes=2`,
	},
	{
		atrest.EpochsLow{Key: 7, Epoch: 0xff00},
		`level=WARN msg="atrest: few epochs left for this node, rotate soon" key=7 epoch=65280`,
	},
	{
		atrest.EpochsExhausted{Key: 7},
		`level=WARN msg="atrest: no epoch left for this node, rotate" key=7`,
	},
	{
		atrest.Registered{Key: 7, Epoch: 3},
		`level=INFO msg="atrest: registered" key=7 epoch=3`,
	},
	{
		atrest.RegistrationFailed{Err: withStack, Again: time.Second},
		`level=WARN msg="atrest: registration failed" again=1s err="asking: no answer"`,
	},
	{
		atrest.FileKeyRewrapped{},
		`level=INFO msg="atrest: file key wrapped anew"`,
	},
	{
		atrest.FileKeyRewrapped{Err: withStack},
		`level=WARN msg="atrest: file key wrapped anew" err="asking: no answer"`,
	},
	{
		atrest.ReserveFailed{Key: 7, Err: withStack},
		`level=ERROR msg="atrest: reservation failed" key=7 err="asking: no answer"`,
	},
}

func handlerOptions(level slog.Level) *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
}

func TestLog(t *testing.T) {
	for _, tt := range events {
		var text bytes.Buffer
		w := atrest.NewLog(slog.New(slog.NewTextHandler(&text, handlerOptions(slog.LevelDebug))))
		w.Observe(tt.event)
		require.Equal(t, tt.want, strings.TrimSuffix(text.String(), "\n"), "%T", tt.event)

		text.Reset()
		w = atrest.NewLog(slog.New(slog.NewJSONHandler(&text, handlerOptions(slog.LevelDebug))))
		w.Observe(tt.event)
		var record map[string]any
		require.NoError(t, json.Unmarshal(text.Bytes(), &record), "%T: %s", tt.event, &text)
		require.NotContains(t, text.String(), ".go:", "%T: a stack", tt.event)
	}
}

// What is normal says nothing at the usual level but what changed.
func TestLogAtTheUsualLevel(t *testing.T) {
	var text bytes.Buffer
	w := atrest.NewLog(slog.New(slog.NewTextHandler(&text, nil)))
	w.Observe(atrest.KEKCall{Op: "unwrap", Key: 7})
	w.Observe(atrest.EntryApplied{Outcome: applier.Outcome{Kind: applier.NoOp, Why: applier.ErrReplayed}})
	require.Empty(t, text.String())
}

// Events that somebody made by hand may lack an error.
func TestLogOfEventsWithoutAnError(t *testing.T) {
	w := atrest.NewLog(slog.New(slog.DiscardHandler))
	for _, e := range []atrest.Event{
		atrest.SealFailed{},
		atrest.OpenFailed{},
		atrest.KeyMissing{},
		atrest.EntryApplied{},
		atrest.RegistrationFailed{},
		atrest.ReserveFailed{},
	} {
		w.Observe(e)
	}
	var text bytes.Buffer
	atrest.NewLog(slog.New(slog.NewTextHandler(&text, handlerOptions(0)))).Observe(atrest.ReserveFailed{Key: 7})
	require.Equal(t, "level=ERROR msg=\"atrest: reservation failed\" key=7\n", text.String())
}

func TestLogWithoutALogger(t *testing.T) {
	var text bytes.Buffer
	old := slog.Default()
	t.Cleanup(func() { slog.SetDefault(old) })
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, handlerOptions(0))))
	atrest.NewLog(nil).Observe(atrest.KeyInstalled{Key: 7, Purpose: key.Raft})
	require.Equal(t, "level=INFO msg=\"atrest: key installed\" key=7 purpose=raft\n", text.String())
}

// The first thing that an observer hears of a start is what the processor is good at.
func TestStartReportsWhatTheHardwareFavours(t *testing.T) {
	disk := newDisk()
	seen := make(heard, 64)
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: dir, KEK: set(t, "kms:a")}, atrest.WithFS(disk), atrest.WithObserver(seen))
	require.NoError(t, err)
	require.Equal(t, atrest.HardwareFavours{Suite: envelope.Favoured()}, <-seen)
	require.Equal(t, envelope.Favoured(), l.Status().Favoured)
	require.NoError(t, l.Close())
}

type heard chan atrest.Event

func (c heard) Observe(e atrest.Event) {
	select {
	case c <- e:
	default:
	}
}
