package envelope_test

import (
	"testing"

	"github.com/atrestdb/atrest/envelope"
	"github.com/atrestdb/atrest/key"
)

func TestRoundTrip(t *testing.T) {
	c, err := envelope.NewCipher(7, key.NewDEK())
	if err != nil {
		t.Fatal(err)
	}
	s, _ := c.NewSealer(nil)
	env, err := s.SealStorage(nil, []byte("hi"), []byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	pt, err := c.OpenStorage(nil, env, []byte("k"))
	if err != nil || string(pt) != "hi" {
		t.Fatal(pt, err)
	}
}
