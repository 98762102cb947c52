package keystore_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// modelKey is what the model knows of a key.
type modelKey struct {
	purpose key.Purpose
	dek     int // which of the DEKs; -1 in a tombstone
	state   key.State
	suite   envelope.Suite // while active
	epoch   int
	used    envelope.Usage
	told    []int
}

// modelValue is something that was sealed.
type modelValue struct {
	env, plaintext []byte
	id             key.ID
	purpose        key.Purpose
	location       string
}

// machine runs a Store beside a model of it: a map, and the rules one by one.
type machine struct {
	s            *keystore.Store
	limits       keystore.Limits
	extendedOnly bool
	deks         [3]key.DEK

	keys   map[key.ID]*modelKey
	active map[key.Purpose]key.ID
	values []modelValue
}

func (m *machine) NeedReserve(id key.ID, upTo envelope.Usage) {
	if used := m.keys[id].used; upTo.Seals <= used.Seals || upTo.Bytes <= used.Bytes {
		panic("asked to reserve what is used already")
	}
}

func (m *machine) RotationDue(id key.ID, percent int, used envelope.Usage) {
	if u := m.keys[id].used; used.Seals < u.Seals || used.Bytes < u.Bytes {
		panic("told less than is used")
	}
	m.keys[id].told = append(m.keys[id].told, percent)
}

func (m *machine) drawID(t *rapid.T) key.ID {
	return rapid.SampledFrom([]key.ID{0, 1, 2, 3, 4, 1 << 31, 1<<32 - 1}).Draw(t, "id")
}

func drawPurpose(t *rapid.T) key.Purpose {
	return rapid.SampledFrom([]key.Purpose{key.Storage, key.Storage, key.Raft, key.Raft, 0, 3}).Draw(t, "purpose")
}

// missing is what every method says of an id that is not there.
func (m *machine) missing(id key.ID) error {
	if m.keys[id] == nil {
		return keystore.ErrUnknownKey
	}
	return nil
}

// ended is what is said of a key that must not be used for anything new.
func (m *machine) ended(id key.ID) error {
	switch k := m.keys[id]; {
	case k == nil:
		return keystore.ErrUnknownKey
	case k.state == key.Stopped:
		return keystore.ErrStopped
	case k.state == key.Destroyed:
		return keystore.ErrDestroyed
	}
	return nil
}

// invalid is what is said of an id or purpose that no key can have.
func invalid(id key.ID, p key.Purpose) error {
	if id == 0 {
		return key.ErrReservedID
	}
	if p != key.Storage && p != key.Raft {
		return key.ErrPurpose
	}
	return nil
}

func same(t *rapid.T, want, got error) {
	if want == nil {
		require.NoError(t, got)
		return
	}
	require.ErrorIs(t, got, want)
}

func (m *machine) Install(t *rapid.T) {
	id, p, dek := m.drawID(t), drawPurpose(t), rapid.IntRange(0, len(m.deks)-1).Draw(t, "dek")
	want := invalid(id, p)
	switch k := m.keys[id]; {
	case want != nil:
	case k == nil:
		m.keys[id] = &modelKey{purpose: p, dek: dek, state: key.OpenOnly, epoch: -1}
	case k.state == key.Destroyed:
		want = keystore.ErrDestroyed
	case k.purpose != p || k.dek != dek:
		want = keystore.ErrKeyConflict
	}
	same(t, want, m.s.Install(id, p, m.deks[dek]))
}

func (m *machine) InstallDestroyed(t *rapid.T) {
	id, p := m.drawID(t), drawPurpose(t)
	want := invalid(id, p)
	switch k := m.keys[id]; {
	case want != nil:
	case k == nil:
		m.keys[id] = &modelKey{purpose: p, dek: -1, state: key.Destroyed, epoch: -1}
	case k.state != key.Destroyed || k.purpose != p:
		want = keystore.ErrKeyConflict
	}
	same(t, want, m.s.InstallDestroyed(id, p))
}

func (m *machine) activate(id key.ID, suite envelope.Suite) {
	k := m.keys[id]
	if former := m.active[k.purpose]; former != 0 && former != id {
		m.keys[former].state = key.OpenOnly
	}
	m.active[k.purpose] = id
	k.state, k.suite = key.Active, suite
}

func (m *machine) Activate(t *rapid.T) {
	id := m.drawID(t)
	want := m.ended(id)
	same(t, want, m.s.Activate(id))
	if want == nil && m.keys[id].state != key.Active {
		m.activate(id, envelope.XAES256GCM)
	}
}

