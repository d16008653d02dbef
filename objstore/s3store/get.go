package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Get opens the bytes of ref. The reader resumes by itself where a body ends
// early or stalls, always from the version that the first reply was of, and
// compares a whole object with its stored checksum where there is one.
func (b *bucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	name := b.bucketOf(ref) + "/" + ref.Key
	if ref.Key == "" {
		return nil, objstore.Object{}, newError("get", name, objstore.NotExist, "the key is empty")
	}
	if opts.Range.Offset < 0 || opts.Range.Length < 0 {
		return nil, objstore.Object{}, newError("get", name, objstore.InvalidRange, "offset %d, length %d", opts.Range.Offset, opts.Range.Length)
	}
	r := &body{b: b, ref: ref, name: name, ctx: ctx, pos: opts.Range.Offset, length: opts.Range.Length, key: opts.CustomerKeyMD5}
	obj, err := r.start()
	if err != nil {
		return nil, objstore.Object{}, err
	}
	return r, obj, nil
}

// fetched is one reply to GetObject, checked: its body begins with the byte
// that was asked for and holds n of them.
type fetched struct {
	out    *s3.GetObjectOutput
	n      int64 // bytes from the position asked for to the end of the range
	total  int64 // length of the object
	skip   int64 // bytes before, where the server ignored the range
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// fetch asks for the bytes from off; length 0 is to the end. key is the MD5 of
// the customer key to try first, "" for the one that is known or likely.
func (b *bucket) fetch(ctx context.Context, o operation, ref objstore.Ref, key string, off, length int64) (f *fetched, err error) {
	err = b.withKey(ctx, o, ref, key, func(ctx context.Context) (objstore.ETag, objstore.Encryption, error) {
		f, err = b.fetchOnce(ctx, o, ref, off, length)
		if err != nil {
			return "", objstore.Encryption{}, err
		}
		return etagOf(f.out.ETag), objectOfGet(ref.Key, f.out, f.total).Encryption, nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// fetchOnce sends the request with the customer key of ctx.
func (b *bucket) fetchOnce(ctx context.Context, o operation, ref objstore.Ref, off, length int64) (*fetched, error) {
	in := &s3.GetObjectInput{
		Bucket: aws.String(b.bucketOf(ref)), Key: aws.String(ref.Key), VersionId: optional(ref.VersionID),
		IfMatch: quoted(ref.ETag), Range: optional(rangeHeader(off, length)),
	}
	// Set as a bare header the mode makes the server send its checksum and
	// the SDK not check it: it would take a whole object's for a range's.
	sctx := withHeader(ctx, "X-Amz-Checksum-Mode", "ENABLED")
	var f *fetched
	client := b.clientOf(ctx, ref)
	out, bctx, cancel, err := stream(sctx, o, func(ctx context.Context) (*s3.GetObjectOutput, error) {
		return client.GetObject(ctx, in)
	})
	if err != nil {
		if isPrecondition(err) {
			err = withKind(err, objstore.Stale)
		}
		return nil, err
	}
	f, err = checkFetched(out, ref.ETag, off, length)
	if err != nil {
		_ = out.Body.Close()
		cancel(nil)
		kind := objstore.Integrity
		errors.As(err, &kind)
		return nil, newError("get", o.name(), kind, "%w", err)
	}
	f.ctx, f.cancel = bctx, cancel
	return f, nil
}

// rangeHeader is "" for the whole object.
func rangeHeader(off, length int64) string {
	switch {
	case length > 0:
		return fmt.Sprintf("bytes=%d-%d", off, off+length-1)
	case off > 0:
		return fmt.Sprintf("bytes=%d-", off)
	}
	return ""
}

// checkFetched compares a reply with what was asked for.
func checkFetched(out *s3.GetObjectOutput, want objstore.ETag, off, length int64) (*fetched, error) {
	status := http.StatusOK
	if r, ok := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response); ok && r != nil {
		status = r.StatusCode
	}
	if out.ContentLength == nil || *out.ContentLength < 0 {
		return nil, errors.New("the reply does not tell its length")
	}
	got := etagOf(out.ETag)
	switch {
	case want != "" && got == "":
		return nil, errors.New("the reply names no ETag")
	case want != "" && got != want:
		// Some servers do not look at If-Match.
		return nil, fmt.Errorf("the ETag is %s and not %s: %w", got, want, objstore.Stale)
	}
	f := &fetched{out: out}
	switch status {
	case http.StatusOK:
		// Whole, perhaps because the server ignored the range.
		f.total = *out.ContentLength
		if off > 0 && off >= f.total {
			return nil, fmt.Errorf("offset %d of %d bytes: %w", off, f.total, objstore.InvalidRange)
		}
		f.skip, f.n = off, f.total-off
		if length > 0 {
			f.n = min(f.n, length)
		}
		return f, nil
	case http.StatusPartialContent:
		first, last, total, err := parseContentRange(aws.ToString(out.ContentRange))
		if err != nil {
			return nil, err
		}
		wantLast := total - 1
		if length > 0 {
			wantLast = min(wantLast, off+length-1)
		}
		if first != off || last != wantLast || *out.ContentLength != last-first+1 {
			return nil, fmt.Errorf("asked for %s, got %q with %d bytes", rangeHeader(off, length), aws.ToString(out.ContentRange), *out.ContentLength)
		}
		f.total, f.n = total, last-first+1
		return f, nil
	}
	return nil, fmt.Errorf("status %d where 200 or 206 was due", status)
}

// parseContentRange parses "bytes first-last/total".
func parseContentRange(v string) (first, last, total int64, err error) {
	bad := fmt.Errorf("content range %q makes no sense", v)
	rest, ok := strings.CutPrefix(v, "bytes ")
	if !ok {
		return 0, 0, 0, bad
	}
	span, size, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, 0, 0, bad
	}
	from, to, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, 0, bad
	}
	for _, f := range []struct {
		text string
		to   *int64
	}{{from, &first}, {to, &last}, {size, &total}} {
		n, perr := strconv.ParseUint(f.text, 10, 63)
		if perr != nil {
			return 0, 0, 0, bad
		}
		*f.to = int64(n)
	}
	if first > last || last >= total {
		return 0, 0, 0, bad
	}
	return first, last, total, nil
}
