package archtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
	"github.com/atrestdb/atrest/sidecar/generation1"
)

// nodeValues also returns the DEKs of a node, which are random.
func nodeValues(t *testing.T, set *kek.Set) (map[string]any, []key.DEK) {
	t.Helper()
	l, err := atrest.OpenLocal(t.Context(), atrest.LocalConfig{Dir: t.TempDir(), KEK: set})
	require.NoError(t, err)
	n := l.Node()
	_, _, err = n.Storage().Seal(nil, []byte("value"), nil)
	require.NoError(t, err)
	var deks []key.DEK
	for k := range n.State().Keys() {
		_, dek, err := set.UnwrapDEK(t.Context(), k.Container)
		require.NoError(t, err)
		deks = append(deks, dek)
	}
	failed := errors.New("failed")
	values := map[string]any{
		"atrest.Node":        n,
		"atrest.Local":       l,
		"atrest.Storage":     n.Storage(),
		"atrest.Raft":        n.Raft(),
		"atrest.Streams":     n.Streams(),
		"atrest.Config":      atrest.Config{Dir: "d", Name: "n", KEK: set, Propose: func(context.Context, []byte) error { return nil }},
		"atrest.LocalConfig": atrest.LocalConfig{Dir: "d", KEK: set},
		"atrest.Option":      atrest.WithGroup("g"),

		"atrest.Generation1":       atrest.Generation1{Applied: 1},
		"atrest.UpgradeConfig":     atrest.UpgradeConfig{Dir: "d", Name: "n", KEK: set},
		"atrest.Upgraded":          atrest.Upgraded{Index: 1, Keys: []key.ID{7}},
		"envelope.SealerOption":    envelope.WithCompression(),
		"keystore.RaftGeneration1": n1(t).RaftGeneration1(),
		"generation1.File":         generation1.File{Version: 2},
		"generation1.Key":          generation1.Key{Purpose: key.Storage, Wrapped: []byte{1}},
		"applier.Found":            applier.Found{Index: 1},
		"atrest.View":              atrest.View{Applied: 1},
		"atrest.Status":            n.Status(),
		"atrest.KeyStatus":         n.Status().Keys[0],
		"atrest.MissingKey":        atrest.MissingKey{Err: "failed"},

		"atrest.SealFailed":         atrest.SealFailed{Purpose: key.Storage, Reason: failed},
		"atrest.OpenFailed":         atrest.OpenFailed{Purpose: key.Storage, Key: 7, Reason: failed},
		"atrest.KeyInstalled":       atrest.KeyInstalled{Key: 7, Purpose: key.Storage},
		"atrest.KeyMissing":         atrest.KeyMissing{Key: 7, Purpose: key.Storage, Err: failed},
		"atrest.KeyActivated":       atrest.KeyActivated{Key: 7, Purpose: key.Storage, Suite: envelope.XAES256GCM},
		"atrest.EntryApplied":       atrest.EntryApplied{Index: 1, Outcome: applier.Outcome{Kind: applier.Applied, Op: applier.OpStop}},
		"atrest.KEKCall":            atrest.KEKCall{Op: "wrap", Key: 7, Took: time.Second, Err: failed},
		"atrest.BudgetReached":      atrest.BudgetReached{Key: 7, Percent: 90},
		"atrest.EpochsLow":          atrest.EpochsLow{Key: 7, Epoch: 1},
		"atrest.EpochsExhausted":    atrest.EpochsExhausted{Key: 7},
		"atrest.Registered":         atrest.Registered{Key: 7, Epoch: 1},
		"atrest.RegistrationFailed": atrest.RegistrationFailed{Err: failed, Again: time.Second},
		"atrest.FileKeyRewrapped":   atrest.FileKeyRewrapped{Err: failed},
		"atrest.ReserveFailed":      atrest.ReserveFailed{Key: 7, Err: failed},
		"atrest.HardwareFavours":    atrest.HardwareFavours{Suite: envelope.XAES256GCM},
	}
	values["atrest.Backup"], values["atrest.BackupInfo"] = backupValues(t, l, set)
	// Formatting looks at fields that what runs in the background would change.
	require.NoError(t, l.Close())
	for name, v := range applierValues(n.State()) {
		values[name] = v
	}
	return values, deks
}

func n1(t *testing.T) *keystore.Store {
	t.Helper()
	s, err := keystore.New()
	require.NoError(t, err)
	return s
}

func applierValues(s *applier.State) map[string]any {
	k, _ := s.Active(key.Storage)
	row := applier.WriterRow{Key: 7, Node: 1, Epoch: 2}
	wrapped := applier.WrappedKey{ID: 7, Wrap: k.Container}
	return map[string]any{
		"applier.State":         s,
		"applier.Machine":       applier.NewMachine(s),
		"applier.Key":           k,
		"applier.Writer":        applier.Writer{Key: 7, Node: 1, First: 1, Last: 2},
		"applier.Backup":        applier.Backup{Keys: []key.ID{7}, Index: 1},
		"applier.Cutover":       s.StorageCutover(),
		"applier.Outcome":       applier.Outcome{Kind: applier.NoOp, Why: applier.ErrDuplicate},
		"applier.Kind":          applier.Applied,
		"applier.Registered":    applier.RegisteredNew,
		"applier.Rejection":     &applier.Rejection{Op: applier.OpStop, Reason: applier.ErrKeyActive, Key: 7},
		"applier.UnknownError":  &applier.UnknownError{What: "opcode", Value: 6},
		"applier.Op":            applier.OpStop,
		"applier.Generation":    applier.Generation2,
		"applier.LoadID":        applier.LoadID{1},
		"applier.BackupID":      applier.BackupID{1},
		"applier.WrappedKey":    wrapped,
		"applier.WriterRow":     row,
		"applier.Registration":  applier.Registration{Key: 7, Node: 1, Epoch: 2},
		"applier.Bootstrap":     applier.Bootstrap{Storage: wrapped, Raft: wrapped, Writers: []applier.WriterRow{row}},
		"applier.Rotation":      applier.Rotation{Key: wrapped, Purpose: key.Storage, Proposer: row},
		"applier.Rewrap":        applier.Rewrap{Keys: []applier.WrappedKey{wrapped}},
		"applier.Stop":          applier.Stop{Key: 7},
		"applier.Destroy":       applier.Destroy{Key: 7, Stopped: 1, Members: []nodeid.ID{1}},
		"applier.Evidence":      applier.Evidence{Node: 1, Taken: 2},
		"applier.WriterGone":    applier.WriterGone{Node: 1},
		"applier.BackupAdd":     applier.BackupAdd{Keys: []key.ID{7}},
		"applier.BackupForget":  applier.BackupForget{},
		"applier.EnableStorage": applier.EnableStorage{Key: 7, Proposer: row},
		"applier.EnableRaft":    applier.EnableRaft{Key: 7, Proposer: row},
		"applier.RegistryRow":   applier.RowsOf([]applier.Writer{{Key: 7, Node: 1}})[0],
	}
}
