package s3store

import (
	"context"
	"errors"

	"coffer/objstore"
)

// confirm completes obj, which was just written, and makes sure that it is
// protected as p promises. said tells whether obj.Encryption is from the
// reply; without it the object is asked. One that is not protected is removed
// and kind [objstore.Unencrypted] returned.
func (b *bucket) confirm(ctx context.Context, verb string, p protection, obj objstore.Object, said bool) (objstore.Object, error) {
	name := b.name + "/" + obj.Key
	b.s.keys.remember(objectID{b.name, obj.Key, ""}, keyChoice{obj.ETag, p.send.CustomerKeyMD5})
	if p.check && !said {
		seen, err := b.head(ctx, b.s.op(verb, b.name, obj.Key), objstore.Ref{Key: obj.Key, VersionID: obj.VersionID})
		switch {
		case err != nil:
			return obj, newError(verb, name, objstore.KindOf(err), "stored, but its encryption could not be looked at: %w", err)
		case seen.ETag != obj.ETag:
			// Replaced by another writer already. Ours was in place, and its
			// protection is what a scratch object of this bucket has shown.
			obj.Encryption = p.now
			return obj, nil
		}
		if seen.VersionID == "" {
			seen.VersionID = obj.VersionID
		}
		obj = seen
	}
	return obj, b.judge(ctx, verb, p, obj)
}

// judge returns nil for an object that is protected as p promises. One of
// another algorithm is removed, unless it is the only copy: where there are
// versions the one before it is left. One under a KMS key that is another or
// cannot be compared stays, since it is encrypted all the same.
func (b *bucket) judge(ctx context.Context, verb string, p protection, obj objstore.Object) error {
	if !p.check {
		return nil
	}
	switch v := satisfies(p.want, obj.Encryption); {
	case v == asWanted:
		return nil
	case v != wrongMode || p.keep && obj.VersionID == "":
		return newError(verb, b.name+"/"+obj.Key, objstore.Unencrypted, "stored as %q, not as %q; the object is kept",
			describe(obj.Encryption), describe(p.want))
	}
	return b.reject(ctx, verb, p, obj)
}

// reject removes obj because it is not protected.
func (b *bucket) reject(ctx context.Context, verb string, p protection, obj objstore.Object) error {
	name := b.name + "/" + obj.Key
	ctx = context.WithoutCancel(ctx)
	removed, err := b.removeExactly(ctx, obj)
	b.s.log.Error("an object was stored without the protection that its bucket had proved; an older object under this key may have been replaced",
		"object", name, "wanted", describe(p.want), "got", describe(obj.Encryption), "removed", removed, "error", err)
	return newError(verb, name, objstore.Unencrypted, "stored as %q, not as %q (removed: %t)", describe(obj.Encryption), describe(p.want), removed)
}

// removeExactly deletes this version of an object: by its id, else only while
// HEAD still shows its ETag.
func (b *bucket) removeExactly(ctx context.Context, obj objstore.Object) (bool, error) {
	if obj.VersionID == "" {
		if _, err := b.head(ctx, b.s.probe("remove", b.name, obj.Key), objstore.Ref{Key: obj.Key, ETag: obj.ETag}); err != nil {
			if errors.Is(err, objstore.NotExist) || errors.Is(err, objstore.Stale) {
				return false, nil
			}
			return false, err
		}
	}
	err := b.deleteVersion(ctx, b.s.probe("remove", b.name, obj.Key), obj.VersionID)
	return err == nil, err
}
