package s3store

import (
	"context"
	"errors"

	"coffer/objstore"
)

// lookBefore is the poor man's condition, for endpoints that ignore the
// header: it narrows the window and cannot close it.
func (b *bucket) lookBefore(ctx context.Context, o operation, cond objstore.Condition) error {
	f := b.s.caps.get()
	if (!cond.IfAbsent || f.ifAbsent == yes) && (cond.IfMatch == "" || f.ifMatch == yes) {
		return nil
	}
	return b.checkCondition(ctx, o, cond)
}

// checkCondition looks whether cond holds now.
func (b *bucket) checkCondition(ctx context.Context, o operation, cond objstore.Condition) error {
	if !cond.IfAbsent && cond.IfMatch == "" {
		return nil
	}
	obj, err := b.head(ctx, o, objstore.Ref{Key: o.key})
	absent := errors.Is(err, objstore.NotExist)
	switch {
	case err != nil && !absent:
		return err
	case cond.IfAbsent && !absent:
		return newError(o.verb, o.name(), objstore.Exist, "")
	case cond.IfMatch != "" && absent:
		return newError(o.verb, o.name(), objstore.Stale, "the object was removed")
	case cond.IfMatch != "" && obj.ETag != cond.IfMatch:
		return newError(o.verb, o.name(), objstore.Stale, "the ETag is %s and not %s", obj.ETag, cond.IfMatch)
	}
	return nil
}

// conditions returns the headers of cond that the endpoint may honour, "" for
// the others.
func (b *bucket) conditions(cond objstore.Condition) (ifMatch, ifNoneMatch string) {
	f := b.s.caps.get()
	if cond.IfAbsent && f.ifAbsent != no {
		ifNoneMatch = "*"
	}
	if cond.IfMatch != "" && f.ifMatch != no {
		ifMatch = quoted(cond.IfMatch)
	}
	return ifMatch, ifNoneMatch
}
