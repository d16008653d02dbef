package s3store

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"coffer/objstore"
)

// uncertain reports whether a write may have been done although it failed.
func uncertain(err error) bool {
	return objstore.KindOf(err) == objstore.Unavailable && statusOf(err) != http.StatusServiceUnavailable
}

// mayBeDone is uncertain for an error of the SDK: there was no reply, or one
// that says that the server has failed. What a conflict or a throttled server
// has refused is not done; to take what is there for it would let two writers
// of the same bytes both win.
func mayBeDone(err error) bool {
	s := statusOf(err)
	return s == 0 || s >= 500 && s != http.StatusServiceUnavailable
}

// written is how an object must look that is the one we sent.
type written struct {
	size      int64
	etag      string   // where ETags are MD5s; "" cannot be told
	checksums []string // as in objstore.Object; any of them
	meta      map[string]string
}

// ours looks whether the object is the one that we sent: as long, with the ETag
// or the checksum of its bytes, and with its metadata. Where ETags are no MD5 and no
// checksum is kept it cannot be told, and the answer is no.
func (b *bucket) ours(ctx context.Context, o operation, w written) (objstore.Object, bool) {
	obj, err := b.head(ctx, b.s.probe(o.verb, o.bucket, o.key), objstore.Ref{Key: o.key})
	if err != nil || obj.Size != w.size || !maps.Equal(obj.Meta, decodeMeta(encodeMeta(w.meta))) {
		return obj, false
	}
	return obj, w.etag != "" && string(obj.ETag) == w.etag || slices.Contains(w.checksums, obj.Checksum)
}

// unnamed looks for the object of a write whose reply named no ETag: a proxy's
// page may stand for it, and what lies there be another's.
func (b *bucket) unnamed(ctx context.Context, o operation, w written) (objstore.Object, error) {
	found, ok := b.ours(ctx, o, w)
	if !ok {
		return objstore.Object{}, newError(o.verb, o.name(), objstore.Integrity, "the reply names no ETag, and what was sent is not there")
	}
	return found, nil
}
