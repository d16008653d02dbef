package emulator

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// source is what x-amz-copy-source names, opened.
type source struct {
	bucket *bucket
	v      *version
	body   *reader
}

// openSource opens the source of a copy and checks the conditions on it. The
// caller closes body.
func (s *Server) openSource(c *call) (*source, error) {
	name, key, versionID, err := parseSource(c.r.Header.Get(copyHeader))
	if err != nil {
		return nil, err
	}
	customer, err := s.customer(c, copyCustomerPrefix)
	if err != nil {
		return nil, err
	}
	b := s.bucketNamed(name)
	if b == nil {
		return nil, errNoSuchBucket(name)
	}
	if err := s.admit(c, name); err != nil {
		return nil, err
	}
	body, err := b.open(key, versionID)
	if err != nil {
		return nil, err
	}
	err = body.v.SSE.admit(customer)
	if err == nil && body.v.archived(s.clock.now()) {
		err = errArchived(body.v)
	}
	if err == nil {
		err = readCondition(c.r.Header, "X-Amz-Copy-Source-", body.v)
	}
	if err == nil {
		body.root, err = s.root(c, name, key, body.v.SSE, customer)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return &source{b, body.v, body}, nil
}

// parseSource reads "[/]bucket/key[?versionId=id]", percent-encoded.
func parseSource(text string) (bucket, key, versionID string, err error) {
	path, query, _ := strings.Cut(text, "?")
	path, uerr := url.PathUnescape(path)
	bucket, key, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if uerr != nil || !ok || bucket == "" || key == "" {
		return "", "", "", fail("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey").with("ArgumentName", "x-amz-copy-source")
	}
	if query != "" {
		id, found := strings.CutPrefix(query, "versionId=")
		if !found {
			return "", "", "", fail("InvalidArgument", "Unsupported copy source parameter.").with("ArgumentName", "x-amz-copy-source")
		}
		versionID = id
	}
	return bucket, key, versionID, nil
}

// directive reads a COPY or REPLACE header; replace is false when it is
// absent.
func directive(h http.Header, name string) (replace bool, err error) {
	switch v := h.Get(name); v {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, fail("InvalidArgument", "Unknown %s.", name).with("ArgumentName", name).with("ArgumentValue", v)
	}
}

func (s *Server) copyObject(c *call) error {
	h := c.r.Header
	cond, err := writeCondition(h)
	if err != nil {
		return err
	}
	src, err := s.openSource(c)
	if err != nil {
		return err
	}
	defer src.body.Close()
	v, how, err := s.copyTarget(c, src)
	if err != nil {
		return err
	}
	if src.v.Size > maxPut {
		return fail("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(maxPut))
	}
	alg := checksumByName(src.v.Checksum.Algorithm)
	if name := h.Get("X-Amz-Checksum-Algorithm"); name != "" {
		if alg = checksumByName(name); alg == nil {
			return fail("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
		}
	}
	d := newDigest(true, alg)
	seg, err := s.copyBytes(c.bucket, src, 0, src.v.Size, how.root, d)
	if err != nil {
		return err
	}
	v.Segments, v.Size, v.ETag, v.Checksum = []segment{seg}, seg.Size, s.dialect.etag(v.SSE, d), d.checksum()
	if err := c.bucket.commit(v, cond); err != nil {
		s.vault.remove(c.bucket.dataDir(), v.Segments)
		return err
	}
	s.showWrite(c, v.SSE, how.customer)
	c.showVersion(v)
	src.show(c)
	var doc struct {
		XMLName      xml.Name `xml:"CopyObjectResult"`
		Xmlns        string   `xml:"xmlns,attr"`
		ETag         string
		LastModified string
		checksumXML
	}
	doc.Xmlns, doc.ETag, doc.LastModified = xmlns, quoted(v.ETag), timeText(v.modified())
	doc.set(v.Checksum)
	return c.sendXML(http.StatusOK, doc)
}

// show puts the source's version into the reply.
func (src *source) show(c *call) {
	if src.v.ID != nullVersion || src.bucket.config().Versioning != "" {
		c.w.Header().Set("x-amz-copy-source-version-id", src.v.ID)
	}
}

// copyTarget starts the version that a copy makes.
func (s *Server) copyTarget(c *call, src *source) (*version, protection, error) {
	var none protection
	h := c.r.Header
	v, err := newVersion(c.key, h)
	if err != nil {
		return nil, none, err
	}
	replaceMeta, err := directive(h, "X-Amz-Metadata-Directive")
	if err != nil {
		return nil, none, err
	}
	replaceTags, err := directive(h, "X-Amz-Tagging-Directive")
	if err != nil {
		return nil, none, err
	}
	how, err := s.protect(c)
	if err != nil {
		return nil, none, err
	}
	v.SSE = how.state
	if !replaceMeta {
		v.Headers, v.Meta = src.v.Headers, src.v.Meta
	}
	if !replaceTags {
		v.Tags = src.v.Tags
	}
	current := c.bucket.latest(c.key)
	changes := replaceMeta || replaceTags || h.Get("X-Amz-Storage-Class") != "" || h.Get(headerSSE) != "" && s.dialect.encrypts ||
		v.SSE.Customer != nil || src.v.SSE.Customer != nil
	if !changes && src.bucket == c.bucket && src.v.Key == c.key && current != nil && current.ID == src.v.ID {
		return nil, none, fail("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	return v, how, nil
}

// copyBytes stores a range of a source as a new segment of dst.
func (s *Server) copyBytes(dst *bucket, src *source, off, n int64, root *rootKey, d *digest) (segment, error) {
	w, err := s.vault.create(root)
	if err != nil {
		return segment{}, err
	}
	defer w.abort()
	if err := src.body.writeRange(io.MultiWriter(d, w), off, n); err != nil {
		return segment{}, err
	}
	return w.finish(dst.dataDir())
}

func (s *Server) uploadPartCopy(c *call) error {
	u, number, err := c.partOf()
	if err != nil {
		return err
	}
	if s.dialect.noChecksumCopy && u.ChecksumAlgorithm != "" {
		return fail("InvalidArgument", "The upload was created with a checksum algorithm and the copy has none.")
	}
	how, err := s.protectPart(c, u)
	if err != nil {
		return err
	}
	src, err := s.openSource(c)
	if err != nil {
		return err
	}
	defer src.body.Close()
	off, n, err := sourceRange(c.r.Header.Get("X-Amz-Copy-Source-Range"), src.v.Size, s.dialect.cutsCopyRange)
	if err != nil {
		return err
	}
	if n > maxPut {
		return fail("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source: %d", int64(maxPut))
	}
	d := newDigest(true, checksumByName(u.ChecksumAlgorithm))
	seg, err := s.copyBytes(c.bucket, src, off, n, how.root, d)
	if err != nil {
		return err
	}
	p := uploadPart{Number: number, Segment: seg, ETag: s.dialect.etag(how.state, d), Checksum: d.checksum(), Modified: s.clock.now().UTC()}
	if err := c.bucket.addPart(u, p); err != nil {
		s.vault.remove(c.bucket.dataDir(), []segment{seg})
		return err
	}
	s.showWrite(c, how.state, how.customer)
	src.show(c)
	var doc struct {
		XMLName      xml.Name `xml:"CopyPartResult"`
		Xmlns        string   `xml:"xmlns,attr"`
		ETag         string
		LastModified string
		checksumXML
	}
	doc.Xmlns, doc.ETag, doc.LastModified = xmlns, quoted(p.ETag), timeText(p.Modified)
	doc.set(checksum{Algorithm: p.Checksum.Algorithm, Value: p.Checksum.Value})
	return c.sendXML(http.StatusOK, doc)
}

// sourceRange reads x-amz-copy-source-range, which unlike Range has both ends
// and must lie within the object unless cut is set.
func sourceRange(text string, size int64, cut bool) (off, n int64, err error) {
	if text == "" {
		return 0, size, nil
	}
	spec, isBytes := strings.CutPrefix(text, "bytes=")
	first, last, _ := strings.Cut(spec, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if !isBytes || err1 != nil || err2 != nil || from < 0 || to < from {
		return 0, 0, fail("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy").
			with("ArgumentName", "x-amz-copy-source-range").with("ArgumentValue", text)
	}
	if cut && from < size {
		to = min(to, size-1)
	}
	if to >= size {
		return 0, 0, fail("InvalidArgument", "Range specified is not valid for source object of size: %d", size).
			with("ArgumentName", "x-amz-copy-source-range").with("ArgumentValue", text)
	}
	return from, to - from + 1, nil
}
