package cse

import (
	"context"
	"io"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// Signed says what is done with messages that are signed, as most libraries write them.
type Signed string

// The values of Signed. What a signature adds to the tags of the frames depends on the
// keyring: under an RSA key nothing, for whoever can write can sign.
const (
	// SignedAuto verifies the signature of an object of up to 64 MiB when it is
	// opened. Longer ones are read frame by frame, as if they had none.
	SignedAuto Signed = "auto"
	// SignedStrict verifies every signature before anything is read.
	SignedStrict Signed = "strict"
	// SignedReject reads no signed messages.
	SignedReject Signed = "reject"
)

// verifiedAtOpen is how long an object may be whose signature SignedAuto verifies: all
// of it has to be read.
const verifiedAtOpen = 64 << 20

// What became of a signature, or of a tag over all of an object; the values of
// user.s3.cse.verified.
const (
	signatureVerified   = "signature"
	signatureUnverified = "no"
	wholeVerified       = "object"
)

// checkSignature does what the policy says with a signed message, whose layout is proved.
func (b *bucket) checkSignature(ctx context.Context, op string, ref objstore.Ref, o *opened) error {
	stored := o.object.StoredSize
	switch {
	case b.s.cfg.Signed == SignedReject:
		return b.notSigned(op, ref.Key)
	case b.s.cfg.Signed == SignedAuto && stored > verifiedAtOpen:
		o.verified = signatureUnverified
		b.s.warnOnce("signature", "signatures of objects of more than 64 MiB are not verified (cse-signed: strict does)", "key", b.Name()+"/"+ref.Key)
		return nil
	}
	v, err := o.Verifier()
	if err != nil {
		return b.fail(op, ref.Key, err)
	}
	begin := o.layout.Header
	body, _, err := b.Bucket.Get(ctx, ref, objstore.GetOptions{Range: objstore.Range{Offset: begin, Length: stored - begin}})
	if err != nil {
		return err
	}
	footer, err := readToFooter(v, body, stored-begin-o.layout.Footer)
	if cerr := body.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = v.Verify(footer)
	}
	if err != nil {
		return b.fail(op, ref.Key, err)
	}
	o.verified = signatureVerified
	return nil
}

// readToFooter writes n bytes of body to what verifies them, and returns what comes after
// them, which is cut where it is longer than any footer.
func readToFooter(verifier io.Writer, body io.Reader, n int64) (footer []byte, err error) {
	// A buffer of some size: what is verified in small pieces takes longer.
	m, err := io.CopyBuffer(verifier, io.LimitReader(body, n), make([]byte, min(n, 256<<10)))
	if err != nil {
		return nil, err
	}
	if m < n {
		return nil, &message.Error{Kind: message.Malformed, Part: "object", Offset: -1, Text: "it is cut off"}
	}
	return io.ReadAll(io.LimitReader(body, maxFooter+1))
}
