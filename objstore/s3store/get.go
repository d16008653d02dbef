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
	resp   *http.Response
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
		return etagOf(f.resp.Header.Get("Etag")), encryptionIn(f.resp.Header), nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// fetchOnce sends the request with the customer key of ctx.
func (b *bucket) fetchOnce(ctx context.Context, o operation, ref objstore.Ref, off, length int64) (*fetched, error) {
	w := b.wireOf(ctx, ref)
	resp, bctx, cancel, err := stream(ctx, o, func(ctx context.Context) (*http.Response, error) {
		r := newRequest("GetObject", http.MethodGet, ref.Key)
		r.open = true
		r.version(ref.VersionID)
		r.set("If-Match", quoted(ref.ETag))
		r.set("Range", rangeHeader(off, length))
		r.set("X-Amz-Checksum-Mode", "ENABLED")
		return w.send(ctx, r)
	})
	if err != nil {
		if isPrecondition(err) {
			err = withKind(err, objstore.Stale)
		}
		return nil, err
	}
	f, err := checkFetched(resp, ref.ETag, off, length)
	if err != nil {
		_ = resp.Body.Close()
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
func checkFetched(resp *http.Response, want objstore.ETag, off, length int64) (*fetched, error) {
	if resp.ContentLength < 0 {
		return nil, errors.New("the reply does not tell its length")
	}
	got := etagOf(resp.Header.Get("Etag"))
	switch {
	case want != "" && got == "":
		return nil, errors.New("the reply names no ETag")
	case want != "" && got != want:
		// Some servers do not look at If-Match.
		return nil, fmt.Errorf("the ETag is %s and not %s: %w", got, want, objstore.Stale)
	}
	f := &fetched{resp: resp}
	switch resp.StatusCode {
	case http.StatusOK:
		// Whole, perhaps because the server ignored the range.
		f.total = resp.ContentLength
		if off > 0 && off >= f.total {
			return nil, fmt.Errorf("offset %d of %d bytes: %w", off, f.total, objstore.InvalidRange)
		}
		f.skip, f.n = off, f.total-off
		if length > 0 {
			f.n = min(f.n, length)
		}
		return f, nil
	case http.StatusPartialContent:
		said := resp.Header.Get("Content-Range")
		first, last, total, err := parseContentRange(said)
		if err != nil {
			return nil, err
		}
		wantLast := total - 1
		if length > 0 {
			wantLast = min(wantLast, off+length-1)
		}
		if first != off || last != wantLast || resp.ContentLength != last-first+1 {
			return nil, fmt.Errorf("asked for %s, got %q with %d bytes", rangeHeader(off, length), said, resp.ContentLength)
		}
		f.total, f.n = total, last-first+1
		return f, nil
	}
	return nil, fmt.Errorf("status %d where 200 or 206 was due", resp.StatusCode)
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
