package cse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// openTimeout bounds the questions that opening an object takes, and the reading of it
// where its signature is to be verified.
const openTimeout = 5 * time.Minute

// form is what an object is, as far as that is known without its key.
type form struct {
	plain   bool // no message
	profile message.Profile
	mode    objstore.Mode // of encryption; "" while nobody has unwrapped its key
	suite   message.Suite
	// signature is what became of it, "" where there is none or nobody has looked.
	signature string
}

// opened is an object that was opened: a message whose header is authentic, and whose
// final frame has proved its layout; or a plain object.
type opened struct {
	form
	*message.Opener
	layout message.Layout
	object objstore.Object // as the store inside tells it
}

// version is the reference of exactly this version, by which it is remembered.
func (b *bucket) version(o objstore.Object) objstore.Ref {
	return objstore.Ref{Bucket: b.Name(), Key: o.Key, VersionID: o.VersionID, ETag: o.ETag}
}

// remember keeps what an object is for as long as there is room.
func (b *bucket) remember(op *opened) {
	if op.object.ETag == "" {
		return // a version that cannot be told from others
	}
	v := b.version(op.object)
	b.s.forms.Add(v, op.form)
	b.s.opened.Add(v, op)
	if v.VersionID != "" { // whoever asks for the current one does not name it
		v.VersionID = ""
		b.s.forms.Add(v, op.form)
		b.s.opened.Add(v, op)
	}
}

// open returns the object of ref, whose size is proved. Those who ask for one object
// at the same time share the questions.
func (b *bucket) open(ctx context.Context, op string, ref objstore.Ref) (*opened, error) {
	ref.Bucket = b.Name()
	if ref.ETag != "" {
		if o, ok := b.s.opened.Get(ref); ok {
			return o, nil
		}
	}
	return b.once(ctx, op, ref, "open", func(ctx context.Context) (*opened, error) { return b.openNow(ctx, op, ref) })
}

// openToRead is open for who is going to read: the policy on signatures holds.
func (b *bucket) openToRead(ctx context.Context, op string, ref objstore.Ref) (*opened, error) {
	o, err := b.open(ctx, op, ref)
	if err != nil || o.plain || !o.suite.Signed() || o.signature != "" {
		return o, err
	}
	ref.Bucket, ref.ETag = b.Name(), o.object.ETag
	return b.once(ctx, op, ref, "signature", func(ctx context.Context) (*opened, error) {
		checked := *o
		if err := b.checkSignature(ctx, op, ref, &checked); err != nil {
			return nil, err
		}
		b.remember(&checked)
		return &checked, nil
	})
}

// once asks a question about a version, or waits for the answer to another's.
func (b *bucket) once(ctx context.Context, op string, ref objstore.Ref, what string, ask func(context.Context) (*opened, error)) (*opened, error) {
	result := b.s.opening.DoChan(fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%s", what, ref.Bucket, ref.Key, ref.VersionID, ref.ETag), func() (any, error) {
		// Detached: one caller that gives up must not fail the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout)
		defer cancel()
		return ask(ctx)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*opened), nil
	case <-ctx.Done():
		return nil, &objstore.Error{Op: op, Key: b.Name() + "/" + ref.Key, Kind: objstore.Canceled, Err: ctx.Err()}
	}
}

func (b *bucket) openNow(ctx context.Context, op string, ref objstore.Ref) (*opened, error) {
	first, raw, err := b.fetch(ctx, ref, objstore.Range{Length: firstBytes})
	if objstore.KindOf(err) == objstore.InvalidRange { // it is empty
		if raw, err = b.Bucket.Head(ctx, ref); err == nil && raw.StoredSize > 0 {
			err = b.failf(op, ref.Key, objstore.Stale, "it changed while it was opened")
		}
	}
	if err != nil {
		return nil, err
	}
	pinned := ref
	pinned.ETag = raw.ETag
	begin := b.prefixOf(ctx, pinned, raw.StoredSize, first)
	o, err := b.identify(ctx, op, raw, begin)
	if err != nil {
		return nil, err
	}
	if !o.plain {
		if err = b.prove(ctx, op, pinned, o, begin); err != nil {
			return nil, err
		}
	}
	b.remember(o)
	return o, nil
}

