package s3store

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"hash/crc32"
	"sync"

	"coffer/objstore"
)

// support is what is known of a feature.
type support int8

const (
	unknown support = iota
	yes
	no
)

// String returns yes, no or unknown.
func (s support) String() string {
	switch s {
	case yes:
		return "yes"
	case no:
		return "no"
	}
	return "unknown"
}

func known(b bool) support {
	if b {
		return yes
	}
	return no
}

// features is what an endpoint honours. What is unknown is used together with
// the older way of reaching the same end.
type features struct {
	crc32    support // a wrong x-amz-checksum-crc32 is refused
	ifAbsent support // If-None-Match: * of a PUT
	ifMatch  support // If-Match of a PUT
}

// capabilities remembers the features of one endpoint as long as the Store
// lives.
type capabilities struct {
	mu       sync.Mutex
	known    bool
	features features
}

func (c *capabilities) get() features {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.features
}

// learn finds what the endpoint honours with a scratch object that exists and
// that want makes acceptable. Two buckets may do so at once, with one result.
func (b *bucket) learn(ctx context.Context, sc *scratch, want ask) {
	c := &b.s.caps
	c.mu.Lock()
	done := c.known
	c.mu.Unlock()
	if done {
		return
	}
	f := features{
		crc32:    sc.crc32(ctx, want),
		ifAbsent: sc.ifAbsent(ctx, want),
		ifMatch:  sc.ifMatch(ctx, want),
	}
	b.s.log.Debug("what the endpoint honours", "crc32", f.crc32, "if_none_match", f.ifAbsent, "if_match", f.ifMatch)
	c.mu.Lock()
	c.features, c.known = f, f.crc32 != unknown && f.ifAbsent != unknown && f.ifMatch != unknown
	c.mu.Unlock()
}

// crc32 tells whether a body that does not fit its CRC32 is refused, and one
// that does is accepted.
func (sc *scratch) crc32(ctx context.Context, want ask) support {
	sum := integrityOf(sc.body)
	err := sc.put(ctx, want, func(r *request) {
		delete(r.header, "Content-Md5")
		r.set("X-Amz-Checksum-Crc32", crcText(sum.crc+1))
	})
	switch s := statusOf(err); {
	case err == nil:
		return no
	case s < 400 || s >= 500 || s == 403 || s == 429:
		return unknown
	}
	err = sc.put(ctx, want, func(r *request) {
		delete(r.header, "Content-Md5")
		r.set("X-Amz-Checksum-Crc32", crcText(sum.crc))
	})
	if err != nil && statusOf(err) == 0 {
		return unknown
	}
	return known(err == nil)
}

// ifAbsent tells whether If-None-Match: * keeps an object from being replaced.
func (sc *scratch) ifAbsent(ctx context.Context, want ask) support {
	err := sc.put(ctx, want, func(r *request) { r.set("If-None-Match", "*") })
	switch {
	case err == nil, objstore.KindOf(err) == objstore.Unsupported:
		return no
	case isPrecondition(err):
		return yes
	}
	return unknown
}

// ifMatch tells whether If-Match lets the right ETag through and no other. A
// server is known that refuses both.
func (sc *scratch) ifMatch(ctx context.Context, want ask) support {
	right := sc.etag
	err := sc.put(ctx, want, func(r *request) { r.set("If-Match", quoted("00000000000000000000000000000000")) })
	switch {
	case err == nil, objstore.KindOf(err) == objstore.Unsupported:
		return no
	case !isPrecondition(err):
		return unknown
	}
	err = sc.put(ctx, want, func(r *request) { r.set("If-Match", quoted(right)) })
	switch {
	case err == nil:
		return yes
	case isPrecondition(err):
		return no
	}
	return unknown
}

// integrity is what a body can be checked with.
type integrity struct {
	crc uint32
	md5 string // base64
}

func integrityOf(body []byte) integrity {
	sum := md5.Sum(body)
	return integrity{crc: crc32.ChecksumIEEE(body), md5: base64.StdEncoding.EncodeToString(sum[:])}
}

// crcText is the value of x-amz-checksum-crc32: base64 of the big-endian sum.
func crcText(crc uint32) string {
	return objstore.CRC32.Text(uint64(crc))
}

// setBody makes buf the body of r, with its integrity checks: the CRC32 where
// it is honoured, the MD5 where it is not, both while that is unknown. onlyMD5
// is for parts of uploads that were begun without a checksum algorithm.
func (b *bucket) setBody(r *request, buf *partBuffer, onlyMD5 bool) {
	r.body, r.length = buf.reader, buf.size
	f := b.s.caps.get()
	if f.crc32 != no && !onlyMD5 {
		r.set("X-Amz-Checksum-Crc32", crcText(buf.crc))
	}
	if f.crc32 != yes || onlyMD5 {
		r.set("Content-Md5", buf.md5Text())
	}
}