func (m *machine) ActivateCounted(t *rapid.T) {
	id, epoch := m.drawID(t), rapid.IntRange(0, 6).Draw(t, "epoch")
	want := m.ended(id)
	if want == nil && epoch <= m.keys[id].epoch {
		want = keystore.ErrEpochUsed
	}
	same(t, want, m.s.ActivateCounted(id, envelope.Writer{Node16: 3, Epoch: uint16(epoch)}))
	if want == nil {
		m.keys[id].epoch = epoch
		if m.extendedOnly {
			m.activate(id, envelope.XAES256GCM)
		} else {
			m.activate(id, countedSuite())
		}
	}
}

func (m *machine) Deactivate(t *rapid.T) {
	p := drawPurpose(t)
	if p != key.Storage && p != key.Raft {
		same(t, key.ErrPurpose, m.s.Deactivate(p))
		return
	}
	if id := m.active[p]; id != 0 {
		m.keys[id].state = key.OpenOnly
	}
	delete(m.active, p)
	same(t, nil, m.s.Deactivate(p))
}

func (m *machine) Stop(t *rapid.T) {
	id := m.drawID(t)
	want := m.missing(id)
	switch k := m.keys[id]; {
	case want != nil:
	case k.state == key.Active:
		want = keystore.ErrActive
	case k.state == key.Destroyed:
		want = keystore.ErrDestroyed
	default:
		k.state = key.Stopped
	}
	same(t, want, m.s.Stop(id))
}

func (m *machine) Destroy(t *rapid.T) {
	id := m.drawID(t)
	want := m.missing(id)
	switch k := m.keys[id]; {
	case want != nil:
	case k.state == key.Active, k.state == key.OpenOnly:
		want = keystore.ErrNotStopped
	default:
		k.state = key.Destroyed
	}
	same(t, want, m.s.Destroy(id))
}

func (m *machine) SetReserved(t *rapid.T) {
	id := m.drawID(t)
	u := envelope.Usage{
		Seals: rapid.Uint64Range(0, m.limits.Seals+1).Draw(t, "seals"),
		Bytes: rapid.Uint64Range(0, m.limits.Bytes+1).Draw(t, "bytes"),
	}
	k := m.keys[id]
	if k != nil && k.state == key.Active {
		return // comes before the activation
	}
	same(t, m.missing(id), m.s.SetReserved(id, u))
	if k != nil {
		k.used = envelope.Usage{Seals: max(k.used.Seals, u.Seals), Bytes: max(k.used.Bytes, u.Bytes)}
	}
}

func (m *machine) seal(t *rapid.T, p key.Purpose, location string) {
	plaintext := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "plaintext")
	var (
		env []byte
		err error
	)
	if p == key.Storage {
		env, err = m.s.Storage().Seal([]byte("x"), plaintext, []byte(location))
	} else {
		env, err = m.s.Raft(envelope.RaftGroup{Label: location}).Seal([]byte("x"), plaintext)
	}
	id := m.active[p]
	k := m.keys[id]
	var want error
	switch {
	case id == 0:
		want = keystore.ErrNoActiveKey
	case m.limits.Refuse && (k.used.Seals >= m.limits.Seals || k.used.Bytes+uint64(len(plaintext)) > max(m.limits.Bytes, k.used.Bytes)):
		want = keystore.ErrBudget
	}
	same(t, want, err)
	if want != nil {
		require.Nil(t, env)
		return
	}
	require.Equal(t, byte('x'), env[0])
	env = env[1:]
	h, err := envelope.ParseHeader(env)
	require.NoError(t, err)
	require.Equal(t, envelope.Header{Suite: k.suite, KeyID: id}, h)
	k.used.Seals++
	k.used.Bytes += uint64(len(plaintext))
	m.values = append(m.values, modelValue{env: env, plaintext: plaintext, id: id, purpose: p, location: location})
}

func (m *machine) SealStorage(t *rapid.T) { m.seal(t, key.Storage, rapid.String().Draw(t, "location")) }

func (m *machine) SealRaft(t *rapid.T) {
	m.seal(t, key.Raft, rapid.StringN(0, 20, 60).Draw(t, "group"))
}

func (m *machine) Open(t *rapid.T) {
	if len(m.values) == 0 {
		return
	}
	v := rapid.SampledFrom(m.values).Draw(t, "value")
	p := rapid.SampledFrom([]key.Purpose{v.purpose, v.purpose, key.Storage, key.Raft}).Draw(t, "purpose")
	location := rapid.SampledFrom([]string{v.location, v.location, "elsewhere"}).Draw(t, "location")
	var (
		got []byte
		err error
	)
	if p == key.Storage {
		got, err = m.s.Storage().Open(nil, v.env, []byte(location))
	} else {
		got, err = m.s.Raft(envelope.RaftGroup{Label: location}).Open(nil, v.env)
	}
	var want error
	switch {
	case p != v.purpose:
		want = keystore.ErrPurpose
	case m.keys[v.id].state == key.Destroyed:
		want = keystore.ErrDestroyed
	case location != v.location:
		want = envelope.ErrIntegrity
	}
	same(t, want, err)
	if want != nil {
		require.Nil(t, got)
		return
	}
	require.NotNil(t, got)
	require.Equal(t, string(v.plaintext), string(got))
}

