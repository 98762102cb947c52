package atrest

import (
	"github.com/cockroachdb/errors"

	"github.com/atrestdb/atrest/key"
	"github.com/atrestdb/atrest/keystore"
)

// verifyWith verifies the MAC of a snapshot's part with a DEK that is in no
// keystore yet: one of its own, so that a part that fails leaves nothing behind.
func verifyWith(dek key.DEK, p part) error {
	k, ok := p.state.Key(p.key)
	if !ok {
		return errors.Wrapf(ErrSnapshot, "atrest: no key %s", p.key)
	}
	keys, err := keystore.New()
	if err != nil {
		return err
	}
	if err := keys.Install(k.ID, k.Purpose, dek); err != nil {
		return err
	}
	if err := keys.VerifyMAC(k.ID, snapshotLabel, p.mac[:], p.text); err != nil {
		return errors.Wrapf(ErrSnapshot, "atrest: %v", err)
	}
	return nil
}
