package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"hash"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

const xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"

// maxDocument bounds the XML documents that clients send, in bytes. A
// DeleteObjects of 1,000 keys of 1,024 escaped bytes is the longest.
const maxDocument = 8 << 20

// call is one request on its way through a handler.
type call struct {
	w         http.ResponseWriter
	r         *http.Request
	verb      string
	id        string // request id
	name, key string // bucket and key as the request names them
	query     url.Values
	sig       *signature
	bucket    *bucket // set for verbs on buckets and objects
	code      string  // the error code that was sent
}

func errNotImplemented() *apiError {
	return fail("NotImplemented", "A header or query you provided implies functionality that is not implemented.")
}

func errMalformedXML() *apiError {
	return fail("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
}

// send answers without a body.
func (c *call) send(status int) error {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.w.WriteHeader(status)
	return nil
}

// sendXML answers with a document.
func (c *call) sendXML(status int, doc any) error {
	body, err := xml.Marshal(doc)
	if err != nil {
		return err
	}
	body = append([]byte(xml.Header), body...)
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		// A client that went away is no error of the server's.
		_, _ = c.w.Write(body)
	}
	return nil
}

// sendError answers with the error form.
func (c *call) sendError(e *apiError) {
	c.code = e.Code
	h := c.w.Header()
	for name, value := range e.Header {
		h.Set(name, value)
	}
	if e.Status == http.StatusNotModified {
		c.w.WriteHeader(e.Status)
		return
	}
	if err := c.sendXML(e.Status, e.document(c.r.URL.Path, c.id)); err != nil {
		c.w.WriteHeader(http.StatusInternalServerError)
	}
}

// payload is a request's body, decoded and being checked.
type payload struct {
	src     io.Reader
	chunked *chunkedReader // nil unless aws-chunked
	sha     hash.Hash      // nil unless the body's hash is signed
	want    string
	size    int64 // announced length of the decoded body
	seen    int64
}

// payload returns the body's reader. Its Read returns io.EOF only after length
// and signature were found right.
func (c *call) payload() (*payload, error) {
	p := &payload{src: c.r.Body, size: c.r.ContentLength}
	switch c.sig.payload {
	case unsignedPayload:
	case streamingUnsigned:
		p.chunked = newChunkedReader(c.r.Body, nil, true)
	case streamingSigned, streamingSignedTrailer:
		p.chunked = newChunkedReader(c.r.Body, c.sig, c.sig.payload == streamingSignedTrailer)
	default:
		p.sha, p.want = sha256.New(), strings.ToLower(c.sig.payload)
	}
	if p.chunked != nil {
		p.src = p.chunked
		n, err := strconv.ParseInt(c.r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
		if err != nil || n < 0 {
			return nil, fail("MissingContentLength", "You must provide the x-amz-decoded-content-length header.")
		}
		p.size = n
	}
	if p.size < 0 {
		return nil, fail("MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	return p, nil
}

func (p *payload) Read(b []byte) (int, error) {
	n, err := p.src.Read(b)
	p.seen += int64(n)
	if p.sha != nil {
		p.sha.Write(b[:n])
	}
	switch {
	case p.seen > p.size:
		return n, fail("IncompleteBody", "The request body is longer than announced.")
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return n, err
	case p.seen < p.size:
		return n, io.ErrUnexpectedEOF
	case p.sha != nil && hex.EncodeToString(p.sha.Sum(nil)) != p.want:
		return n, fail("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.").with("ClientComputedContentSHA256", p.want)
	}
	return n, io.EOF
}

func (p *payload) trailer() http.Header {
	if p.chunked == nil {
		return nil
	}
	return p.chunked.trailer
}

// document reads a whole body of at most maxDocument bytes and checks what the
// request announces about it; checked tells whether that was anything.
func (c *call) document() (body []byte, checked bool, err error) {
	p, err := c.payload()
	if err != nil {
		return nil, false, err
	}
	if p.size > maxDocument {
		return nil, false, fail("MaxMessageLengthExceeded", "Your request was too big.")
	}
	want, err := readWanted(c.r.Header)
	if err != nil {
		return nil, false, err
	}
	contentMD5 := c.r.Header.Get("Content-Md5")
	d := newDigest(contentMD5 != "", want.algorithm)
	var buf bytes.Buffer
	if _, err := io.Copy(io.MultiWriter(&buf, d), p); err != nil {
		return nil, false, err
	}
	return buf.Bytes(), contentMD5 != "" || want.algorithm != nil, d.verify(want, contentMD5, p.trailer())
}

// readXML reads the body as an XML document.
func (c *call) readXML(doc any) error {
	body, _, err := c.document()
	if err != nil {
		return err
	}
	return parseXML(body, doc)
}

func parseXML(body []byte, doc any) error {
	if len(body) == 0 {
		return fail("MissingRequestBodyError", "Request Body is empty")
	}
	if xml.Unmarshal(body, doc) != nil {
		return errMalformedXML()
	}
	return nil
}

// maxMeta is the limit of user metadata, names and values, in bytes.
const maxMeta = 2 << 10

// readMeta returns a request's user metadata.
func readMeta(h http.Header) (map[string]string, error) {
	var meta map[string]string
	total := 0
	for name, values := range h {
		short, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-")
		if !ok {
			continue
		}
		if meta == nil {
			meta = map[string]string{}
		}
		value := decodeMeta(strings.Join(values, ","))
		meta[short] = value
		total += len(short) + len(value)
	}
	if total > maxMeta {
		return nil, fail("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size").
			with("Size", strconv.Itoa(total)).with("MaxSizeAllowed", strconv.Itoa(maxMeta))
	}
	return meta, nil
}

// decodeMeta takes values in RFC 2047 form, in UTF-8 or else in Latin-1, as
// the S3 user guide says of "user-defined object metadata".
func decodeMeta(v string) string {
	if !utf8.ValidString(v) {
		runes := make([]rune, len(v))
		for i, c := range []byte(v) {
			runes[i] = rune(c)
		}
		v = string(runes)
	}
	if strings.Contains(v, "=?") {
		var d mime.WordDecoder
		if decoded, err := d.DecodeHeader(v); err == nil {
			return decoded
		}
	}
	return v
}

// encodeMeta is a value as replies show it: what is not printable ASCII in RFC
// 2047 form.
func encodeMeta(v string) string { return mime.BEncoding.Encode("UTF-8", v) }

// readHeaders returns the headers that are kept with an object. aws-chunked is
// a coding of the transfer and not kept.
func readHeaders(h http.Header) headers {
	var codings []string
	for _, line := range h.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "aws-chunked") {
				codings = append(codings, coding)
			}
		}
	}
	return headers{
		ContentType:        h.Get("Content-Type"),
		ContentEncoding:    strings.Join(codings, ","),
		ContentLanguage:    h.Get("Content-Language"),
		ContentDisposition: h.Get("Content-Disposition"),
		CacheControl:       h.Get("Cache-Control"),
		Expires:            h.Get("Expires"),
	}
}

