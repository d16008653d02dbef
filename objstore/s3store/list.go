package s3store

import (
	"cmp"
	"context"
	"io"
	"iter"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"coffer/objstore"

	smithytime "github.com/aws/smithy-go/time"
)

// listPage is how many keys and prefixes one request asks for: all that S3
// gives at once.
const listPage = 1000

// page is one reply to a listing, decoded, sorted and without scratch objects.
type page struct {
	entries []objstore.Entry
	next    cursor
	last    bool // nothing follows, says the server
	full    bool // it held as many entries as were asked for
	v2      bool
}

// cursor is where a listing goes on: behind a key, and on V2 pages that are
// not the first by a token.
type cursor struct {
	token string
	after string
}

// List yields the keys that q selects, asking for what follows while the present
// page is consumed: for one page, or for several where that pays, see listRanges.
func (b *bucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		last, left := q.StartAfter, q.Limit
		deliver := func(page []objstore.Entry) bool {
			for _, e := range page {
				last = e.Key
				if !yield(e, nil) {
					return false
				}
				if left--; left == 0 {
					return false
				}
			}
			return true
		}
		for bad := 0; ; {
			split := newSplitting(q, bad)
			for page, err := range b.pages(ctx, q, last, left, split.goesOn) {
				if err != nil {
					yield(objstore.Entry{}, err)
					return
				}
				if !deliver(page) {
					return
				}
			}
			if split.guess == nil {
				return
			}
			switch b.listRanges(ctx, q, last, split.guess, deliver) {
			case allListed:
				return
			case badGuess:
				bad++
			}
		}
	}
}