// MAC also checks Subkey: two ids with one DEK have the same, others do not.
func (m *machine) MAC(t *rapid.T) {
	id := m.drawID(t)
	mac, err := m.s.MAC(id, "label", []byte("part"))
	same(t, m.ended(id), err)
	if err == nil {
		require.NoError(t, m.s.VerifyMAC(id, "label", mac[:], []byte("part")))
		require.ErrorIs(t, m.s.VerifyMAC(id, "label", mac[:], []byte("par"), []byte("t")), keystore.ErrMAC)
	}
	sub, err := m.s.Subkey(id, "label")
	want := m.missing(id)
	if want == nil && m.keys[id].state == key.Destroyed {
		want = keystore.ErrDestroyed
	}
	same(t, want, err)
	for other, k := range m.keys {
		if subkey, err := m.s.Subkey(other, "label"); want == nil && err == nil {
			require.Equal(t, k.dek == m.keys[id].dek, key.EqualDEK(sub, subkey))
		}
	}
}

// due is the percentage of the limits that u is.
func (m *machine) due(u envelope.Usage) int {
	for _, p := range []uint64{100, 90} {
		if u.Seals*100 >= m.limits.Seals*p || u.Bytes*100 >= m.limits.Bytes*p {
			return int(p)
		}
	}
	return 0
}

// Check compares everything that can be asked.
func (m *machine) Check(t *rapid.T) {
	all := m.s.Status()
	require.Len(t, all, len(m.keys))
	for i, id := range slices.Sorted(maps.Keys(m.keys)) {
		k, got := m.keys[id], all[i]
		want := keystore.KeyStatus{ID: id, Purpose: k.purpose, State: k.state, Usage: k.used, Due: got.Due}
		if k.state == key.Active {
			want.Suite = k.suite
		}
		require.Equal(t, want, got)
		used, err := m.s.Usage(id)
		require.NoError(t, err)
		require.Equal(t, k.used, used)

		early := envelope.Usage{Seals: k.used.Seals + m.limits.Seals/16 + 1, Bytes: k.used.Bytes + m.limits.Bytes/16 + 1}
		require.GreaterOrEqual(t, got.Due, m.due(k.used))
		require.LessOrEqual(t, got.Due, m.due(early))
		require.True(t, slices.Equal(k.told, []int{90, 100}[:len(k.told)]), "told once each: %v", k.told)
		if k.state == key.Active && len(k.told) < 2 {
			require.Less(t, m.due(k.used), 100, "a seal got there and nobody was told")
		}
	}
	for _, p := range []key.Purpose{key.Storage, key.Raft} {
		id, ok := m.s.Active(p)
		require.Equal(t, m.active[p], id)
		require.Equal(t, m.active[p] != 0, ok)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			limits: keystore.Limits{
				Seals:  rapid.SampledFrom([]uint64{1, 2, 5, 40, 1 << 32}).Draw(t, "limit of seals"),
				Bytes:  rapid.SampledFrom([]uint64{1, 30, 300, 1 << 46}).Draw(t, "limit of bytes"),
				Refuse: rapid.Bool().Draw(t, "refuse"),
			},
			extendedOnly: rapid.Bool().Draw(t, "extended only"),
			keys:         map[key.ID]*modelKey{},
			active:       map[key.Purpose]key.ID{},
		}
		for i := range m.deks {
			m.deks[i] = key.NewDEK()
		}
		opts := []keystore.Option{keystore.WithLimits(m.limits), keystore.WithObserver(m)}
		if m.extendedOnly {
			opts = append(opts, keystore.WithExtendedOnly())
		}
		var err error
		m.s, err = keystore.New(opts...)
		require.NoError(t, err)
		t.Repeat(map[string]func(*rapid.T){
			"":                 m.Check,
			"Install":          m.Install,
			"InstallDestroyed": m.InstallDestroyed,
			"Activate":         m.Activate,
			"ActivateCounted":  m.ActivateCounted,
			"Deactivate":       m.Deactivate,
			"Stop":             m.Stop,
			"Destroy":          m.Destroy,
			"SetReserved":      m.SetReserved,
			"SealStorage":      m.SealStorage,
			"SealStorageAgain": m.SealStorage, // twice as often as the rest
			"SealRaft":         m.SealRaft,
			"Open":             m.Open,
			"MAC":              m.MAC,
		})
	})
}
