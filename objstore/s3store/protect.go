package s3store

import (
	"context"
	"errors"
	"net/http"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// question is what a scratch object is made for: to see how an object that is
// written, or that the store copies, comes out when this is asked for.
type question struct {
	ask
	copied bool
}

// proved is what scratch objects have shown of a bucket.
type proved struct {
	enc  objstore.Encryption // of a new object
	send bool                // the headers must be sent to get it
	why  error               // the refusal of what was asked for, if that was it
}

// proof is one proving, under way or done.
type proof struct {
	done chan struct{} // closed at the end
	res  proved
	err  error
}

// protection is how one write gets what its policy demands.
type protection struct {
	want  objstore.Encryption // by name, or auto; with the key that it must be
	now   objstore.Encryption // what a new object gets, proved
	send  ask                 // what requests ask for
	check bool                // whether the written object is looked at
	// keep tells that nobody else has the bytes: what turns out not to be
	// protected is not removed.
	keep bool
}

// Protection returns what a new object under key is protected by.
func (b *bucket) Protection(ctx context.Context, key string) (objstore.Encryption, error) {
	p, err := b.protect(ctx, key, objstore.Encryption{})
	return p.now, err
}

// askFor is what a wish, or else the rule, asks for in this bucket. The key
// for writing is named, so that a proof is of one key.
func (b *bucket) askFor(rule Rule, wish objstore.Encryption) (ask, error) {
	if wish.Mode == objstore.ModeAuto {
		wish = rule.Encryption
	}
	if err := b.s.cfg.checkWish(wish); err != nil {
		return ask{}, err
	}
	a := ask{Encryption: wish}
	switch wish.Mode {
	case objstore.ModeSSEC:
		k, _ := b.s.keys.find(wish.CustomerKeyMD5)
		a.CustomerKeyMD5 = k.MD5()
	case objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
		a.context = kmsContext(b.s.cfg.KMSContext)
		if len(rule.KMSContext) > 0 {
			a.context = kmsContext(rule.KMSContext)
		}
	}
	return a, nil
}

// protect finds how key is written: by wish, where that has a mode, else by
// the first rule that matches.
func (b *bucket) protect(ctx context.Context, key string, wish objstore.Encryption) (protection, error) {
	rule := b.s.cfg.rule(b.name, key)
	name := b.name + "/" + key
	want, err := b.askFor(rule, wish)
	if err != nil {
		kind := objstore.Unsupported
		errors.As(err, &kind)
		return protection{}, newError("protect", name, kind, "%w", err)
	}
	p := protection{want: want.Encryption}
	res, err := b.prove(ctx, question{ask: want})
	if err != nil {
		return p, err
	}
	p.now = res.enc
	if want.Mode == objstore.ModeNone {
		return p, nil
	}
	if res.send {
		p.send = want
		if want.Mode == objstore.ModeAuto {
			p.send.Mode = objstore.ModeSSES3
		}
	}
	p.check = true
	switch satisfies(p.want, res.enc) {
	case keyUnclear:
		// An alias: what it stands for now is what it must stand for later.
		p.want.KMSKeyID = res.enc.KMSKeyID
		return p, nil
	case asWanted:
		return p, nil
	}
	if rule.AllowUnencrypted {
		p.check = false
		return p, nil
	}
	if res.why != nil {
		return p, newError("protect", name, objstore.Unencrypted, "the store takes no object that is %q: %w", wordOf(want.Mode), res.why)
	}
	return p, newError("protect", name, objstore.Unencrypted,
		"a scratch object in this bucket came out as %q, not as %q: use a bucket that encrypts, or allow unencrypted objects by name",
		describe(res.enc), describe(p.want))
}

// verdict is how an object's protection compares with what was wanted.
type verdict int8

const (
	wrongMode  verdict = iota // another algorithm or customer key, or none
	otherKey                  // the algorithm, under another KMS key
	keyUnclear                // the algorithm, under a KMS key that cannot be compared
	asWanted
)

// satisfies compares enc, which the store reports, with what was wanted.
func satisfies(want, enc objstore.Encryption) verdict {
	switch want.Mode {
	case objstore.ModeNone:
		return asWanted
	case objstore.ModeAuto:
		if enc.Encrypted() {
			return asWanted
		}
		return wrongMode
	}
	if enc.Mode != want.Mode || want.CustomerKeyMD5 != "" && enc.CustomerKeyMD5 != want.CustomerKeyMD5 {
		return wrongMode
	}
	return sameKMSKey(want.KMSKeyID, enc.KMSKeyID)
}

// wordOf is a mode for a message.
func wordOf(m objstore.Mode) string {
	if m == objstore.ModeAuto {
		return "encrypted"
	}
	return string(m)
}

// describe is a protection for a message, with its key by id or MD5.
func describe(e objstore.Encryption) string {
	switch {
	case e.KMSKeyID != "":
		return wordOf(e.Mode) + " under key " + e.KMSKeyID
	case e.CustomerKeyMD5 != "":
		return wordOf(e.Mode) + " under the key with MD5 " + e.CustomerKeyMD5
	}
	return wordOf(e.Mode)
}

// prove returns what the scratch objects for q have shown, making them when
// nobody has done so before. Failures that may pass are not remembered.
func (b *bucket) prove(ctx context.Context, q question) (proved, error) {
	for {
		b.mu.Lock()
		p := b.proofs[q]
		mine := p == nil
		if mine {
			p = &proof{done: make(chan struct{})}
			b.proofs[q] = p
		}
		b.mu.Unlock()
		if mine {
			if q.copied {
				p.res, p.err = b.proveCopy(ctx, q.ask)
			} else {
				p.res, p.err = b.proveNow(ctx, q.ask)
			}
			if p.err != nil {
				b.mu.Lock()
				delete(b.proofs, q)
				b.mu.Unlock()
			}
			close(p.done)
			return p.res, p.err
		}
		select {
		case <-p.done:
			if objstore.KindOf(p.err) == objstore.Canceled && ctx.Err() == nil {
				continue // the one who was proving gave up, we do not
			}
			return p.res, p.err
		case <-ctx.Done():
			return proved{}, newError("protect", b.name, objstore.Canceled, "%w", ctx.Err())
		}
	}
}

// proveNow makes the scratch objects and looks at them.
func (b *bucket) proveNow(ctx context.Context, want ask) (proved, error) {
	if b.s.cfg.ReadOnly {
		return b.hint(ctx)
	}
	sc := b.newScratch()
	defer sc.remove(ctx)
	mode := want.Mode
	switch mode {
	case objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
		return sc.proveKMS(ctx, want)
	case objstore.ModeSSEC:
		return sc.proveCustomer(ctx, want)
	}

	none := objstore.Encryption{Mode: objstore.ModeNone}
	var plainErr error
	if mode != objstore.ModeSSES3 {
		var enc objstore.Encryption
		enc, plainErr = sc.putAndLook(ctx, ask{})
		switch {
		case plainErr == nil && (enc.Encrypted() || mode == objstore.ModeNone):
			b.learn(ctx, sc, ask{})
			return proved{enc: enc}, nil
		case plainErr != nil && (mode == objstore.ModeNone || objstore.KindOf(plainErr) != objstore.Permission):
			return proved{}, plainErr
		}
		// Plain, or refused perhaps because a policy denies plain uploads.
	}
	sse := ask{Encryption: objstore.Encryption{Mode: objstore.ModeSSES3}}
	enc, err := sc.putAndLook(ctx, sse)
	switch {
	case err == nil:
	case plainErr != nil:
		return proved{}, plainErr // refused both times: the first says why
	case refusesSSE(err) && mode == objstore.ModeSSES3:
		// Scality 7.4 takes no header and encrypts by the bucket.
		if enc, err = sc.putAndLook(ctx, ask{}); err != nil {
			return proved{}, err
		}
		b.learn(ctx, sc, ask{})
		return proved{enc: enc}, nil
	case refusesSSE(err):
		enc = none
	default:
		return proved{}, err
	}
	if err == nil || plainErr == nil && mode != objstore.ModeSSES3 {
		b.learn(ctx, sc, sendable(enc, sse))
	}
	if !enc.Encrypted() {
		enc = none
	}
	return proved{enc: enc, send: mode == objstore.ModeSSES3 && err == nil || enc.Encrypted()}, nil
}

// sendable is want where it had an effect.
func sendable(enc objstore.Encryption, want ask) ask {
	if enc.Encrypted() {
		return want
	}
	return ask{}
}

// refusesSSE reports whether err says that the store cannot encrypt, rather
// than that something is broken.
func refusesSSE(err error) bool {
	switch objstore.KindOf(err) {
	case objstore.Unsupported, objstore.KeyUnavailable:
		return true
	case objstore.Throttled, objstore.Expired, objstore.Permission, objstore.Integrity:
		return false // some of these are 400 as well
	}
	return statusOf(err) == http.StatusBadRequest
}

// hint asks the bucket's configuration, for mounts that must not write.
func (b *bucket) hint(ctx context.Context) (proved, error) {
	enc, err := b.configured(ctx)
	if err != nil {
		return proved{}, newError("protect", b.name, objstore.Unsupported,
			"this mount writes no scratch object, and the bucket does not tell its encryption: %w", err)
	}
	return proved{enc: enc}, nil
}

// configured returns the bucket's default as GetBucketEncryption tells it. An
// error, or a reply without rules, means that the server has no answer.
func (b *bucket) configured(ctx context.Context) (objstore.Encryption, error) {
	out, err := do(ctx, b.s.probe("get bucket encryption", b.name, ""), func(ctx context.Context) (*s3.GetBucketEncryptionOutput, error) {
		return b.client.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: aws.String(b.name)})
	})
	if err != nil {
		return objstore.Encryption{}, err
	}
	if c := out.ServerSideEncryptionConfiguration; c != nil {
		for _, r := range c.Rules {
			if d := r.ApplyServerSideEncryptionByDefault; d != nil && d.SSEAlgorithm != "" {
				return encryptionOf(string(d.SSEAlgorithm), aws.ToString(d.KMSMasterKeyID), "", aws.ToBool(r.BucketKeyEnabled)), nil
			}
		}
	}
	return objstore.Encryption{}, newError("get bucket encryption", b.name, objstore.Unsupported, "the reply has no rule")
}
