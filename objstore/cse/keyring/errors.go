package keyring

import (
	"errors"
	"fmt"
	"strings"

	"coffer/objstore/cse/message"
)

// ErrInvalid is the kind of an error that lies in the configuration: a key, a
// name, a PEM file. Errors of the kind say what is wrong.
var ErrInvalid = errors.New("invalid key")

// ErrPassphrase is returned for a private key whose passphrase is wrong.
var ErrPassphrase = fmt.Errorf("%w: the passphrase is wrong, or the file is damaged", ErrInvalid)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// NoKeyError is returned for a message whose data key no key of a Ring can
// unwrap.
type NoKeyError struct {
	// Needed names the keys that wrapped it, as its header says.
	Needed []string
	// Failed are the errors of those that the Ring has.
	Failed []error
}

// Error names the keys that are needed, and why those at hand did not do.
func (e *NoKeyError) Error() string {
	var b strings.Builder
	if len(e.Failed) == 0 {
		b.WriteString("no key of the keyring opens it")
	} else {
		b.WriteString("the keys of the keyring that it names do not open it")
	}
	b.WriteString("; it was encrypted for " + strings.Join(e.Needed, ", "))
	for _, err := range e.Failed {
		b.WriteString("; " + err.Error())
	}
	return b.String()
}

// Unwrap returns the errors of the keys that were tried.
func (e *NoKeyError) Unwrap() []error { return e.Failed }

// describe names the key that an EDK is for. Raw AES keys have binary fields
// after their names.
func describe(e message.EDK) string {
	name := e.Info
	if rest, ok := aesFields(e.Info); ok {
		name = rest
	}
	if e.Provider == kmsProvider {
		return fmt.Sprintf(kmsProvider+" %.200q", name)
	}
	return fmt.Sprintf("%.200q", e.Provider+"/"+name)
}
