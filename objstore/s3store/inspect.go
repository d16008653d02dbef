package s3store

import (
	"context"
	"crypto/rand"
	"net/http"

	"coffer/objstore"
)

// Result is yes, no or unknown.
type Result string

// The results of a [Check].
const (
	ResultYes     Result = "yes"
	ResultNo      Result = "no"
	ResultUnknown Result = "unknown"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// Report is what Inspect found.
type Report struct {
	Endpoint   string              `json:"endpoint"`
	Region     string              `json:"region"`
	Bucket     string              `json:"bucket,omitempty"`
	Encryption objstore.Encryption `json:"encryption"` // of a new object, proved
	Checks     []Check             `json:"checks"`
}

// Inspect tells what the store honours and whether bucket encrypts, for
// "coffer check". It writes and removes scratch objects unless the store was
// opened for reading only. Without a bucket it only tries the credentials.
// The error is that of an invalid bucket name; everything else is a result.
func (s *Store) Inspect(ctx context.Context, bucket string) (Report, error) {
	r := Report{Endpoint: s.endpoint, Region: s.region, Bucket: bucket}
	if r.Endpoint == "" {
		r.Endpoint = "AWS"
	}
	add := func(name string, res Result, detail string) { r.Checks = append(r.Checks, Check{name, res, detail}) }
	outcome := func(name string, err error) {
		if err != nil {
			add(name, ResultNo, err.Error())
		} else {
			add(name, ResultYes, "")
		}
	}
	if s.creds != nil {
		v, err := s.creds.Retrieve(ctx)
		if err != nil {
			add("credentials found", ResultNo, err.Error())
		} else {
			add("credentials found", ResultYes, "access key "+v.AccessKeyID+" from "+v.Source)
		}
	}
	lctx, cancel := context.WithTimeout(ctx, s.cfg.ProbeTimeout)
	defer cancel()
	_, err := s.Buckets(lctx)
	outcome("list buckets", err)
	if bucket == "" {
		return r, nil
	}
	if err := checkBucketName(bucket); err != nil {
		return r, newError("inspect", bucket, objstore.InvalidName, "%w", err)
	}
	b, err := s.open(ctx, bucket)
	outcome("bucket reachable", err)
	if err != nil {
		return r, nil
	}
	r.Region = b.region
	if enc, err := b.configured(ctx); err != nil {
		add("bucket tells its default encryption", ResultUnknown, err.Error())
	} else {
		add("bucket tells its default encryption", ResultYes, describe(enc))
	}
	enc, err := b.Protection(ctx, s.cfg.ProbePrefix)
	r.Encryption = enc
	switch {
	case err == nil && s.cfg.ReadOnly:
		add("new objects are encrypted", asResult(known(enc.Encrypted())), describe(enc)+", as the bucket says; nothing was written to prove it")
	case err == nil:
		add("new objects are encrypted", asResult(known(enc.Encrypted())), describe(enc)+", proved by a scratch object")
	case objstore.KindOf(err) == objstore.Unencrypted:
		add("new objects are encrypted", ResultNo, err.Error())
	default:
		add("new objects are encrypted", ResultUnknown, err.Error())
	}
	if !s.cfg.ReadOnly && objstore.KindOf(err) != objstore.Unavailable {
		for _, mode := range []objstore.Mode{objstore.ModeSSES3, objstore.ModeSSEKMS, objstore.ModeDSSEKMS, objstore.ModeSSEC} {
			res, detail := b.honours(ctx, mode)
			add("honours "+string(mode), res, detail)
		}
	}
	if err == nil && enc.Encrypted() && !s.cfg.ReadOnly {
		res, detail := b.copiesEncrypted(ctx)
		add("copies inside the store are encrypted", res, detail)
	}
	f := s.caps.get()
	add("wrong CRC32 is refused", asResult(f.crc32), "")
	add("If-None-Match keeps objects from being replaced", asResult(f.ifAbsent), "")
	add("If-Match keeps other versions from being replaced", asResult(f.ifMatch), "")
	return r, nil
}

// honours tells whether an object that asks for mode comes out so.
func (b *bucket) honours(ctx context.Context, mode objstore.Mode) (Result, string) {
	if mode == objstore.ModeSSEC && b.s.keys.empty() {
		s, err := b.s.withAnyKey(ctx)
		if err != nil {
			return ResultUnknown, err.Error()
		}
		defer func() { _ = s.Close() }() // never fails
		b = newBucket(s, b.name, b.region)
	}
	rule := b.s.cfg.rule(b.name, b.s.cfg.ProbePrefix)
	want := objstore.Encryption{Mode: mode}
	if rule.Encryption.Mode == mode {
		want = rule.Encryption // with its key
	}
	asked, err := b.askFor(rule, want)
	if err != nil {
		return ResultUnknown, err.Error()
	}
	res, err := b.prove(ctx, question{ask: asked})
	switch objstore.KindOf(err) {
	case 0:
	case objstore.KeyUnavailable, objstore.Permission:
		return ResultNo, err.Error()
	default:
		return ResultUnknown, err.Error()
	}
	switch {
	case statusOf(res.why) == http.StatusBadRequest && mode == objstore.ModeSSEKMS && want.KMSKeyID == "":
		return ResultUnknown, "it may want the name of a key (--sse-kms-key-id): " + res.why.Error()
	case res.why != nil:
		return ResultNo, res.why.Error()
	case satisfies(asked.Encryption, res.enc) == wrongMode:
		return ResultNo, "a scratch object came out as " + describe(res.enc)
	}
	return ResultYes, describe(res.enc)
}

// withAnyKey is a store as s with a customer key that nobody will know again.
func (s *Store) withAnyKey(ctx context.Context) (*Store, error) {
	var raw [customerKeySize]byte
	_, _ = rand.Read(raw[:]) // never fails
	key, err := NewCustomerKey(raw[:])
	if err != nil {
		return nil, err
	}
	cfg := s.cfg
	cfg.CustomerKeys = []CustomerKey{key}
	return newStore(ctx, cfg, s.patience)
}

// copiesEncrypted tells whether the store itself copies what is written here.
func (b *bucket) copiesEncrypted(ctx context.Context) (Result, string) {
	prot, err := b.protect(ctx, b.s.cfg.ProbePrefix, objstore.Encryption{})
	if err != nil {
		return ResultUnknown, err.Error()
	}
	res, err := b.prove(ctx, question{ask: prot.send, copied: true})
	if err != nil {
		return ResultUnknown, err.Error()
	}
	if why := prot.copied(res); why != nil {
		return ResultNo, "what is renamed is read and written anew by this machine: " + why.Error()
	}
	return ResultYes, describe(res.enc)
}

func asResult(s support) Result { return Result(s.String()) }
