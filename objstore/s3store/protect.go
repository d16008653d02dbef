package s3store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// probeName begins the last component of every scratch object's key. Such keys
// are left out of listings.
const probeName = ".coffer-probe-"

// proved is what scratch objects have shown of a bucket.
type proved struct {
	enc  objstore.Encryption // of a new object
	send bool                // the header must be sent to get it
}

// proof is one proving, under way or done.
type proof struct {
	done chan struct{} // closed at the end
	res  proved
	err  error
}

// protection is how one write gets what its policy demands.
type protection struct {
	want  objstore.Mode       // by name, or auto
	now   objstore.Encryption // what a new object gets, proved
	send  objstore.Encryption // what requests ask for
	check bool                // whether the written object is looked at
}

// Protection returns what a new object under key is protected by.
func (b *bucket) Protection(ctx context.Context, key string) (objstore.Encryption, error) {
	p, err := b.protect(ctx, key, objstore.Encryption{})
	return p.now, err
}

// protect finds how key is written: by wish, where that has a mode, else by
// the first rule that matches.
func (b *bucket) protect(ctx context.Context, key string, wish objstore.Encryption) (protection, error) {
	rule := b.s.cfg.rule(b.name, key)
	if wish.Mode == objstore.ModeAuto {
		wish = rule.Encryption
	}
	if err := checkMode(wish); err != nil {
		return protection{}, newError("protect", b.name+"/"+key, objstore.Unsupported, "%w", err)
	}
	p := protection{want: wish.Mode}
	res, err := b.prove(ctx, wish.Mode)
	if err != nil {
		return p, err
	}
	p.now = res.enc
	if wish.Mode == objstore.ModeNone {
		return p, nil
	}
	if res.send {
		p.send = objstore.Encryption{Mode: objstore.ModeSSES3}
	}
	p.check = true
	if satisfies(wish.Mode, res.enc) {
		return p, nil
	}
	if rule.AllowUnencrypted {
		p.check = false
		return p, nil
	}
	return p, newError("protect", b.name+"/"+key, objstore.Unencrypted,
		"a scratch object in this bucket came out as %q, not as %q: use a bucket that encrypts, or allow unencrypted objects by name",
		wordOf(res.enc.Mode), wordOf(wish.Mode))
}

// satisfies reports whether enc is what mode asks for.
func satisfies(mode objstore.Mode, enc objstore.Encryption) bool {
	switch mode {
	case objstore.ModeNone:
		return true
	case objstore.ModeAuto:
		return enc.Encrypted()
	}
	return enc.Mode == mode
}

// wordOf is a mode for a message.
func wordOf(m objstore.Mode) string {
	if m == objstore.ModeAuto {
		return "encrypted"
	}
	return string(m)
}

