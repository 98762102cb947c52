package atrest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/key"
)

func header(id key.ID, dek key.DEK) key.Header {
	return key.Header{Cluster: key.ClusterID{1}, ID: id, Purpose: key.Storage, Check: key.CheckOf(dek)}
}

// wants is what the state says about a key.
func wants(h key.Header) applier.Key {
	return applier.Key{ID: h.ID, Purpose: h.Purpose, Check: h.Check, State: key.Active}
}

func TestPreparedGivesTheKeyThatWasAskedFor(t *testing.T) {
	dek := key.NewDEK()
	h := header(7, dek)
	for _, tt := range []struct {
		name string
		want applier.Key
		ok   bool
	}{
		{"the same", wants(h), true},
		{"other id", applier.Key{ID: 8, Purpose: h.Purpose, Check: h.Check}, false},
		{"other purpose", applier.Key{ID: 7, Purpose: key.Raft, Check: h.Check}, false},
		{"other bytes", applier.Key{ID: 7, Purpose: h.Purpose, Check: key.CheckOf(key.NewDEK())}, false},
		{"no check value", applier.Key{ID: 7, Purpose: h.Purpose}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p atrest.Prepared
			now := time.Now()
			_, ok := p.Take(tt.want, now)
			require.False(t, ok, "nothing was kept yet")
			p.Keep(h, dek, now)
			got, ok := p.Take(tt.want, now)
			require.Equal(t, tt.ok, ok)
			require.Equal(t, tt.ok, !got.IsZero() && key.EqualDEK(got, dek))
			_, ok = p.Take(tt.want, now)
			require.False(t, ok, "it is given once")
		})
	}
}

func TestPreparedForgets(t *testing.T) {
	dek := key.NewDEK()
	h := header(7, dek)
	now := time.Now()
	for _, tt := range []struct {
		after time.Duration
		ok    bool
	}{
		{0, true},
		{atrest.KeepPrepared - 1, true},
		{atrest.KeepPrepared, false},
		{atrest.KeepPrepared + time.Hour, false},
		{-time.Hour, true}, // a clock that was set back
	} {
		var p atrest.Prepared
		p.Keep(h, dek, now)
		_, ok := p.Take(wants(h), now.Add(tt.after))
		require.Equal(t, tt.ok, ok, "after %v", tt.after)
	}
}

// What is kept follows a list in which nothing is clever.
func TestPreparedFollowsTheModel(t *testing.T) {
	type kept struct {
		h  key.Header
		at time.Time
	}
	deks := make([]key.DEK, 3*atrest.MaxPrepared)
	for i := range deks {
		deks[i] = key.NewDEK()
	}
	rapid.Check(t, func(t *rapid.T) {
		var (
			p     atrest.Prepared
			model []kept
			now   = time.Now()
		)
		expire := func() {
			model = slices.DeleteFunc(model, func(k kept) bool { return now.Sub(k.at) >= atrest.KeepPrepared })
		}
		draw := func(t *rapid.T) (key.Header, key.DEK) {
			i := rapid.IntRange(0, len(deks)-1).Draw(t, "key")
			// Two ids, so that one id stands for several keys as well.
			return header(key.ID(1+i%(len(deks)/2)), deks[i]), deks[i]
		}
		t.Repeat(map[string]func(*rapid.T){
			"keep": func(t *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(t, "times") {
					h, dek := draw(t)
					p.Keep(h, dek, now)
					expire()
					model = slices.DeleteFunc(model, func(k kept) bool { return k.h == h })
					model = append(model, kept{h, now})
					model = model[max(0, len(model)-atrest.MaxPrepared):]
				}
			},
			"take": func(t *rapid.T) {
				h, dek := draw(t)
				got, ok := p.Take(wants(h), now)
				expire()
				i := slices.IndexFunc(model, func(k kept) bool { return k.h == h })
				if ok != (i >= 0) || ok && !key.EqualDEK(got, dek) {
					t.Fatalf("key %s: got %v, want %v", h.ID, ok, i >= 0)
				}
				if ok {
					model = slices.Delete(model, i, i+1)
				}
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second)
			},
			"": func(t *rapid.T) {
				if len(p) > atrest.MaxPrepared {
					t.Fatalf("%d are kept", len(p))
				}
			},
		})
	})
}
