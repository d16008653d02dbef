package s3store

import (
	"context"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// copiesInside tells whether the store makes copies that are protected as prot
// says, which is not to be believed: RGW 16 stores a copy in plaintext where it
// ignores the header, and a copy of an object onto itself has then replaced an
// encrypted one. So a scratch object is copied before the first copy.
func (b *bucket) copiesInside(ctx context.Context, prot protection) (bool, error) {
	if !prot.check {
		return true, nil
	}
	res, err := b.prove(ctx, question{ask: prot.send, copied: true})
	if err != nil {
		return false, err
	}
	return prot.copied(res) == nil, nil
}

// copied returns why a copy that came out as res is not protected so.
func (p protection) copied(res proved) error {
	if res.why == nil && satisfies(p.want, res.enc) == wrongMode {
		return newError("copy", "", objstore.Unencrypted, "the copy of a scratch object came out as %q, not as %q", describe(res.enc), describe(p.want))
	}
	return res.why
}

// proveCopy copies a scratch object to another one and looks at that. A store
// that refuses to is an answer too.
func (b *bucket) proveCopy(ctx context.Context, want ask) (proved, error) {
	from, to := b.newScratch(), b.newScratch()
	defer from.remove(ctx)
	defer to.remove(ctx)
	if err := from.put(ctx, want, nil); err != nil {
		return proved{}, err
	}
	enc, err := to.copyAndLook(ctx, from, want)
	switch {
	case err == nil && enc.Encrypted():
		return proved{enc: enc, send: want.SSEHeader() != ""}, nil
	case err == nil:
		err = newError("copy", b.name+"/"+to.key, objstore.Unencrypted, "the copy of a scratch object came out as %q", describe(orNone(enc)))
	case !refusesSSE(err) || objstore.KindOf(err) == objstore.KeyUnavailable:
		return proved{}, err // it may pass
	}
	b.s.log.Warn("the store makes no encrypted copies: what is renamed or gets other attributes is read and written anew by this machine",
		"bucket", b.name, "mode", wordOf(want.Mode), "error", err)
	return proved{enc: orNone(enc), why: err}, nil
}

// copyAndLook makes sc a copy of from and returns what HEAD says of it.
func (sc *scratch) copyAndLook(ctx context.Context, from *scratch, want ask) (objstore.Encryption, error) {
	in := &s3.CopyObjectInput{
		Bucket: aws.String(sc.b.name), Key: aws.String(sc.key),
		CopySource: aws.String(copySource(sc.b.name, objstore.Ref{Key: from.key})),
	}
	ctx = withSource(withSSE(ctx, want), want.CustomerKeyMD5)
	out, err := do(ctx, sc.b.s.probe("probe", sc.b.name, sc.key), func(ctx context.Context) (*s3.CopyObjectOutput, error) {
		return sc.b.client.CopyObject(ctx, in)
	})
	if err != nil {
		sc.failed(err)
		return objstore.Encryption{}, err
	}
	sc.versions[aws.ToString(out.VersionId)] = true
	obj, err := sc.b.head(ctx, sc.b.s.probe("probe", sc.b.name, sc.key), objstore.Ref{Key: sc.key})
	return obj.Encryption, err
}

// copiesThrough bounds the copies through this machine at one time: each takes
// the memory of a writer.
const copiesThrough = 2

// copyThrough copies through this machine. Unlike the store it cannot copy in
// one step: an object that is replaced meanwhile is kind [objstore.Stale] where
// the store honours If-Match; elsewhere a HEAD just before narrows the window.
func (b *bucket) copyThrough(ctx context.Context, o operation, src objstore.Ref, from objstore.Object, prot protection, opts objstore.CopyOptions) (objstore.Object, error) {
	select {
	case b.s.through <- struct{}{}:
		defer func() { <-b.s.through }()
	case <-ctx.Done():
		return objstore.Object{}, newError(o.verb, o.name(), objstore.Canceled, "%w", ctx.Err())
	}
	tags, err := b.tagging(ctx, src)
	if err != nil {
		return objstore.Object{}, err
	}
	meta, h, _ := effective(from, opts)
	cond := opts.Cond
	if prot.keep && cond == (objstore.Condition{}) {
		cond.IfMatch = from.ETag
	}
	w := b.newWriter(ctx, o.key, objstore.CreateOptions{
		Meta: meta, Headers: h, StorageClass: from.StorageClass, Cond: cond, SizeHint: from.Size,
	}, prot)
	w.tags = tags
	defer func() { _ = w.Abort() }() // does nothing after a Commit
	// All of it in one Get, which is compared with the stored checksum.
	if err := w.read(ctx, src, objstore.Range{}, from.Size); err != nil {
		return objstore.Object{}, err
	}
	return w.Commit(ctx)
}
