package cse

import (
	"context"
	"errors"
	"iter"
	"strings"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// bucket passes Name and Delete to the bucket inside.
type bucket struct {
	objstore.Bucket
	s *store
}

var (
	_ objstore.Prover   = (*bucket)(nil)
	_ objstore.Policies = (*bucket)(nil)
	_ objstore.Resumer  = (*bucket)(nil)
)

// isMarker reports whether key is that of a directory's marker, an empty object.
func isMarker(key string) bool { return strings.HasSuffix(key, "/") }

// Head implements objstore.Bucket. The size is that which the metadata tells, or that
// of the message when it has none.
func (b *bucket) Head(ctx context.Context, ref objstore.Ref) (objstore.Object, error) {
	raw, err := b.Bucket.Head(ctx, ref)
	if err != nil || isMarker(ref.Key) {
		return raw, err
	}
	f, err := b.formOf(ctx, "head", raw)
	if err != nil {
		return raw, err
	}
	o, err := f.show(raw)
	return o, b.fail("head", ref.Key, err)
}

// formOf finds out what an object is, of which a HEAD or GET told raw.
func (b *bucket) formOf(ctx context.Context, op string, raw objstore.Object) (form, error) {
	if f, ok := b.proved(raw); ok {
		return f, nil
	}
	if text, ok := raw.Meta[metaProfile]; ok {
		if p, err := message.ParseProfile(text); err == nil {
			if _, err := p.ForStored(raw.StoredSize); err == nil {
				return form{profile: p, suite: message.Committed, mode: b.s.mode}, nil
			}
		}
	}
	if f, ok := b.formOfEnvelope(raw); ok {
		return f, nil
	}
	if b.s.missing.has(b.version(raw)) {
		return form{plain: true}, nil
	}
	o, err := b.open(ctx, op, raw.Ref(b.Name()))
	switch {
	case err == nil:
		return o.form, nil
	case errors.Is(err, objstore.Integrity), errors.Is(err, objstore.KeyUnavailable), errors.Is(err, objstore.Unsupported):
		// It is there, and can be removed; who opens it is told what is wrong.
		return form{plain: true}, nil
	}
	return form{}, err
}

// Prove implements objstore.Prover.
func (b *bucket) Prove(ctx context.Context, ref objstore.Ref) (objstore.Object, error) {
	if isMarker(ref.Key) {
		return b.Bucket.Head(ctx, ref)
	}
	o, err := b.openToRead(ctx, "open", ref)
	if err == nil && o.plain && b.s.cfg.Policy == Require {
		err = b.notMessage("open", ref.Key)
	}
	if err != nil {
		return objstore.Object{}, b.refused(ref, err)
	}
	visible, err := o.show(o.object)
	return visible, b.fail("open", ref.Key, err)
}

// List implements objstore.Bucket. Sizes are those of objects that were seen before, or
// that are declared to have a profile.
func (b *bucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		for e, err := range b.Bucket.List(ctx, q) {
			if err == nil && !e.IsPrefix && !isMarker(e.Key) {
				e.Size, e.SizeKnown = b.listedSize(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// Copy implements objstore.Bucket: the ciphertext is copied as it is, and bound to its
// new path.
func (b *bucket) Copy(ctx context.Context, dstKey string, src objstore.Ref, opts objstore.CopyOptions) (objstore.Object, error) {
	if isMarker(src.Key) {
		return b.Bucket.Copy(ctx, dstKey, src, opts)
	}
	from := b
	if src.Bucket != "" && src.Bucket != b.Name() {
		other, err := b.s.Open(ctx, src.Bucket)
		if err != nil {
			return objstore.Object{}, err
		}
		from = other.(*bucket)
	}
	first, raw, err := from.fetch(ctx, src, objstore.Range{Length: firstBytes})
	if objstore.KindOf(err) == objstore.InvalidRange { // it is empty, and no message
		return b.Bucket.Copy(ctx, dstKey, src, opts)
	}
	if err != nil {
		return objstore.Object{}, err
	}
	src.ETag = raw.ETag
	o, err := from.identify(ctx, "copy", raw, from.prefixOf(ctx, src, raw.StoredSize, first))
	if err != nil {
		return objstore.Object{}, from.refused(src, err)
	}
	if !o.plain {
		if opts.Meta, err = from.copiedMeta(ctx, b, dstKey, src, o, opts); err != nil {
			return objstore.Object{}, err
		}
		opts.Missing, opts.MissingUnless = nil, nil
	}
	done, err := b.Bucket.Copy(ctx, dstKey, src, opts)
	if err != nil {
		return done, err
	}
	done.StoredSize = raw.StoredSize
	visible, err := o.show(done)
	return visible, b.fail("copy", dstKey, err)
}

// copiedMeta is the metadata of the copy of o, which is src in b, as dstKey in to.
func (b *bucket) copiedMeta(ctx context.Context, to *bucket, dstKey string, src objstore.Ref, o *opened, opts objstore.CopyOptions) (map[string]string, error) {
	if o.envelope != 0 {
		meta, _ := opts.MetaOf(o.object.Meta)
		return withEnvelope(meta, o.object.Meta), nil
	}
	meta, _ := opts.MetaOf(ownMeta(o.object.Meta))
	binding := ""
	if b.s.cfg.Binding != BindOff && o.suite.Committing() { // others have nothing to bind with
		var err error
		if binding, err = o.Binding(to.Name(), dstKey); err != nil {
			return nil, to.fail("copy", src.Key, err)
		}
	}
	if o.whole == nil {
		// How long header and frames are the header says, which is authentic. How long the
		// signature is shows at its end, or in a hint that fits.
		p, err := message.ParseProfile(o.object.Meta[metaProfile])
		hinted := message.Profile{Header: o.profile.Header, Frame: o.profile.Frame, Footer: p.Footer}
		switch {
		case !o.suite.Signed():
		case err == nil && p == hinted:
			o.profile = p
		default:
			proved, err := b.open(ctx, "copy", src)
			if err != nil {
				return nil, err
			}
			o.profile = proved.profile
		}
	}
	if _, err := o.show(o.object); err != nil { // before there is a copy
		return nil, b.fail("copy", src.Key, err)
	}
	return withMessage(meta, o.profile, binding), nil
}

// Protection implements objstore.Bucket: everything is encrypted here, whatever the
// store does.
func (b *bucket) Protection(ctx context.Context, key string) (objstore.Encryption, error) {
	enc, err := b.Bucket.Protection(ctx, key)
	if err != nil && !errors.Is(err, objstore.Unencrypted) {
		return enc, err
	}
	return b.s.protects(enc), nil
}

// SamePolicy implements objstore.Policies.
func (b *bucket) SamePolicy(key, other string) bool {
	p, ok := b.Bucket.(objstore.Policies)
	return !ok || p.SamePolicy(key, other)
}
