package cse

import (
	"context"
	"errors"
	"fmt"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// kinds maps what can be wrong with a message.
var kinds = map[message.Kind]objstore.Kind{
	message.NotMessage:  objstore.Integrity,
	message.Short:       objstore.Integrity,
	message.Malformed:   objstore.Integrity,
	message.Unsupported: objstore.Unsupported,
	message.TooLarge:    objstore.Unsupported,
	message.Unauthentic: objstore.Integrity,
}

// passing reports whether err may be another when the keys are asked again, and of which
// kind it is then.
func passing(err error) (objstore.Kind, bool) {
	for _, k := range []objstore.Kind{objstore.Canceled, objstore.Expired, objstore.Throttled, objstore.Unavailable} {
		if errors.Is(err, k) {
			return k, true
		}
	}
	return objstore.Unknown, false
}

// fail gives an error of a message, of the keyring or of waiting for it its kind, and
// the object's name; others stay.
func (b *bucket) fail(op, key string, err error) error {
	var none *keyring.NoKeyError
	var m *message.Error
	var kind objstore.Kind
	switch {
	case errors.As(err, &none):
		return b.unwrapping(op, key, err)
	case errors.As(err, &m):
		kind = kinds[m.Kind]
	case err == context.Canceled:
		kind = objstore.Canceled
	case err == context.DeadlineExceeded:
		kind = objstore.Unavailable
	default:
		return err
	}
	return &objstore.Error{Op: op, Key: b.Name() + "/" + key, Kind: kind, Err: err}
}

// unwrapping names the object in an error of the keyring.
func (b *bucket) unwrapping(op, key string, err error) error {
	kind := objstore.KindOf(err)
	if kind == objstore.Unknown {
		kind = objstore.KeyUnavailable
	}
	if k, ok := passing(err); ok {
		kind = k // of several keys one may open it later
	}
	return &objstore.Error{Op: op, Key: b.Name() + "/" + key, Kind: kind, Err: err}
}

func (b *bucket) failf(op, key string, kind objstore.Kind, format string, args ...any) error {
	return &objstore.Error{Op: op, Key: b.Name() + "/" + key, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// notMessage is the answer to who reads what is no message.
func (b *bucket) notMessage(op, key string) error {
	return b.failf(op, key, objstore.Integrity, "%w", errPlain)
}

// notSigned is the answer to who reads a signed message where none is read.
func (b *bucket) notSigned(op, key string) error {
	return b.failf(op, key, objstore.Unsupported, "the message is signed, and this mount reads none that is (cse-signed: auto does)")
}
