package cse

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/cse/s3ec"
)

const (
	// openTimeout bounds the questions that opening an object takes. Where all of it
	// is to be verified, there is more time: as if it came at slowest bytes a second.
	openTimeout = 5 * time.Minute
	slowest     = 8 << 20
)

// form is what an object is, as far as that is known without its key.
type form struct {
	plain bool // neither of the others
	// envelope is not 0 for an object of the S3 Encryption Client.
	envelope s3ec.Version
	// profile has no frames, and is nothing else, with an envelope.
	profile message.Profile
	mode    objstore.Mode // of encryption; "" while nobody has unwrapped its key
	suite   message.Suite // of a message
	// verified is what became of its signature or of the tag over all of it, "" where
	// there is none or nobody has looked.
	verified string
}

// opened is an object that was opened: a message whose header is authentic, and whose
// final frame has proved its layout; one that is sealed as a whole; or a plain object.
type opened struct {
	form
	*message.Opener // of a message

	layout message.Layout  // of one with frames
	whole  *whole          // of what has none
	object objstore.Object // as the store inside tells it
}

// unverified reports whether a tag over all of it, or a signature, was not looked at yet.
func (o *opened) unverified() bool {
	if o.whole != nil {
		return o.whole.blocks == nil
	}
	return o.suite.Signed() && o.verified == ""
}

// bytes is about what it takes in memory.
func (o *opened) bytes() int64 {
	n := int64(2<<10) + 2*o.profile.Header + int64(objstore.MetaSize(o.object.Meta))
	if o.whole != nil && o.whole.blocks != nil {
		n += o.whole.blocks.Blocks() * sha256.Size
	}
	return n
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
	b.noteProved(op.object, op.form)
	v := b.version(op.object)
	b.s.opened.Add(v, op)
	if v.VersionID != "" { // whoever asks for the current one does not name it
		v.VersionID = ""
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
	return b.once(ctx, op, ref, "open", openTimeout, func(ctx context.Context) (*opened, error) { return b.openNow(ctx, op, ref) })
}

// openToRead is open for who is going to read: what one tag authenticates as a whole is
// verified, and the policy on signatures holds.
func (b *bucket) openToRead(ctx context.Context, op string, ref objstore.Ref) (*opened, error) {
	o, err := b.open(ctx, op, ref)
	if err != nil || !o.unverified() {
		return o, err
	}
	ref.Bucket, ref.ETag = b.Name(), o.object.ETag
	limit := openTimeout + time.Duration(o.object.StoredSize/slowest)*time.Second
	return b.once(ctx, op, ref, "verify", limit, func(ctx context.Context) (*opened, error) {
		checked, verify := *o, b.checkSignature
		if o.whole != nil {
			verify = b.verifyWhole
		}
		if err := verify(ctx, op, ref, &checked); err != nil {
			return nil, err
		}
		b.remember(&checked)
		return &checked, nil
	})
}

// once asks a question about a version, or waits for the answer to another's.
func (b *bucket) once(ctx context.Context, op string, ref objstore.Ref, what string, limit time.Duration, ask func(context.Context) (*opened, error)) (*opened, error) {
	result := b.s.opening.DoChan(fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%s", what, ref.Bucket, ref.Key, ref.VersionID, ref.ETag), func() (any, error) {
		// Detached: one caller that gives up must not fail the others.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
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
		return nil, b.fail(op, ref.Key, ctx.Err())
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
	switch {
	case o.whole != nil:
		err = b.verifyIfThere(op, o, begin)
	case !o.plain:
		err = b.prove(ctx, op, pinned, o, begin)
	}
	if err != nil {
		return nil, err
	}
	b.remember(o)
	return o, nil
}

// identify finds out what an object is, by its first bytes and then by its metadata: a
// message is one whose header is authentic, and what does not begin as one is what its
// envelope says. What somebody has written into the metadata of a message is not asked.
func (b *bucket) identify(ctx context.Context, op string, raw objstore.Object, begin prefix) (*opened, error) {
	first, err := begin(firstBytes)
	if err != nil {
		return nil, err
	}
	o := &opened{object: raw}
	isMessage := message.Sniff(first)
	if isMessage {
		err = b.openMessage(ctx, o, begin)
		// One ciphertext of 8 million begins as a message by chance.
		isMessage = !notParsed(err) || !hasEnvelope(raw.Meta)
	}
	if !isMessage {
		*o = opened{object: raw}
		err = b.openEnvelope(ctx, o)
	}
	if err != nil {
		err = b.fail(op, raw.Key, err)
		b.s.missing.note(b.version(raw), err)
		return nil, err
	}
	if o.plain {
		return o, nil
	}
	return o, b.checkBinding(op, raw.Key, o)
}

// notParsed reports whether err is of what begins as a message and has no header.
func notParsed(err error) bool {
	var m *message.Error
	return errors.As(err, &m) && m.Kind != message.Unauthentic
}

// openMessage makes o a message.
func (b *bucket) openMessage(ctx context.Context, o *opened, begin prefix) error {
	opener, by, err := openHeader(ctx, b.s.keys, b.s.cfg.AnySuite, begin)
	if err != nil {
		return err
	}
	h := opener.Header()
	o.Opener, o.mode, o.suite = opener, modeOf(keyring.ByKMS(by)), h.Suite
	o.profile = message.Profile{Header: h.Bytes(), Frame: h.Frame}
	if h.Frame > 0 {
		return nil
	}
	return o.openBlock(begin)
}

// prove opens the final frame, which tells where the message ends.
func (b *bucket) prove(ctx context.Context, op string, ref objstore.Ref, o *opened, begin prefix) error {
	first, err := begin(0)
	if err != nil {
		return err
	}
	stored := o.object.StoredSize
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
	p := make([]byte, r.Length)
	n, err := io.ReadFull(body, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // the object is shorter
	}
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, o, err
	}
	return p[:n], o, nil
}

// cseText is the value of user.s3.cse: format, suite and frame.
func (f form) cseText() string {
	if f.envelope != 0 {
		return fmt.Sprintf("s3ec-%d/0x%04x/0", f.envelope, f.envelope.Suite())
	}
	return fmt.Sprintf("esdk-%d/%v/%d", f.suite.Format(), f.suite, f.profile.Frame)
}

// size is how many bytes of plaintext are in so many of what is stored.
func (f form) size(stored int64) (int64, error) {
	switch {
	case f.plain:
		return stored, nil
	case f.profile.Frame == 0:
		return f.wholeSize(stored)
	}
	l, err := f.profile.ForStored(stored)
	return l.Size(), err
}

// show turns what the store inside tells of an object into what a reader gets. The
// size is that of f, proved or not.
func (f form) show(o objstore.Object) (objstore.Object, error) {
	o.Meta = ownMeta(o.Meta)
	size, err := f.size(o.StoredSize)
	if err != nil {
		return o, err
	}
	o.Size, o.SizeKnown = size, true
	if f.plain {
		return o, nil
	}
	o.ChecksumOfWhole = false // it is of what is stored
	o.Encryption.CSE, o.Encryption.CSEMode, o.Encryption.Verified = f.cseText(), f.mode, f.verified
	return o, nil
}
