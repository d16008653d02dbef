package s3store

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// deleteBatch is the most keys that DeleteObjects takes.
	deleteBatch = 1000
	// deletesInFlight bounds the requests of one Delete.
	deletesInFlight = 4
)

// Delete removes objects, in batches, and returns one error (or nil) for each
// ref. Removing what is absent succeeds.
func (b *bucket) Delete(ctx context.Context, refs ...objstore.Ref) []error {
	errs := make([]error, len(refs))
	if err := b.s.writable("delete", b.name); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	var single, many []int
	for i, r := range refs {
		if len(refs) == 1 || !xmlSafe(r.Key) {
			single = append(single, i)
		} else {
			many = append(many, i)
		}
	}
	// Descending, so that a directory's marker comes after what lies below it: servers
	// that keep objects as files answer 500 to the other order, as S3Proxy does.
	slices.SortStableFunc(many, func(i, j int) int { return strings.Compare(refs[j].Key, refs[i].Key) })
	var wg sync.WaitGroup
	sem := make(chan struct{}, deletesInFlight)
	run := func(f func()) {
		sem <- struct{}{}
		wg.Go(func() {
			defer func() { <-sem }()
			f()
		})
	}
	for _, i := range single {
		run(func() { errs[i] = b.deleteOne(ctx, refs[i]) })
	}
	for len(many) > 0 {
		batch := many[:min(len(many), deleteBatch)]
		many = many[len(batch):]
		run(func() { b.deleteMany(ctx, refs, batch, errs) })
	}
	wg.Wait()
	return errs
}

// xmlSafe reports whether key can stand in an XML document. The encoder would
// replace other characters, and the server would remove another object.
func xmlSafe(key string) bool {
	return utf8.ValidString(key) && !strings.ContainsFunc(key, func(r rune) bool {
		return r < 0x20 || r == 0x7f || r == 0xfffe || r == 0xffff || r == utf8.RuneError
	})
}

func (b *bucket) deleteOne(ctx context.Context, ref objstore.Ref) error {
	err := b.deleteVersion(ctx, b.s.op("delete", b.name, ref.Key), ref.VersionID)
	if code := codeOf(err); code == "NoSuchKey" || code == "NoSuchVersion" {
		return nil
	}
	return err
}

// deleteVersion removes the object that o names: one version of it, or with ""
// what shows under its key.
func (b *bucket) deleteVersion(ctx context.Context, o operation, version string) error {
	_, err := do(ctx, o, func(ctx context.Context) (*http.Response, error) {
		r := newRequest("DeleteObject", http.MethodDelete, o.key)
		r.version(version)
		return b.wire.send(ctx, r)
	})
	return err
}

// deleteMany removes the refs whose indices are in batch and sets their errs.
func (b *bucket) deleteMany(ctx context.Context, refs []objstore.Ref, batch []int, errs []error) {
	del := &types.Delete{Quiet: aws.Bool(true), Objects: make([]types.ObjectIdentifier, len(batch))}
	for j, i := range batch {
		del.Objects[j] = types.ObjectIdentifier{Key: aws.String(refs[i].Key), VersionId: optional(refs[i].VersionID)}
	}
	out, err := do(ctx, b.s.op("delete", b.name, ""), func(ctx context.Context) (*s3.DeleteObjectsOutput, error) {
		// Some servers insist on Content-MD5, which the SDK stopped sending.
		return b.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String(b.name), Delete: del}, func(o *s3.Options) {
			o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware)
		})
	})
	switch {
	case objstore.KindOf(err) == objstore.Unsupported:
		for _, i := range batch {
			errs[i] = b.deleteOne(ctx, refs[i])
		}
		return
	case err != nil:
		for _, i := range batch {
			errs[i] = err
		}
		return
	}
	type id struct{ key, version string }
	failed := map[id]types.Error{}
	for _, e := range out.Errors {
		failed[id{aws.ToString(e.Key), aws.ToString(e.VersionId)}] = e
	}
	met := 0
	for _, i := range batch {
		e, ok := failed[id{refs[i].Key, refs[i].VersionID}]
		if !ok {
			continue
		}
		met++
		switch code := aws.ToString(e.Code); kindOf(code, 0) {
		case objstore.NotExist:
		case objstore.Throttled, objstore.Unavailable, objstore.Conflict, objstore.Unknown:
			errs[i] = b.deleteOne(ctx, refs[i]) // with repetitions and a full reply
		default:
			errs[i] = newError("delete", b.name+"/"+refs[i].Key, kindOf(code, 0), "%s: %s", code, aws.ToString(e.Message))
		}
	}
	if met < len(failed) {
		// Something failed that we did not ask for in these words. Which
		// object was meant is found by asking for each alone.
		for _, i := range batch {
			if errs[i] == nil {
				errs[i] = b.deleteOne(ctx, refs[i])
			}
		}
	}
}