// identify finds out what an object is, by its first bytes: a message is one whose
// header is authentic.
func (b *bucket) identify(ctx context.Context, op string, raw objstore.Object, begin prefix) (*opened, error) {
	first, err := begin(firstBytes)
	if err != nil {
		return nil, err
	}
	o := &opened{object: raw}
	if !message.Sniff(first) {
		o.plain = true
		return o, nil
	}
	opener, by, err := openHeader(ctx, b.s.keys, b.s.cfg.AnySuite, begin)
	if err != nil {
		return nil, b.fail(op, raw.Key, err)
	}
	h := opener.Header()
	o.Opener, o.mode, o.suite = opener, modeOf(keyring.ByKMS(by)), h.Suite
	o.profile = message.Profile{Header: h.Bytes(), Frame: h.Frame}
	return o, b.checkBinding(op, raw.Key, o)
}

// prove opens the final frame, which tells where the message ends.
func (b *bucket) prove(ctx context.Context, op string, ref objstore.Ref, o *opened, begin prefix) error {
	first, err := begin(0)
	if err != nil {
		return err
	}
	stored := o.object.StoredSize
	if o.profile.Frame == 0 {
		return b.failf(op, ref.Key, objstore.Unsupported, "the message is a single block, of which nothing can be trusted before all of it was read")
	}
	// Without a footer it is known where the final frame begins; with one the error
	// tells how much more it may be.
	need := min(stored, message.FinalOverhead+o.profile.Frame)
	if l, err := o.profile.ForStored(stored); err == nil && !o.suite.Signed() {
		need = l.Stored() - l.Offset(l.Full)
	}
	for {
		tail := first
		if int64(len(first)) < stored {
			if tail, _, err = b.fetch(ctx, ref, objstore.Range{Offset: stored - need, Length: need}); err != nil {
				return err
			}
		}
		l, _, err := o.Locate(nil, stored, tail)
		var short *message.Error
		if errors.As(err, &short) && short.Kind == message.Short && short.Need > need && short.Need <= stored {
			need = short.Need
			continue
		}
		if err != nil {
			return b.fail(op, ref.Key, err)
		}
		o.layout, o.profile = l, l.Profile
		return nil
	}
}

// fetch reads a short range of what is stored.
func (b *bucket) fetch(ctx context.Context, ref objstore.Ref, r objstore.Range) ([]byte, objstore.Object, error) {
	body, o, err := b.Bucket.Get(ctx, ref, objstore.GetOptions{Range: r})
	if err != nil {
		return nil, o, err
	}
	var p bytes.Buffer
	p.Grow(int(r.Length))
	_, err = io.Copy(&p, body)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, o, err
	}
	return p.Bytes(), o, nil
}

// cseText is the value of user.s3.cse: format, suite and frame.
func cseText(s message.Suite, frame int64) string {
	return fmt.Sprintf("esdk-%d/%v/%d", s.Format(), s, frame)
}

// show turns what the store inside tells of an object into what a reader gets. The
// size is that of f, proved or not.
func (f form) show(o objstore.Object) (objstore.Object, error) {
	o.Meta = ownMeta(o.Meta)
	if f.plain {
		o.Size, o.SizeKnown = o.StoredSize, true
		return o, nil
	}
	l, err := f.profile.ForStored(o.StoredSize)
	if err != nil {
		return o, err
	}
	o.Size, o.SizeKnown = l.Size(), true
	o.ChecksumOfWhole = false // it is of what is stored
	o.Encryption.CSE, o.Encryption.CSEMode, o.Encryption.Verified = cseText(f.suite, f.profile.Frame), f.mode, f.signature
	return o, nil
}
