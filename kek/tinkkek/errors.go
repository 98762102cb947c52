package tinkkek

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/atrestdb/atrest/kek"
)

// ErrKeyset is returned for what is no keyset, or one whose keys make no AEAD in
// memory.
var ErrKeyset = errors.New("no usable AEAD keyset")

var errNoAEAD = errors.New("there is no AEAD")

// explain wraps an error of an AEAD in what it means for the caller, as far as
// somebody knows.
func explain(ctx context.Context, err error, known ...func(error) error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%w: %w", kek.ErrUnreachable, ended)
	}
	for _, kindOf := range known {
		if kind := kindOf(err); kind != nil {
			return fmt.Errorf("%w: %w", kind, err)
		}
	}
	return err
}

// wrongKey is what it means when a keyset in memory does not open something.
func wrongKey(error) error { return kek.ErrWrongKey }

// remote knows the errors of key services, by methods that their clients give
// their errors, and where there is none, by texts that they do not change. Only
// what is certain is final.
func remote(err error) error {
	for _, kind := range []error{kek.ErrUnreachable, kek.ErrDenied, kek.ErrWrongKey} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	if kind := kindOfCode(err); kind != nil {
		return kind
	}
	switch status := httpStatus(err); {
	case status == 0:
	case status == 400 && unopened.MatchString(err.Error()):
		return kek.ErrWrongKey
	case slices.Contains([]int{400, 401, 403, 404}, status):
		return kek.ErrDenied
	default:
		return kek.ErrUnreachable
	}
	if unopened.MatchString(err.Error()) { // an AEAD in memory, as in Tink's envelopes
		return kek.ErrWrongKey
	}
	return nil
}

// unopened is what is said of a ciphertext that is not authentic.
var unopened = regexp.MustCompile(`Decryption failed: |message authentication fail(?:ed|ure)|HMAC: invalid MAC|invalid ciphertext`)

// kindOfCode looks for the codes of AWS and of gRPC.
func kindOfCode(err error) error {
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) && coded.ErrorCode() != "" {
		switch coded.ErrorCode() {
		case "InvalidCiphertextException", "IncorrectKeyException":
			return kek.ErrWrongKey
		case "AccessDeniedException", "NotFoundException", "DisabledException", "KMSInvalidStateException",
			"InvalidKeyUsageException", "InvalidGrantTokenException", "ExpiredTokenException",
			"UnrecognizedClientException", "InvalidSignatureException", "ValidationException":
			return kek.ErrDenied
		}
		return kek.ErrUnreachable // throttled, busy, out of order
	}
	m := grpcCode.FindStringSubmatch(err.Error())
	if m == nil {
		return nil
	}
	switch m[1] {
	case "InvalidArgument":
		if unopened.MatchString(err.Error()) {
			return kek.ErrWrongKey
		}
		return kek.ErrDenied
	case "PermissionDenied", "Unauthenticated", "NotFound", "FailedPrecondition", "Unimplemented":
		return kek.ErrDenied
	}
	return kek.ErrUnreachable
}

var (
	grpcCode = regexp.MustCompile(`\bcode = ([A-Za-z]+) desc = `)
	httpCode = regexp.MustCompile(`\bgoogleapi: Error ([1-5]\d\d)\b|\bCode: ([1-5]\d\d)\. `)
)

// httpStatus returns the status of an answer by HTTP, 0 if there is none.
func httpStatus(err error) int {
	var r interface{ HTTPStatusCode() int }
	if errors.As(err, &r) {
		return r.HTTPStatusCode()
	}
	for _, s := range httpCode.FindStringSubmatch(err.Error()) {
		if n, err := strconv.Atoi(s); err == nil {
			return n
		}
	}
	return 0
}