// prove returns what the scratch objects for mode have shown, making them when
// nobody has done so before. Failures that may pass are not remembered.
func (b *bucket) prove(ctx context.Context, mode objstore.Mode) (proved, error) {
	for {
		b.mu.Lock()
		p := b.proofs[mode]
		mine := p == nil
		if mine {
			p = &proof{done: make(chan struct{})}
			b.proofs[mode] = p
		}
		b.mu.Unlock()
		if mine {
			p.res, p.err = b.proveNow(ctx, mode)
			if p.err != nil {
				b.mu.Lock()
				delete(b.proofs, mode)
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
func (b *bucket) proveNow(ctx context.Context, mode objstore.Mode) (proved, error) {
	if b.s.cfg.ReadOnly {
		return b.hint(ctx)
	}
	sc := b.newScratch()
	defer sc.remove(ctx)

	none := objstore.Encryption{Mode: objstore.ModeNone}
	var plainErr error
	if mode != objstore.ModeSSES3 {
		var enc objstore.Encryption
		enc, plainErr = sc.putAndLook(ctx, objstore.Encryption{})
		switch {
		case plainErr == nil && (enc.Encrypted() || mode == objstore.ModeNone):
			b.learn(ctx, sc, objstore.Encryption{})
			return proved{enc: enc}, nil
		case plainErr != nil && (mode == objstore.ModeNone || objstore.KindOf(plainErr) != objstore.Permission):
			return proved{}, plainErr
		}
		// Plain, or refused perhaps because a policy denies plain uploads.
	}
	ask := objstore.Encryption{Mode: objstore.ModeSSES3}
	enc, err := sc.putAndLook(ctx, ask)
	switch {
	case err == nil:
	case plainErr != nil:
		return proved{}, plainErr // refused both times: the first says why
	case refusesSSE(err):
		enc = none
	default:
		return proved{}, err
	}
	if err == nil || plainErr == nil && mode != objstore.ModeSSES3 {
		b.learn(ctx, sc, sendable(enc, ask))
	}
	if !enc.Encrypted() {
		enc = none
	}
	return proved{enc: enc, send: mode == objstore.ModeSSES3 && err == nil || enc.Encrypted()}, nil
}

// sendable is ask where it had an effect.
func sendable(enc, ask objstore.Encryption) objstore.Encryption {
	if enc.Encrypted() {
		return ask
	}
	return objstore.Encryption{}
}

// refusesSSE reports whether err says that the store cannot encrypt, rather
// than that something is broken.
func refusesSSE(err error) bool {
	switch objstore.KindOf(err) {
	case objstore.Unsupported, objstore.KeyUnavailable:
		return true
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
				return encryptionOf(string(d.SSEAlgorithm), d.KMSMasterKeyID, nil, r.BucketKeyEnabled), nil
			}
		}
	}
	return objstore.Encryption{}, newError("get bucket encryption", b.name, objstore.Unsupported, "the reply has no rule")
}

// scratch is an object that nobody else knows of, and every version of it.
type scratch struct {
	b        *bucket
	key      string
	body     []byte
	versions map[string]bool // "" where the reply named none
	etag     objstore.ETag   // of the last version
}

func (b *bucket) newScratch() *scratch {
	id := make([]byte, 8)
	data := make([]byte, 64)
	_, _ = rand.Read(id) // never fails
	_, _ = rand.Read(data)
	return &scratch{b: b, key: b.s.cfg.ProbePrefix + probeName + hex.EncodeToString(id), body: data, versions: map[string]bool{}}
}

// put writes the scratch object; set may change the request.
func (sc *scratch) put(ctx context.Context, ask objstore.Encryption, set func(*s3.PutObjectInput)) error {
	in := &s3.PutObjectInput{Bucket: aws.String(sc.b.name), Key: aws.String(sc.key), ContentLength: aws.Int64(int64(len(sc.body)))}
	sum := integrityOf(sc.body)
	in.ContentMD5 = aws.String(sum.md5)
	if set != nil {
		set(in)
	}
	o := sc.b.s.probe("probe", sc.b.name, sc.key)
	o.once = true
	out, err := do(withSSE(ctx, ask), o, func(ctx context.Context) (*s3.PutObjectOutput, error) {
		in.Body = bytes.NewReader(sc.body)
		return sc.b.client.PutObject(ctx, in, unsigned)
	})
	if err != nil {
		if statusOf(err) == 0 || statusOf(err) >= 500 {
			sc.versions[""] = true // it may have been stored all the same
		}
		return err
	}
	sc.versions[versionOf(out.VersionId)] = true
	sc.etag = etagOf(out.ETag)
	return nil
}

// putAndLook writes the scratch object and returns what HEAD says of it. Only
// HEAD counts: a server that echoes the header in its reply to PUT proves
// nothing about what it stored.
func (sc *scratch) putAndLook(ctx context.Context, ask objstore.Encryption) (objstore.Encryption, error) {
	if err := sc.put(ctx, ask, nil); err != nil {
		return objstore.Encryption{}, err
	}
	obj, err := sc.b.head(ctx, sc.b.s.probe("probe", sc.b.name, sc.key), objstore.Ref{Key: sc.key})
	return obj.Encryption, err
}

// removeProbes deletes scratch objects that a crashed mount has left, when they
// are all that keeps a bucket from being removed: nobody else sees them. It
// tells whether another attempt is worth it.
func (b *bucket) removeProbes(ctx context.Context) bool {
	in := &s3.ListObjectsInput{Bucket: aws.String(b.name), MaxKeys: aws.Int32(deleteBatch)}
	out, err := do(ctx, b.s.probe("list", b.name, ""), func(ctx context.Context) (*s3.ListObjectsOutput, error) {
		return b.client.ListObjects(ctx, in)
	})
	if err != nil || aws.ToBool(out.IsTruncated) || len(out.Contents) == 0 {
		return false
	}
	var refs []objstore.Ref
	for _, o := range out.Contents {
		if !isProbe(aws.ToString(o.Key)) {
			return false
		}
		refs = append(refs, objstore.Ref{Key: aws.ToString(o.Key)})
	}
	return errors.Join(b.Delete(ctx, refs...)...) == nil
}

// remove deletes every version that was written. It works after ctx has ended
// too: a probe leaves nothing behind.
func (sc *scratch) remove(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	for v := range sc.versions {
		in := &s3.DeleteObjectInput{Bucket: aws.String(sc.b.name), Key: aws.String(sc.key), VersionId: optional(v)}
		_, err := do(ctx, sc.b.s.probe("remove probe", sc.b.name, sc.key), func(ctx context.Context) (*s3.DeleteObjectOutput, error) {
			return sc.b.client.DeleteObject(ctx, in)
		})
		if err != nil && objstore.KindOf(err) != objstore.NotExist {
			sc.b.s.log.Warn("a scratch object could not be removed", "bucket", sc.b.name, "key", sc.key, "error", err)
		}
	}
}
