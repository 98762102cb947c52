package keystore_test

import (
	"errors"
	"fmt"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func Example() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))
	must(s.Activate(1))

	v := s.Storage()
	location := []byte("users/42")
	env, err := v.Seal(nil, []byte("alice"), location)
	must(err)

	// Rotate. What was sealed before stays readable.
	must(s.Install(2, key.Storage, key.NewDEK()))
	must(s.Activate(2))

	plaintext, err := v.Open(nil, env, location)
	must(err)
	fmt.Printf("%s\n", plaintext)

	_, err = v.Open(nil, env, []byte("users/43"))
	fmt.Println(err)
	// Output:
	// alice
	// envelope: authentication failed
}

func ExampleStore_Storage() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))
	must(s.Activate(1))
	v := s.Storage()

	// A buffer with room for the envelope and the location is used again and again
	// without allocation.
	buf := make([]byte, 0, 4096)
	for _, value := range []string{"one", "two"} {
		env, err := v.Seal(buf, []byte(value), []byte("location"))
		must(err)
		h, err := envelope.ParseHeader(env)
		must(err)
		fmt.Println(h.Suite, "key", h.KeyID)
	}
	// Output:
	// XAES-256-GCM key 1
	// XAES-256-GCM key 1
}

func ExampleStore_Raft() {
	s, err := keystore.New()
	must(err)
	must(s.Install(5, key.Raft, key.NewDEK()))
	must(s.Activate(5))

	cluster := key.NewClusterID()
	a := s.Raft(envelope.RaftGroup{Cluster: cluster, Label: "group a"})
	b := s.Raft(envelope.RaftGroup{Cluster: cluster, Label: "group b"})
	env, err := a.Seal(nil, []byte("set x 1"))
	must(err)

	payload, err := a.Open(nil, env)
	must(err)
	fmt.Printf("%s\n", payload)
	_, err = b.Open(nil, env)
	fmt.Println(err)
	// Output:
	// set x 1
	// envelope: authentication failed
}

func ExampleStore_ActivateCounted() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))

	// This process durably took epoch 4 of the key before.
	w := envelope.Writer{Node16: 0x1f2e, Epoch: 4}
	must(s.ActivateCounted(1, w))
	err = s.ActivateCounted(1, w)
	fmt.Println(err, errors.Is(err, keystore.ErrEpochUsed))
	// Output:
	// keystore: key 1: epoch not above the last one true
}

func ExampleStore_Destroy() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))
	must(s.Install(2, key.Storage, key.NewDEK()))
	must(s.Activate(1))
	env, err := s.Storage().Seal(nil, []byte("value"), nil)
	must(err)

	fmt.Println(s.Stop(1))
	must(s.Activate(2))
	must(s.Stop(1))
	must(s.Destroy(1))
	_, err = s.Storage().Open(nil, env, nil)
	fmt.Println(err)
	// Output:
	// keystore: key 1: is the active key
	// keystore: key 1: destroyed
}

func ExampleStore_MAC() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))

	mac, err := s.MAC(1, "index", []byte("users"), []byte("alice"))
	must(err)
	fmt.Println(s.VerifyMAC(1, "index", mac[:], []byte("users"), []byte("alice")))
	fmt.Println(s.VerifyMAC(1, "index", mac[:], []byte("user"), []byte("salice")))
	// Output:
	// <nil>
	// keystore: MAC does not match
}

func ExampleStore_Subkey() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))

	k, err := s.Subkey(1, "backups")
	must(err)
	fmt.Println(k)
	// Output:
	// [redacted key]
}

func ExampleStore_Status() {
	s, err := keystore.New()
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))
	must(s.Install(2, key.Storage, key.NewDEK()))
	must(s.Activate(2))
	_, err = s.Storage().Seal(nil, []byte("value"), nil)
	must(err)

	for _, k := range s.Status() {
		fmt.Println(k.ID, k.Purpose, k.State, k.Usage.Seals, "seals", k.Usage.Bytes, "bytes")
	}
	// Output:
	// 1 storage open-only 0 seals 0 bytes
	// 2 storage active 1 seals 5 bytes
}

// rotate prints what an observer is told.
type rotate struct{}

func (rotate) NeedReserve(id key.ID, upTo envelope.Usage) {
	fmt.Println("make durable: key", id, "up to", upTo.Seals, "seals")
}

func (rotate) RotationDue(id key.ID, percent int, _ envelope.Usage) {
	fmt.Println("rotate: key", id, "is at", percent, "%")
}

func ExampleObserver() {
	s, err := keystore.New(
		keystore.WithLimits(keystore.Limits{Seals: 10, Bytes: 1 << 30, Refuse: true}),
		keystore.WithObserver(rotate{}))
	must(err)
	must(s.Install(1, key.Storage, key.NewDEK()))
	must(s.Activate(1))
	for range 11 {
		if _, err := s.Storage().Seal(nil, []byte("value"), nil); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// make durable: key 1 up to 1048576 seals
	// rotate: key 1 is at 90 %
	// rotate: key 1 is at 100 %
	// keystore: key 1: sealed as much as it may
}
