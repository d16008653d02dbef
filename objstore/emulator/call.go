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
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
	fault     Fault
	kms       bool   // a request to the key service
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

// quoted returns an ETag as headers and documents show it.
func quoted(etag string) string { return fmt.Sprintf("%q", etag) }
