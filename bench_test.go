package atrest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/atrestdb/atrest"
	"github.com/atrestdb/atrest/applier"
	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/internal/crashfs"
	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
	"github.com/atrestdb/atrest/nodeid"
)

// A node's way to values and payloads beside the keystore's own, in one process and
// with one key each.
func BenchmarkValues(b *testing.B) {
	s := newSite(b, crashfs.New())
	require.NoError(b, s.both())
	require.NoError(b, s.add(s.node.NewRegistration(key.Raft)))
	defer s.node.Close()
	ks := must(keystore.New())
	require.NoError(b, ks.Install(1, key.Storage, key.NewDEK()))
	require.NoError(b, ks.Install(2, key.Raft, key.NewDEK()))
	require.NoError(b, ks.ActivateCounted(1, envelope.Writer{Node16: 1, Epoch: 1}))
	require.NoError(b, ks.ActivateCounted(2, envelope.Writer{Node16: 1, Epoch: 1}))
	var (
		values, raft = s.node.Storage(), s.node.Raft()
		kv, kr       = ks.Storage(), ks.Raft(envelope.RaftGroup{Cluster: key.NewClusterID()})
		location     = []byte("users/000000000042")
	)
	for _, size := range []int{100, 1000, 16384} {
		value, dst := make([]byte, size), make([]byte, 0, size+200)
		env, _, err := values.Seal(nil, value, location)
		require.NoError(b, err)
		payload := must(raft.Seal(nil, value))
		kenv, kpayload := must(kv.Seal(nil, value, location)), must(kr.Seal(nil, value))
		at := uint64(len(s.log)) + 1
		for _, c := range []struct {
			name string
			f    func() error
		}{
			{"op=seal/by=node", func() error { _, _, err := values.Seal(dst, value, location); return err }},
			{"op=seal/by=keystore", func() error { _, err := kv.Seal(dst, value, location); return err }},
			{"op=open/by=node", func() error { _, err := values.Open(dst, env, location, true); return err }},
			{"op=open/by=keystore", func() error { _, err := kv.Open(dst, kenv, location); return err }},
			{"op=raftseal/by=node", func() error { _, err := raft.Seal(dst, value); return err }},
			{"op=raftseal/by=keystore", func() error { _, err := kr.Seal(dst, value); return err }},
			{"op=raftopen/by=node", func() error { _, err := raft.Open(dst, at, payload); return err }},
			{"op=raftopen/by=keystore", func() error { _, err := kr.Open(dst, kpayload); return err }},
		} {
			b.Run(fmt.Sprintf("size=%d/%s", size, c.name), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := c.f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A large state.
const (
	manyKeys = 1000
	manyRows = 16384
)

// crowded returns a site with 1,000 keys and at least so many rows of the registry.
func crowded(b *testing.B, k kek.KEK, rows int) *site {
	b.Helper()
	s := newSite(b, crashfs.New())
	s.set = must(kek.NewSet(k))
	require.NoError(b, s.begin())
	members := []nodeid.Member{{Name: "n1", ID: s.node.ID()}}
	for i := 2; len(members) < rows/2; i++ {
		if id := nodeid.ID(i); id.Node16() != s.node.ID().Node16() {
			members = append(members, nodeid.Member{ID: id})
		}
	}
	require.NoError(b, s.add(s.node.NewBootstrap(s.ctx, members)))
	require.NoError(b, s.add(s.node.NewEnableStorage()))
	for range manyKeys - 2 {
		require.NoError(b, s.add(s.node.NewRotation(s.ctx, key.Storage)))
	}
	require.Equal(b, manyKeys, s.node.State().Len())
	return s
}

// Applying another node's registration: everything but the disk.
func BenchmarkApplyRegistration(b *testing.B) {
	s := crowded(b, kektest.New("kms:a"), manyRows)
	defer s.node.Close()
	id, index := s.active(key.Storage), uint64(len(s.log))
	b.ReportAllocs()
	for epoch := uint16(1); b.Loop(); epoch++ {
		e := applier.Registration{Key: id, Node: nodeid.ID(2 + uint64(epoch>>15)), Epoch: epoch & 0x7fff, Load: applier.LoadID{1}}
		entry := must(applier.Generation2.Append(nil, e))
		index++
		if _, err := s.node.Apply(index, entry); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := crowded(b, kektest.New("kms:a"), manyRows)
	defer s.node.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.node.Snapshot(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRestore(b *testing.B) {
	s := crowded(b, kektest.New("kms:a"), manyRows)
	part := must(s.node.Snapshot())
	require.NoError(b, s.node.Close())
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		other := newSite(b, crashfs.New())
		other.set = s.set
		n := must(other.open(other.fs))
		b.StartTimer()
		if err := n.Restore(s.ctx, part); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		require.NoError(b, n.Close())
		b.StartTimer()
	}
}

// far is a KEK in another place.
type far struct {
	*kektest.KEK
	away time.Duration
}

func (f *far) Unwrap(ctx context.Context, wrapped, ad []byte) ([]byte, error) {
	if f.away > 0 {
		select {
		case <-time.After(f.away):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return f.KEK.Unwrap(ctx, wrapped, ad)
}

// A start with 1,000 keys, whose KEK is in this process or a network away.
func BenchmarkOpenNode(b *testing.B) {
	for _, away := range []time.Duration{0, 50 * time.Millisecond} {
		b.Run(fmt.Sprintf("keys=%d/kek=%v", manyKeys, away), func(b *testing.B) {
			k := &far{KEK: kektest.New("kms:a")}
			s := crowded(b, k, 6)
			require.NoError(b, s.node.Close())
			k.away = away
			for b.Loop() {
				n, err := atrest.Open(s.ctx, atrest.Config{Dir: dir, Name: "n1", KEK: s.set, Propose: noPropose}, atrest.WithFS(s.fs))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				require.Len(b, n.Status().Keys, manyKeys)
				require.NoError(b, n.Close())
				b.StartTimer()
			}
		})
	}
}
