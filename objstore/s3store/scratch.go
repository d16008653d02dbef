package s3store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

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
	return &scratch{b: b, key: b.s.cfg.ProbePrefix + objstore.ScratchPrefix + hex.EncodeToString(id), body: data, versions: map[string]bool{}}
}

// put writes the scratch object; set may change the request.
func (sc *scratch) put(ctx context.Context, want ask, set func(*request)) error {
	o := sc.b.s.probe("probe", sc.b.name, sc.key)
	o.once = true
	resp, err := do(withSSE(ctx, want), o, func(ctx context.Context) (*http.Response, error) {
		r := newRequest("PutObject", http.MethodPut, sc.key)
		body := &partBuffer{pool: &sc.b.s.chunks}
		_, _ = body.Write(sc.body) // never fails
		r.body, r.length = body.reader, body.size
		r.set("Content-Type", defaultType)
		r.set("Content-Md5", integrityOf(sc.body).md5)
		if set != nil {
			set(r)
		}
		return sc.b.wire.send(ctx, r)
	})
	if err != nil {
		sc.failed(err)
		return err
	}
	sc.versions[resp.Header.Get("X-Amz-Version-Id")] = true
	sc.etag = etagOf(resp.Header.Get("Etag"))
	return nil
}

// failed notes a request that may have stored the object all the same.
func (sc *scratch) failed(err error) {
	if statusOf(err) == 0 || statusOf(err) >= 500 && objstore.KindOf(err) != objstore.Unsupported {
		sc.versions[""] = true
	}
}

// putAndLook writes the scratch object and returns what HEAD says of it. Only
// HEAD counts: a server that echoes the header in its reply to PUT proves
// nothing about what it stored.
func (sc *scratch) putAndLook(ctx context.Context, want ask) (objstore.Encryption, error) {
	if err := sc.put(ctx, want, nil); err != nil {
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
// too: a probe leaves nothing behind, but versions that an object lock keeps;
// those get a delete marker, so that nobody sees them.
func (sc *scratch) remove(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	remove := func(version string) error {
		err := sc.b.deleteVersion(ctx, sc.b.s.probe("remove probe", sc.b.name, sc.key), version)
		if objstore.KindOf(err) == objstore.NotExist {
			return nil
		}
		return err
	}
	var locked error
	for v := range sc.versions {
		switch err := remove(v); {
		case err == nil:
		case v != "" && statusOf(err) >= 400 && statusOf(err) < 500:
			locked = err
		default:
			sc.b.s.log.Warn("a scratch object could not be removed", "bucket", sc.b.name, "key", sc.key, "error", err)
		}
	}
	if locked != nil {
		hidden := remove("")
		sc.b.s.log.Warn("versions of a scratch object stay, for want of the right to remove them or because the bucket locks its objects",
			"bucket", sc.b.name, "key", sc.key, "error", locked, "hidden", hidden == nil)
	}
}
