package cache

import (
	"context"
	"errors"
	"fmt"
	"os"

	"coffer/objstore"
)

// errAbandoned fails the blocks of a fetch whose reader was closed. Whoever
// waited for them through another handle fetches for itself.
var errAbandoned = errors.New("cache: the fetch was abandoned")

// canceled classifies the end of a caller's context.
func canceled(op, key string, ctx context.Context) error {
	kind := objstore.Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		kind = objstore.Unavailable
	}
	return &objstore.Error{Op: op, Key: key, Kind: kind, Err: ctx.Err()}
}

// closedError is the answer of a reader or stage after Close.
func closedError(op, key string) error {
	return &objstore.Error{Op: op, Key: key, Kind: objstore.Canceled, Err: os.ErrClosed}
}

// integrity says that the store's answer is not what it must be.
func integrity(key, format string, args ...any) error {
	return &objstore.Error{Op: "read", Key: key, Kind: objstore.Integrity, Err: fmt.Errorf(format, args...)}
}

// named gives err a key and the kind it carries. An error that names itself
// as an objstore.Error stays as it is.
func named(op, key string, err error) error {
	var e *objstore.Error
	if errors.As(err, &e) {
		return err
	}
	kind := objstore.KindOf(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		kind = objstore.Unavailable
	case errors.Is(err, context.Canceled):
		kind = objstore.Canceled
	}
	return &objstore.Error{Op: op, Key: key, Kind: kind, Err: err}
}