// pages yields the keys that q selects behind after, page by page, and up to limit
// of them if that is not 0. It asks for the next page before it yields one, unless
// goesOn says that the page is the last that is wanted.
func (b *bucket) pages(ctx context.Context, q objstore.Query, after string, limit int, goesOn func(page []objstore.Entry, took time.Duration) bool) iter.Seq2[[]objstore.Entry, error] {
	return func(yield func([]objstore.Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		type result struct {
			p    *page
			err  error
			took time.Duration
		}
		// ahead holds the one page that is on its way; the channel has room
		// for it, so the goroutine ends whether or not it is consumed.
		var ahead chan result
		defer func() {
			cancel()
			if ahead != nil {
				<-ahead
			}
		}()
		ask := func(c cursor) {
			ch := make(chan result, 1)
			ahead = ch
			go func() {
				began := time.Now()
				p, err := b.listPage(ctx, q, c, limit)
				ch <- result{p, err, time.Since(began)}
			}()
		}

		last := after
		doubted := false // the page to come was asked for in doubt
		ask(cursor{after: after})
		for ahead != nil {
			r := <-ahead
			ahead = nil
			if r.err == nil {
				r.p.entries, r.err = b.fresh(q, r.p.entries, after, last)
			}
			if r.err != nil {
				yield(nil, r.err)
				return
			}
			p := r.p
			lost := doubted && len(p.entries) > 0
			if lost {
				b.listWithV1(q.Prefix)
			}
			if len(p.entries) > 0 {
				last = p.entries[len(p.entries)-1].Key
			}
			enough := limit > 0 && len(p.entries) >= limit
			limit -= min(limit, len(p.entries))
			switch {
			case enough:
			case !p.last && !lost:
				if goesOn(p.entries, r.took) {
					ask(p.next)
				}
				doubted = false
			case lost, p.v2 && p.full && b.autoVersion():
				// A store is known whose V2 calls the first thousand all.
				if goesOn(p.entries, r.took) {
					ask(cursor{after: max(p.next.after, last)})
				}
				doubted = !lost
			}
			if !yield(p.entries, nil) {
				return
			}
		}
	}
}

// fresh returns the entries of a page, which are sorted, that follow last, and after,
// behind which the listing began. An equal one is the group that two pages share; one before it tells that the
// server's order is not ours, and that keys may have been passed over.
func (b *bucket) fresh(q objstore.Query, entries []objstore.Entry, after, last string) ([]objstore.Entry, error) {
	out := entries[:0]
	for _, e := range entries {
		switch {
		case last != "" && e.Key == last, after != "" && e.Key <= after:
			continue
		case e.Key < last:
			return nil, newError("list", b.name+"/"+q.Prefix, objstore.Integrity, "key %q came after %q", e.Key, last)
		}
		last = e.Key
		out = append(out, e)
	}
	return out, nil
}

// autoVersion reports whether V2 pages are doubted.
func (b *bucket) autoVersion() bool {
	return b.s.cfg.ListVersion == "" || b.s.cfg.ListVersion == "auto"
}

// listWithV1 has the bucket listed with V1 from now on.
func (b *bucket) listWithV1(prefix string) {
	if !b.losesKeys.Swap(true) {
		b.s.log.Warn("ListObjectsV2 of this store loses keys; listing with V1 from now on", "bucket", b.name, "prefix", prefix)
	}
}

// listPage asks for one page, of which no more than limit are wanted if it is not 0.
func (b *bucket) listPage(ctx context.Context, q objstore.Query, c cursor, limit int) (*page, error) {
	size := listPage
	if limit > 0 && limit < listPage {
		// One more, as the group of StartAfter may come again.
		size = limit + 1
	}
	var p *page
	var err error
	if v := b.s.cfg.ListVersion; v == "1" || v != "2" && b.losesKeys.Load() {
		p, err = b.listV1(ctx, q, c, size)
	} else {
		p, err = b.listV2(ctx, q, c, size)
	}
	if err != nil {
		return nil, err
	}
	byKey := func(a, b objstore.Entry) int { return cmp.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(p.entries, byKey) {
		slices.SortFunc(p.entries, byKey)
	}
	p.entries = slices.DeleteFunc(p.entries, func(e objstore.Entry) bool { return isProbe(e.Key) })
	return p, nil
}

// listRequest asks for one page; query has what differs by version.
func (b *bucket) listRequest(ctx context.Context, verb string, q objstore.Query, size int, query url.Values) (*listing, error) {
	query.Set("max-keys", strconv.Itoa(size))
	query.Set("encoding-type", encodingURL)
	if q.Prefix != "" {
		query.Set("prefix", q.Prefix)
	}
	if q.Delimiter != "" {
		query.Set("delimiter", q.Delimiter)
	}
	return do(ctx, b.s.op("list", b.name, q.Prefix), func(ctx context.Context) (*listing, error) {
		var out *listing
		r := newRequest(verb, http.MethodGet, "")
		r.query = query
		r.read = func(resp *http.Response) error {
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			var ok bool
			if out, ok = scanListing(text); ok {
				return nil
			}
			out = &listing{}
			return decodeXML(resp, text, "ListBucketResult", out)
		}
		_, err := b.wire.send(ctx, r)
		return out, err
	})
}

func (b *bucket) listV2(ctx context.Context, q objstore.Query, c cursor, size int) (*page, error) {
	query := url.Values{"list-type": {"2"}}
	if c.token != "" {
		query.Set("continuation-token", c.token)
	} else if c.after != "" {
		query.Set("start-after", c.after)
	}
	out, err := b.listRequest(ctx, "ListObjectsV2", q, size, query)
	if err != nil {
		return nil, err
	}
	p, err := b.newPage(q, out, size)
	if err != nil {
		return nil, err
	}
	p.v2 = true
	p.next.token = out.NextContinuationToken
	return p, b.checkProgress(q, p)
}

func (b *bucket) listV1(ctx context.Context, q objstore.Query, c cursor, size int) (*page, error) {
	query := url.Values{}
	if c.after != "" {
		query.Set("marker", c.after)
	}
	out, err := b.listRequest(ctx, "ListObjects", q, size, query)
	if err != nil {
		return nil, err
	}
	p, err := b.newPage(q, out, size)
	if err != nil {
		return nil, err
	}
	if m := out.NextMarker; m != "" {
		if m, err = decodeKey(m, out.EncodingType); err != nil {
			return nil, b.badReply(q, err)
		}
		p.next.after = m
	}
	return p, b.checkProgress(q, p)
}

// checkProgress refuses a page that promises more and tells of nothing to go
// on from: asking again would never end.
func (b *bucket) checkProgress(q objstore.Query, p *page) error {
	if !p.last && p.next == (cursor{}) {
		return newError("list", b.name+"/"+q.Prefix, objstore.Integrity, "an empty page without a marker says that more follows")
	}
	return nil
}

// newPage decodes keys and prefixes. KeyCount is not looked at: some servers
// leave prefixes out of it.
func (b *bucket) newPage(q objstore.Query, out *listing, size int) (*page, error) {
	n := len(out.Contents) + len(out.CommonPrefixes)
	p := &page{entries: make([]objstore.Entry, 0, n), full: n >= size, last: !out.IsTruncated}
	for _, c := range out.Contents {
		key, err := decodeKey(c.Key, out.EncodingType)
		if err != nil {
			return nil, b.badReply(q, err)
		}
		e := objstore.Entry{Key: key, ETag: etagOf(c.ETag), StorageClass: storageClass(c.StorageClass)}
		if c.Size != nil {
			e.Size, e.StoredSize, e.SizeKnown = *c.Size, *c.Size, true
		}
		e.LastModified = listedTime(c.LastModified)
		p.entries = append(p.entries, e)
		p.next.after = max(p.next.after, key)
	}
	for _, c := range out.CommonPrefixes {
		key, err := decodeKey(c.Prefix, out.EncodingType)
		if err != nil {
			return nil, b.badReply(q, err)
		}
		p.entries = append(p.entries, objstore.Entry{Key: key, IsPrefix: true})
		p.next.after = max(p.next.after, key)
	}
	return p, nil
}

// listedTime reads the time of a key in a listing. Some servers leave the zone
// out, which is UTC. What is no time at all is not worth a directory that cannot
// be listed.
func listedTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t, _ = smithytime.ParseDateTime(text)
	}
	return t
}

func (b *bucket) badReply(q objstore.Query, err error) error {
	return newError("list", b.name+"/"+q.Prefix, objstore.Integrity, "the listing: %w", err)
}

// encodingURL has keys encoded: XML has no place for some of their characters.
const encodingURL = "url"

// decodeKey undoes it where the reply says that it was applied; some servers
// ignore the wish.
func decodeKey(key, enc string) (string, error) {
	if !strings.EqualFold(enc, encodingURL) {
		return key, nil
	}
	return url.QueryUnescape(key)
}

// isProbe reports whether key is one of our scratch objects.
func isProbe(key string) bool {
	return strings.HasPrefix(path.Base(key), objstore.ScratchPrefix) && !strings.HasSuffix(key, "/")
}
