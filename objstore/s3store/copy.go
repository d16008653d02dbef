package s3store

import (
	"context"
	"errors"
	"maps"
	"net/url"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Copy makes dstKey a copy of src inside the store, of any size; where the
// store does not copy, or not so that the copy is protected, through this
// machine. The source is copied in the version that a HEAD meets first; the
// condition on the destination is looked at by HEAD too, since no server was
// found that honours one, and leaves a window. Access control lists are not
// copied.
func (b *bucket) Copy(ctx context.Context, dstKey string, src objstore.Ref, opts objstore.CopyOptions) (objstore.Object, error) {
	if err := b.checkNew("copy", dstKey, opts.Meta); err != nil {
		return objstore.Object{}, err
	}
	o := b.s.op("copy", b.name, dstKey)
	from, err := b.head(ctx, b.s.op("copy", b.bucketOf(src), src.Key), src)
	if err != nil {
		return objstore.Object{}, err
	}
	prot, err := b.protectCopy(ctx, dstKey, from.Encryption, opts.Encryption)
	if err != nil {
		return objstore.Object{}, err
	}
	if err := b.checkCondition(ctx, o, opts.Cond); err != nil {
		return objstore.Object{}, err
	}
	src.ETag = from.ETag
	prot.keep = b.bucketOf(src) == b.name && src.Key == o.key
	inside, err := b.copiesInside(ctx, prot)
	if err != nil {
		return objstore.Object{}, err
	}
	if !inside {
		return b.copyThrough(ctx, o, src, from, prot, opts)
	}
	var obj objstore.Object
	if from.Size <= b.s.copyWhole {
		obj, err = b.copyWhole(ctx, o, src, from, prot, opts)
	} else {
		obj, err = b.copyParts(ctx, o, src, from, prot, opts)
	}
	if objstore.KindOf(err) == objstore.Unsupported {
		return b.copyThrough(ctx, o, src, from, prot, opts)
	}
	if err != nil {
		return objstore.Object{}, err
	}
	return b.confirmCopy(ctx, o, obj, prot)
}

// protectCopy finds the protection of a copy: a wish or a policy by name wins;
// else the source's own mode and key are kept; and a source in plaintext is
// treated like a new object.
func (b *bucket) protectCopy(ctx context.Context, dstKey string, src, wish objstore.Encryption) (protection, error) {
	rule := b.s.cfg.rule(b.name, dstKey)
	named := wish.Mode != objstore.ModeAuto || rule.Encryption.Mode != objstore.ModeAuto
	if !named && src.Mode == objstore.ModeSSEC {
		// Like a wish by name, with the proof that it takes.
		return b.protect(ctx, dstKey, objstore.Encryption{Mode: src.Mode, CustomerKeyMD5: src.CustomerKeyMD5})
	}
	p, err := b.protect(ctx, dstKey, wish)
	if named || src.SSEHeader() == "" {
		return p, err
	}
	if err != nil && !errors.Is(err, objstore.Unencrypted) {
		return p, err
	}
	if src.Mode == objstore.ModeSSES3 && (err != nil || p.now.Mode == src.Mode) {
		return p, err // what a new object gets is the same
	}
	// What is encrypted stays so, whatever is allowed for new objects.
	p.want, p.check = objstore.Encryption{Mode: src.Mode, KMSKeyID: src.KMSKeyID}, true
	p.send = ask{Encryption: objstore.Encryption{Mode: src.Mode, KMSKeyID: src.KMSKeyID, BucketKey: src.BucketKey}}
	if src.Mode != objstore.ModeSSES3 {
		p.send.context = kmsContext(b.s.cfg.KMSContext)
	}
	return p, nil
}

// effective returns the metadata and headers of the copy, and whether they
// must be said because the server would not keep them.
func effective(from objstore.Object, opts objstore.CopyOptions) (meta map[string]string, h objstore.Headers, replace bool) {
	h = from.Headers
	meta, replace = opts.MetaOf(from.Meta)
	// MinIO drops Expires from a copy that keeps everything.
	replace = replace || h.Expires != ""
	if opts.Headers != nil {
		h, replace = *opts.Headers, true
	}
	return meta, h, replace
}

// copyWhole copies by one request.
func (b *bucket) copyWhole(ctx context.Context, o operation, src objstore.Ref, from objstore.Object, prot protection, opts objstore.CopyOptions) (objstore.Object, error) {
	in := &s3.CopyObjectInput{
		Bucket: aws.String(b.name), Key: aws.String(o.key),
		CopySource: aws.String(copySource(b.bucketOf(src), src)), CopySourceIfMatch: optional(quoted(src.ETag)),
		MetadataDirective: types.MetadataDirectiveCopy, StorageClass: types.StorageClass(from.StorageClass),
	}
	meta, h, replace := effective(from, opts)
	rctx := withSource(withSSE(ctx, prot.send), from.Encryption.CustomerKeyMD5)
	if replace {
		in.MetadataDirective = types.MetadataDirectiveReplace
		in.Metadata = encodeMeta(meta)
		in.ContentType, in.ContentEncoding, in.ContentLanguage = optional(h.ContentType), optional(h.ContentEncoding), optional(h.ContentLanguage)
		in.ContentDisposition, in.CacheControl = optional(h.ContentDisposition), optional(h.CacheControl)
		if h.Expires != "" {
			rctx = withHeader(rctx, "Expires", h.Expires)
		}
	}
	out, st, err := doState(rctx, o.sending(from.Size), func(ctx context.Context) (*s3.CopyObjectOutput, error) {
		return b.client.CopyObject(ctx, in)
	})
	switch {
	case isPrecondition(err) && st.retries > 0 && b.bucketOf(src) == b.name && src.Key == o.key:
		// An earlier attempt may have changed the object's ETag itself, and
		// its reply got lost.
		seen, herr := b.head(ctx, o, objstore.Ref{Key: o.key})
		if herr == nil && seen.Size == from.Size && maps.Equal(seen.Meta, meta) {
			return seen, nil
		}
		return objstore.Object{}, withKind(err, objstore.Stale)
	case isPrecondition(err):
		return objstore.Object{}, withKind(err, objstore.Stale)
	case err != nil:
		return objstore.Object{}, err
	}
	obj := objstore.Object{Entry: objstore.Entry{Key: o.key, Size: from.Size}, VersionID: aws.ToString(out.VersionId)}
	if out.CopyObjectResult != nil {
		obj.ETag = etagOf(aws.ToString(out.CopyObjectResult.ETag))
	}
	return obj, nil
}

// copyParts copies what is too long for one request.
func (b *bucket) copyParts(ctx context.Context, o operation, src objstore.Ref, from objstore.Object, prot protection, opts objstore.CopyOptions) (obj objstore.Object, err error) {
	tagging, err := b.tagging(ctx, src)
	if err != nil {
		return obj, err
	}
	meta, h, _ := effective(from, opts)
	u, err := b.beginUpload(ctx, o.key, uploadOptions{meta: meta, headers: h, class: from.StorageClass, tagging: tagging, send: prot.send})
	if err != nil {
		return obj, err
	}
	if err := u.copyAll(ctx, src, from.Size); err != nil {
		_ = u.abort(ctx) // logged there
		return obj, err
	}
	if err := b.checkCondition(ctx, o, opts.Cond); err != nil {
		_ = u.abort(ctx)
		return obj, err
	}
	obj, _, err = u.complete(ctx, opts.Cond)
	if err != nil {
		_ = u.abort(ctx)
	}
	return obj, err
}

// copyAll copies size bytes of src, several parts at once.
func (u *upload) copyAll(ctx context.Context, src objstore.Ref, size int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cuts := pieces(size, size)
	results := make(chan partResult, len(cuts))
	sem := make(chan struct{}, copiesPerPart*u.b.s.cfg.Concurrency)
	off := int64(0)
	for _, n := range cuts {
		number, err := u.reserve()
		if err != nil {
			return err
		}
		at := off
		off += n
		go func() {
			sem <- struct{}{}
			defer func() { <-sem }()
			p, err := u.copyPart(ctx, number, src, at, n)
			results <- partResult{number: number, part: p, err: err}
		}()
	}
	var first error
	for range cuts {
		r := <-results
		if r.err != nil {
			if first == nil {
				first = r.err
				cancel()
			}
			continue
		}
		u.parts[r.number-1] = r.part
	}
	return first
}

// tagging returns the tags of src as the header of an upload wants them. A
// store without tags has none.
func (b *bucket) tagging(ctx context.Context, src objstore.Ref) (string, error) {
	client := b.client
	if name := b.bucketOf(src); name != b.name {
		client = b.s.client(name, b.s.regionOf(ctx, name))
	}
	out, err := do(ctx, b.s.op("get tags", b.bucketOf(src), src.Key), func(ctx context.Context) (*s3.GetObjectTaggingOutput, error) {
		return client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{
			Bucket: aws.String(b.bucketOf(src)), Key: aws.String(src.Key), VersionId: optional(src.VersionID),
		})
	})
	if errors.Is(err, objstore.Unsupported) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	v := url.Values{}
	for _, t := range out.TagSet {
		v.Set(aws.ToString(t.Key), aws.ToString(t.Value))
	}
	return v.Encode(), nil
}

// confirmCopy looks at what a copy has made.
func (b *bucket) confirmCopy(ctx context.Context, o operation, obj objstore.Object, prot protection) (objstore.Object, error) {
	if obj.ETag != "" {
		b.s.keys.remember(objectID{b.name, o.key, ""}, keyChoice{obj.ETag, prot.send.CustomerKeyMD5})
	}
	seen, err := b.head(ctx, o, objstore.Ref{Key: o.key, VersionID: obj.VersionID})
	if err != nil {
		return obj, newError(o.verb, o.name(), objstore.KindOf(err), "copied, but the copy could not be looked at: %w", err)
	}
	if seen.VersionID == "" {
		seen.VersionID = obj.VersionID
	}
	if obj.ETag != "" && seen.ETag != obj.ETag {
		obj.SizeKnown, obj.StoredSize, obj.Encryption = true, obj.Size, prot.now
		return obj, nil // replaced by another writer already
	}
	if seen.Size != obj.Size {
		return seen, newError(o.verb, o.name(), objstore.Integrity, "the copy has %d bytes and its source %d", seen.Size, obj.Size)
	}
	return seen, b.judge(ctx, o.verb, prot, seen)
}
