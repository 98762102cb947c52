package envelope

import "errors"

// What a caller may do about an error of this package: nothing but report the
// data as damaged ([ErrIntegrity], [ErrShort], [ErrSuite]), use a newer version
// of this module ([ErrUnsupported]), pick the right key ([ErrKeyMismatch]), send
// less ([ErrTooLarge]), or seal under another key ([ErrStopped],
// [ErrExhausted]). A header with key id 0 is reported as key.ErrReservedID.
var (
	// ErrIntegrity says that an envelope is not what was sealed under this key
	// for this place. It never says why.
	ErrIntegrity = errors.New("envelope: authentication failed")
	// ErrShort says that the bytes are too few for the envelope they begin.
	ErrShort = errors.New("envelope: too short")
	// ErrSuite says that no envelope has this version and flag here.
	ErrSuite = errors.New("envelope: unknown version or flag")
	// ErrUnsupported says that the suite is not allowed here: strict FIPS mode
	// refuses it.
	ErrUnsupported = errors.New("envelope: suite not supported")
	// ErrKeyMismatch says that the envelope names another key.
	ErrKeyMismatch = errors.New("envelope: sealed under another key")
	// ErrTooLarge says that a plaintext, a location or a label is above its limit.
	ErrTooLarge = errors.New("envelope: too large")
	// ErrExhausted says that the sealer has no nonces, or no budget, left for
	// this seal.
	ErrExhausted = errors.New("envelope: nonces or budget used up")
	// ErrStopped says that the sealer was stopped.
	ErrStopped = errors.New("envelope: sealer stopped")
)
