package sidecar_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/atrestdb/atrest/kek"
	"github.com/atrestdb/atrest/kek/kektest"
	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/sidecar"
)

// A node that starts opens its file, or creates it the first time, and takes a
// new epoch for the key that it will seal under.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	keks, err := kek.NewSet(kektest.New("for-tests-only"))
	if err != nil {
		panic(err)
	}

	for range 2 { // two starts of the node
		f, err := sidecar.Open(ctx, dir, 42, keks)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = sidecar.Create(ctx, dir, 42, keks)
		}
		if err != nil {
			panic(err)
		}
		const id key.ID = 7
		err = f.Update(func(tx *sidecar.Tx) error { return tx.SetEpoch(id, tx.Epoch(id)+1) })
		if err != nil {
			panic(err)
		}
		fmt.Println("epoch", f.Epoch(id), "is this start's own")
		if err := f.Close(); err != nil {
			panic(err)
		}
	}
	// Output:
	// epoch 1 is this start's own
	// epoch 2 is this start's own
}

// The state is whatever JSON its owner makes of it.
func ExampleFile_State() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "node")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	keks, err := kek.NewSet(kektest.New("for-tests-only"))
	if err != nil {
		panic(err)
	}
	f, err := sidecar.Create(ctx, dir, 42, keks)
	if err != nil {
		panic(err)
	}
	defer f.Close()

	type state struct {
		Active key.ID `json:"active"`
	}
	var s state
	fmt.Println(string(f.State()), json.Unmarshal(f.State(), &s), s.Active)

	text, err := json.Marshal(state{Active: 7})
	if err != nil {
		panic(err)
	}
	if err := f.Update(func(tx *sidecar.Tx) error { return tx.SetState(text) }); err != nil {
		panic(err)
	}
	fmt.Println(string(f.State()), json.Unmarshal(f.State(), &s), s.Active)
	// Output:
	// null <nil> 0
	// {"active":7} <nil> 7
}
