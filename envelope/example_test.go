package envelope_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

func Example() {
	c, err := envelope.NewCipher(7, key.NewDEK())
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.NewSealer(nil)
	if err != nil {
		log.Fatal(err)
	}
	location := []byte("accounts/42")
	env, err := s.SealStorage(nil, []byte("balance: 100"), location)
	if err != nil {
		log.Fatal(err)
	}
	plaintext, err := c.OpenStorage(nil, env, location)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, sealed in %d bytes\n", plaintext, len(env))

	// The envelope opens nowhere else.
	_, err = c.OpenStorage(nil, env, []byte("accounts/43"))
	fmt.Println(errors.Is(err, envelope.ErrIntegrity))
	// Output:
	// balance: 100, sealed in 58 bytes
	// true
}

func ExampleParseHeader() {
	c, err := envelope.NewCipher(7, key.NewDEK())
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.NewSealer(nil)
	if err != nil {
		log.Fatal(err)
	}
	env, err := s.SealStorage(nil, []byte("value"), nil)
	if err != nil {
		log.Fatal(err)
	}
	h, err := envelope.ParseHeader(env)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(h.Suite, "under key", h.KeyID)
	// Output: XAES-256-GCM under key 7
}

func ExampleSealer_SealRaft() {
	c, err := envelope.NewCipher(7, key.NewDEK())
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.NewSealer(nil)
	if err != nil {
		log.Fatal(err)
	}
	group := envelope.RaftGroup{Cluster: key.NewClusterID(), Label: "default"}
	env, err := s.SealRaft(nil, []byte("set x 1"), group)
	if err != nil {
		log.Fatal(err)
	}
	payload, err := c.OpenRaft(nil, env, group)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(payload))
	// Output: set x 1
}

func ExampleSealer_Stop() {
	c, err := envelope.NewCipher(7, key.NewDEK())
	if err != nil {
		log.Fatal(err)
	}
	s, err := c.NewCountedSealer(envelope.Writer{Node16: 1, Epoch: 1}, nil)
	if err != nil {
		log.Fatal(err)
	}
	s.Stop()
	_, err = s.SealStorage(nil, []byte("value"), nil)
	fmt.Println(err)
	// Output: envelope: sealer stopped: key 7
}
