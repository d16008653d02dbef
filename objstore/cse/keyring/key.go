package keyring

import (
	"context"
	"strings"

	"coffer/objstore/cse/message"
)

// Key is one wrapping key. Safe for concurrent use.
type Key interface {
	// String names the key as it is configured, "raw-rsa MyAppKeys/S3RSAKey",
	// and shows nothing secret.
	String() string
	// Fingerprint tells the key from others of its name, and nothing that is secret.
	Fingerprint() []byte
	// CanWrap returns nil, or why new data keys cannot be wrapped.
	CanWrap() error
	// Wrap returns the data key as it goes into a header with this context.
	Wrap(context.Context, message.DataKey, message.Context) (message.EDK, error)
	// EDKBytes is how long that is for a key of the suite that is written, by
	// message.EDK.Bytes; 0 where it is known only afterwards.
	EDKBytes() int
	// Matches reports whether e names this key. Several keys can have the same
	// name.
	Matches(e message.EDK) bool
	// Unwrap returns the data key of e, which Matches.
	Unwrap(context.Context, message.Suite, message.Context, message.EDK) (message.DataKey, error)
	// Authenticates reports whether only those who can read with the key can
	// wrap under it. A message that was opened by a key which does not may be
	// anybody's; see [Ring.Authentic].
	Authenticates() bool
}

// named is a raw key's place in a header.
type named struct{ namespace, name string }

// newNamed refuses what the specification reserves or no header can hold.
func newNamed(namespace, name string) (named, error) {
	n := named{namespace, name}
	switch {
	case namespace == "" || name == "":
		return n, invalid("a raw key needs a namespace and a name")
	case strings.HasPrefix(namespace, kmsProvider):
		return n, invalid("the namespace %q belongs to AWS KMS", namespace)
	case len(namespace) > maxName || len(name) > maxName:
		return n, invalid("namespace or name is longer than %d bytes", maxName)
	}
	return n, nil
}

// maxName is far below what a header can hold, and far above what people use.
const maxName = 1024

func (n named) path() string { return n.namespace + "/" + n.name }