// show puts the kept headers into a reply.
func (k headers) show(h http.Header) {
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set("Content-Type", k.ContentType)
	set("Content-Encoding", k.ContentEncoding)
	set("Content-Language", k.ContentLanguage)
	set("Content-Disposition", k.ContentDisposition)
	set("Cache-Control", k.CacheControl)
	set("Expires", k.Expires)
	if k.ContentType == "" {
		h.Set("Content-Type", "binary/octet-stream")
	}
}

// storageClasses are those of the S3 API reference for general purpose
// buckets; they are kept and change nothing.
const storageClasses = " STANDARD REDUCED_REDUNDANCY STANDARD_IA ONEZONE_IA INTELLIGENT_TIERING GLACIER DEEP_ARCHIVE GLACIER_IR "

func readStorageClass(h http.Header) (string, error) {
	v := h.Get("X-Amz-Storage-Class")
	switch {
	case v == "" || v == "STANDARD":
		return "", nil
	case strings.Contains(storageClasses, " "+v+" "):
		return v, nil
	}
	return "", fail("InvalidStorageClass", "The storage class you specified is not valid").with("StorageClassRequested", v)
}

// maxTags, maxTagKey and maxTagValue are S3's limits of object tags; lengths
// in characters.
const (
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
)

// readTags reads the tags of the header x-amz-tagging.
func readTags(h http.Header) ([]tag, error) {
	text := h.Get("X-Amz-Tagging")
	if text == "" {
		return nil, nil
	}
	var tags []tag
	for pair := range strings.SplitSeq(text, "&") {
		k, v, _ := strings.Cut(pair, "=")
		key, kerr := url.QueryUnescape(k)
		value, verr := url.QueryUnescape(v)
		if kerr != nil || verr != nil {
			return nil, fail("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
		}
		tags = append(tags, tag{key, value})
	}
	return tags, checkTags(tags)
}

func checkTags(tags []tag) error {
	if len(tags) > maxTags {
		return fail("BadRequest", "Object tags cannot be greater than %d", maxTags)
	}
	seen := map[string]bool{}
	for _, t := range tags {
		switch {
		case t.Key == "" || utf8.RuneCountInString(t.Key) > maxTagKey:
			return fail("InvalidTag", "The TagKey you have provided is invalid")
		case utf8.RuneCountInString(t.Value) > maxTagValue:
			return fail("InvalidTag", "The TagValue you have provided is invalid")
		case seen[t.Key]:
			return fail("InvalidTag", "Cannot provide multiple Tags with the same key")
		}
		seen[t.Key] = true
	}
	return nil
}

// quoted returns an ETag as headers and documents show it.
func quoted(etag string) string { return fmt.Sprintf("%q", etag) }
