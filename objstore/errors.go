package objstore

import (
	"errors"
	"fmt"
	"strings"
)

// Kind classifies an error by what a caller can do about it. A Kind is itself
// an error, so that errors.Is(err, objstore.NotExist) reads as it should.
type Kind int

// The kinds. Package fs holds the one table that maps them to errno values.
const (
	Unknown        Kind = iota
	NotExist            // no such bucket, object, version or upload
	Exist               // the bucket or object is there already
	NotEmpty            // the bucket still holds objects
	Permission          // the store refused these credentials
	KeyUnavailable      // an encryption key is unknown, disabled or denied
	Unencrypted         // the store does not protect as the policy demands
	Stale               // the object is another version than was asked for
	Conflict            // a concurrent write was under way (409)
	Quota               // the account's quota is used up
	NoSpace             // the store, or the scratch space, is full
	TooLarge            // beyond a size limit of the store
	NameTooLong         // key or bucket name beyond the store's limit
	InvalidName         // key or bucket name that the store refuses
	InvalidRange        // a range that starts at or beyond the end
	Throttled           // asked to slow down, until the deadline
	Unavailable         // no usable answer until the deadline
	Expired             // the credentials have expired and nothing newer is found
	Archived            // the bytes must be restored first
	Unsupported         // the store does not offer this
	Canceled            // the caller gave up
	Integrity           // bytes or lengths are not what they must be
)

var kindText = [...]string{
	Unknown: "error", NotExist: "does not exist", Exist: "exists already", NotEmpty: "not empty",
	Permission: "permission denied", KeyUnavailable: "encryption key unavailable",
	Unencrypted: "not encrypted as required", Stale: "changed in the meantime",
	Conflict: "conflicting write", Quota: "quota exceeded", NoSpace: "no space left",
	TooLarge: "too large", NameTooLong: "name too long", InvalidName: "invalid name",
	InvalidRange: "range beyond the end", Throttled: "throttled", Unavailable: "store unavailable",
	Expired: "credentials expired", Archived: "archived, restore it first",
	Unsupported: "not supported by the store", Canceled: "canceled", Integrity: "integrity check failed",
}

// Error returns the kind in words.
func (k Kind) Error() string {
	if k < 0 || int(k) >= len(kindText) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindText[k]
}

// Error is a failed operation on a store.
type Error struct {
	Op   string // what was attempted: "get", "put", "create bucket", ...
	Key  string // "bucket" or "bucket/key"
	Kind Kind
	// Status is the HTTP status, 0 when there was no answer.
	Status int
	// RequestID is the server's name for the request, for its administrator.
	RequestID string
	Err       error // the cause; may be nil
}

// Error returns one line: operation, key, kind, cause, status and request id.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Key != "" {
		fmt.Fprintf(&b, " %q", e.Key)
	}
	b.WriteString(": ")
	b.WriteString(e.Kind.Error())
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d", e.Status)
		if e.RequestID != "" {
			fmt.Fprintf(&b, ", request %s", e.RequestID)
		}
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns the kind of the outermost [*Error] or [Kind] in err's chain,
// and Unknown when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Unknown
}
