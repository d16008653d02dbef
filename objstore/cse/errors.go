package cse

import (
	"errors"
	"fmt"

	"coffer/objstore"
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

// fail makes an error of one of package message an *objstore.Error; others stay.
func (b *bucket) fail(op, key string, err error) error {
	var m *message.Error
	if errors.As(err, &m) {
		return &objstore.Error{Op: op, Key: b.Name() + "/" + key, Kind: kinds[m.Kind], Err: err}
	}
	return err
}

func (b *bucket) failf(op, key string, kind objstore.Kind, format string, args ...any) error {
	return &objstore.Error{Op: op, Key: b.Name() + "/" + key, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// notMessage is the answer to who reads what is no message.
func (b *bucket) notMessage(op, key string) error {
	return b.failf(op, key, objstore.Integrity, "%w", errPlain)
}
