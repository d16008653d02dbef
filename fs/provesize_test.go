package fs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"coffer/objstore"
)

// provingBucket is a bucket of sizes that have to be proved.
type provingBucket struct {
	keysBucket
	prove func(context.Context, objstore.Ref) (objstore.Object, error)
}

func (b *provingBucket) Prove(ctx context.Context, r objstore.Ref) (objstore.Object, error) {
	return b.prove(ctx, r)
}

// TestUnprovedIsForgotten: what cannot be proved since it is not there any more is looked
// up anew by who opens it, and not found by what was told of it before.
func TestUnprovedIsForgotten(t *testing.T) {
	for _, kind := range []objstore.Kind{objstore.NotExist, objstore.Stale} {
		b := &provingBucket{prove: func(context.Context, objstore.Ref) (objstore.Object, error) {
			return objstore.Object{}, kind
		}}
		d := &dir{fsys: newTestFilesystem(t), bucket: b, complete: true}
		entry := objstore.Entry{Key: "a", ETag: "1", Size: 5000, SizeKnown: true}
		d.remember(name{name: "a", entry: entry}, 0, time.Now())
		n := d.fsys.newFile(b, place{d, "a"})
		n.learn(finding{obj: objstore.Object{Entry: entry}, hasObj: true, complete: true})
		if err := n.proveSize(t.Context()); !errors.Is(err, errStale) {
			t.Errorf("%v: %v", kind, err)
		}
		if _, ok := d.recall("a", false); ok || !n.checked.IsZero() {
			t.Errorf("%v: the name is remembered (%v), the file was asked for %v", kind, ok, n.checked)
		}
		if gone := kind == objstore.NotExist; n.isStale() != gone {
			t.Errorf("%v: stale %v", kind, n.isStale())
		}
	}
}

// TestProofTakesItsTime: all of an object may have to be read, which takes longer than a
// question to the store.
func TestProofTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, end := proof(t.Context())
		defer end()
		time.Sleep(20 * questionTimeout)
		if err := q.Err(); err != nil {
			t.Error(err)
		}
	})
}
