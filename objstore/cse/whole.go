package cse

import (
	"bytes"
	"context"
	"errors"
	"io"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/cse/s3ec"
)

// An object of the S3 Encryption Client, and a message without frames, has one tag for
// all of it:
//
//	          begin                                  stored
//	            | ciphertext                 | tag 16 | footer |
//	envelope in the metadata: begin is 0, and there is no footer
//	header | IV 12 | u64 n |
//
// So all of it is read once, before anything of it is decrypted, and what is remembered
// are the sums of its blocks: package s3ec does that for both, in constant memory. After
// that a range costs the blocks that it touches, of which none is opened that is not the
// one that was verified.

// whole is an object with one tag for all of it.
type whole struct {
	// verifier begins to verify its tag.
	verifier func() (*s3ec.Verifier, error)
	// prefix is what a message has between its header and the ciphertext.
	prefix []byte
	blocks *s3ec.Verified // nil until it was verified
}

// wholeTag is how long the tag is.
const wholeTag = message.BlockOverhead - message.BlockPrefix

// begin is where the ciphertext begins of what has one tag.
func (f form) begin() int64 {
	if f.envelope != 0 {
		return 0
	}
	return f.profile.Header + message.BlockPrefix
}

// wholeSize is how many bytes of plaintext are in so many of what has one tag.
func (f form) wholeSize(stored int64) (int64, error) {
	n := stored - f.begin() - wholeTag - f.profile.Footer
	if n < 0 {
		return 0, &message.Error{Kind: message.Malformed, Part: "object", Offset: -1, Text: "it is cut off"}
	}
	return n, nil
}

// formOfEnvelope tells from metadata that there is an envelope, and what they say.
func (b *bucket) formOfEnvelope(raw objstore.Object) (form, bool) {
	e, err := s3ec.Parse(raw.Meta)
	if err == nil {
		_, err = e.Size(raw.StoredSize)
	}
	if err != nil {
		// Who opens it is told what is wrong.
		return form{plain: true}, !errors.Is(err, message.NotMessage)
	}
	return form{envelope: e.Version(), mode: modeOf(e.Wrap() == s3ec.WrapKMS)}, true
}

// openEnvelope makes o an object of the S3 Encryption Client, or a plain one where
// nothing in its metadata is of an envelope.
func (b *bucket) openEnvelope(ctx context.Context, o *opened) error {
	e, err := s3ec.Parse(o.object.Meta)
	if errors.Is(err, message.NotMessage) {
		o.plain = true
		return nil
	}
	if err != nil {
		return err
	}
	stored := o.object.StoredSize
	if _, err := e.Size(stored); err != nil {
		return err
	}
	key, by, err := b.s.cfg.Keyring.UnwrapS3(ctx, e)
	if err != nil {
		return err
	}
	if e.Version() == s3ec.V2 {
		b.s.warnOnce("s3ec V2", "objects of the S3 Encryption Client of version 2 are read, which do not commit to their key", "key", b.Name()+"/"+o.object.Key)
	}
	o.envelope, o.mode = e.Version(), modeOf(keyring.ByKMS(by))
	o.whole = &whole{verifier: func() (*s3ec.Verifier, error) { return s3ec.NewVerifier(e, key, stored) }}
	return nil
}

// openBlock makes o a message without frames, whose header is authentic.
func (o *opened) openBlock(first prefix) error {
	h, stored := o.profile.Header, o.object.StoredSize
	p, err := first(int(h) + message.BlockPrefix)
	if err != nil {
		return err
	}
	rest := bytes.Clone(p[h:min(int64(len(p)), o.begin())])
	block, err := o.Block(rest)
	if err != nil {
		return err
	}
	footer := stored - o.begin() - block.Size - wholeTag
	if footer < 0 || footer > maxFooter || footer > 0 && !o.suite.Signed() {
		return &message.Error{Kind: message.Malformed, Part: "block", Offset: -1, Text: "it does not end where it says"}
	}
	o.profile.Footer = footer
	o.whole = &whole{prefix: rest, verifier: func() (*s3ec.Verifier, error) {
		return s3ec.NewContentVerifier(block.Key, block.IV, block.AAD, block.Size)
	}}
	return nil
}

// verifyWhole reads all of an object to verify its tag, and its signature if it has one.
func (b *bucket) verifyWhole(ctx context.Context, op string, ref objstore.Ref, o *opened) error {
	begin := o.begin()
	body, _, err := b.Bucket.Get(ctx, ref, objstore.GetOptions{Range: objstore.Range{Offset: begin, Length: o.object.StoredSize - begin}})
	if err != nil {
		return err
	}
	return errors.Join(b.verifyBody(op, o, body), body.Close())
}

// verifyIfThere is verifyWhole for what was read anyway.
func (b *bucket) verifyIfThere(op string, o *opened, first prefix) error {
	p, err := first(0)
	if err != nil || int64(len(p)) < o.object.StoredSize || o.suite.Signed() {
		return err
	}
	return b.verifyBody(op, o, bytes.NewReader(p[o.begin():]))
}

// verifyBody verifies what begins with the ciphertext of o.
func (b *bucket) verifyBody(op string, o *opened, body io.Reader) error {
	if o.suite.Signed() && b.s.cfg.Signed == SignedReject {
		return b.notSigned(op, o.object.Key)
	}
	size, err := o.wholeSize(o.object.StoredSize)
	if err != nil {
		return b.fail(op, o.object.Key, err)
	}
	tag, err := o.whole.verifier()
	if err != nil {
		return b.fail(op, o.object.Key, err)
	}
	into, verified := io.Writer(tag), wholeVerified
	var signature *message.Verifier
	if o.suite.Signed() {
		if signature, err = o.Verifier(); err != nil {
			return b.fail(op, o.object.Key, err)
		}
		_, _ = signature.Write(o.whole.prefix) // never fails
		into, verified = io.MultiWriter(tag, signature), signatureVerified
	}
	footer, err := readToFooter(into, body, size+wholeTag)
	if err != nil {
		return b.fail(op, o.object.Key, err)
	}
	blocks, err := tag.Finish()
	switch {
	case err != nil:
	case signature != nil:
		err = signature.Verify(footer)
	case len(footer) > 0:
		err = &message.Error{Kind: message.Malformed, Part: "object", Offset: -1, Text: "it goes on after its end"}
	}
	if err != nil {
		return b.fail(op, o.object.Key, err)
	}
	checked := *o.whole
	checked.blocks = blocks
	o.whole, o.verified = &checked, verified
	return nil
}
