package storetest

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// ProxyRequest is one request that went through a [Proxy].
type ProxyRequest struct {
	Time time.Time
	// Verb is the S3 operation, as [VerbOf] names it.
	Verb string
	// Bucket and Key are as decoded from a path-style path; "" when absent.
	Bucket, Key string
	// Headers are the names of the request's headers, in lower case, sorted.
	Headers []string
	// BodyBytes is how much of the request's body has passed.
	BodyBytes int64
	// Status is the answer's, 0 when the client was cut off.
	Status int
}

// ProxyEffect is what a fault does to one request. The zero value lets it pass.
type ProxyEffect struct {
	// Delay holds the request back before it is passed on.
	Delay time.Duration
	// PageKeys, when not 0, is how many keys a listing asks for at most,
	// whatever the client asked for: a store may give fewer.
	PageKeys int
	// Status, when not 0, is answered instead of passing the request on, with
	// Code as the S3 error code in the body.
	Status int
	Code   string
	// LoseReply passes the request on, waits for the whole answer and then
	// cuts the connection: the server has committed and the client cannot know.
	LoseReply bool
	// TruncateBody cuts the connection after this many bytes of the answer's
	// body; 0 leaves it whole.
	TruncateBody int64
}

// Proxy is a reverse proxy in front of a real server that records every
// request and can spoil some. The signature stays valid: it covers the Host
// that the client used, and the proxy passes that on unchanged.
type Proxy struct {
	rp     *httputil.ReverseProxy
	server *Server

	mu       sync.Mutex
	requests []*proxyRecord
	fault    func(ProxyRequest) ProxyEffect
	listings struct{ now, most int }
}

// proxyRecord is a request whose last fields are still being written.
type proxyRecord struct {
	ProxyRequest
	body   atomic.Int64
	status atomic.Int64
}

// StartProxy serves a proxy to upstream on a free loopback port until the test
// ends. Only plain http upstreams are supported.
func StartProxy(t testing.TB, upstream *Server) *Proxy {
	t.Helper()
	target, err := url.Parse(upstream.Endpoint)
	if err != nil || target.Scheme != "http" {
		t.Fatalf("proxy to %q: need a plain http endpoint (%v)", upstream.Endpoint, err)
	}
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	p := &Proxy{}
	p.rp = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			// The path is passed on as it was escaped: it is signed, too.
			r.Out.URL.Path, r.Out.URL.RawPath = r.In.URL.Path, r.In.URL.RawPath
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0), // the client's own error tells
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
		transport.CloseIdleConnections()
	})
	s := *upstream
	s.Name, s.Endpoint, s.proc = upstream.Name+"-proxy", "http://"+l.Addr().String(), nil
	p.server = &s
	return p
}

// Server returns the proxy as a server to configure a client with.
func (p *Proxy) Server() *Server { return p.server }

// Inject sets the function that decides for each request what happens to it,
// called before anything is passed on; nil lets all pass. It is called by many
// goroutines at a time, and sees neither BodyBytes nor Status.
func (p *Proxy) Inject(fault func(ProxyRequest) ProxyEffect) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// Requests returns what has arrived so far, in that order.
func (p *Proxy) Requests() []ProxyRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]ProxyRequest, len(p.requests))
	for i, r := range p.requests {
		out[i] = r.ProxyRequest
		out[i].BodyBytes, out[i].Status = r.body.Load(), int(r.status.Load())
	}
	return out
}

// ResetRequests forgets what was recorded.
func (p *Proxy) ResetRequests() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
}

// Listings returns how many pages of listings are being answered, and how many
// were at most at a time since it was called last.
func (p *Proxy) Listings() (now, most int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, most = p.listings.now, p.listings.most
	p.listings.most = now
	return now, most
}

// isListing reports whether a verb asks for a page of a listing.
func isListing(verb string) bool { return verb == "ListObjects" || verb == "ListObjectsV2" }

// note records a request, and returns what is to be done when it has ended.
func (p *Proxy) note(rec *proxyRecord) (fault func(ProxyRequest) ProxyEffect, end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, rec)
	if !isListing(rec.Verb) {
		return p.fault, func() {}
	}
	p.listings.now++
	p.listings.most = max(p.listings.most, p.listings.now)
	return p.fault, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.listings.now--
	}
}

// ServeHTTP records r, applies the fault, and passes it on.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &proxyRecord{ProxyRequest: describe(r)}
	fault, end := p.note(rec)
	defer end()
	var effect ProxyEffect
	if fault != nil {
		effect = fault(rec.ProxyRequest)
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &countedBody{ReadCloser: r.Body, n: &rec.body}
	}
	if effect.Delay > 0 {
		select {
		case <-time.After(effect.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if effect.Status != 0 {
		rec.status.Store(int64(effect.Status))
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(effect.Status)
		_, _ = io.WriteString(w, "<Error><Code>"+effect.Code+"</Code><Message>injected</Message></Error>")
		return
	}
	if effect.PageKeys > 0 && isListing(rec.Verb) {
		var err error
		if r, err = p.shortened(r, effect.PageKeys); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	out := &spoiledWriter{ResponseWriter: w, effect: effect, status: &rec.status}
	p.rp.ServeHTTP(out, r)
	if effect.LoseReply {
		rec.status.Store(0)
		panic(http.ErrAbortHandler) // net/http's way to cut the connection
	}
}

// shortened returns the listing that r asks for with pages of so many keys. The
// query is signed, so it is signed again.
func (p *Proxy) shortened(r *http.Request, keys int) (*http.Request, error) {
	short, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), nil)
	if err != nil {
		return nil, err
	}
	q := short.URL.Query()
	if asked, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		keys = min(keys, asked)
	}
	q.Set("max-keys", strconv.Itoa(keys))
	short.URL.RawQuery = q.Encode()
	short.Host = r.Host
	const ofNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256
	short.Header.Set("X-Amz-Content-Sha256", ofNothing)
	who := aws.Credentials{AccessKeyID: p.server.AccessKeyID, SecretAccessKey: p.server.SecretAccessKey}
	return short, v4.NewSigner().SignHTTP(r.Context(), who, short, ofNothing, "s3", p.server.Region, time.Now())
}

// countedBody counts the bytes that are read from a request's body.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read reads and counts.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// spoiledWriter passes an answer on as far as the effect lets it.
type spoiledWriter struct {
	http.ResponseWriter
	effect  ProxyEffect
	status  *atomic.Int64
	written int64
}

// WriteHeader notes the status; a reply that is to be lost stays here.
func (w *spoiledWriter) WriteHeader(status int) {
	w.status.Store(int64(status))
	if !w.effect.LoseReply {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write passes p on, up to where the body is to be cut.
func (w *spoiledWriter) Write(p []byte) (int, error) {
	if w.effect.LoseReply {
		return len(p), nil
	}
	limit := w.effect.TruncateBody
	if limit > 0 && w.written+int64(len(p)) > limit {
		n, _ := w.ResponseWriter.Write(p[:limit-w.written])
		w.written += int64(n)
		http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// Unwrap lets net/http find the optional methods of the writer below, which
// write nothing by themselves.
func (w *spoiledWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// describe returns what is known of r before its body has passed.
func describe(r *http.Request) ProxyRequest {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return ProxyRequest{Time: time.Now(), Verb: VerbOf(r), Bucket: bucket, Key: key, Headers: names}
}

// VerbOf names the S3 operation that a path-style request asks for, as the S3
// API reference spells it, and "Other" for one that is not known here.
func VerbOf(r *http.Request) string {
	q := r.URL.Query()
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	copied := r.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case bucket == "":
		if r.Method == http.MethodGet {
			return "ListBuckets"
		}
		return "Other"
	case key == "":
		return bucketVerb(r.Method, q)
	}
	switch r.Method {
	case http.MethodHead:
		return "HeadObject"
	case http.MethodGet:
		switch {
		case q.Has("uploadId"):
			return "ListParts"
		case q.Has("tagging"):
			return "GetObjectTagging"
		case q.Has("attributes"):
			return "GetObjectAttributes"
		}
		return "GetObject"
	case http.MethodPut:
		switch {
		case q.Has("uploadId") && copied:
			return "UploadPartCopy"
		case q.Has("uploadId"):
			return "UploadPart"
		case q.Has("tagging"):
			return "PutObjectTagging"
		case copied:
			return "CopyObject"
		}
		return "PutObject"
	case http.MethodPost:
		switch {
		case q.Has("uploads"):
			return "CreateMultipartUpload"
		case q.Has("uploadId"):
			return "CompleteMultipartUpload"
		}
	case http.MethodDelete:
		switch {
		case q.Has("uploadId"):
			return "AbortMultipartUpload"
		case q.Has("tagging"):
			return "DeleteObjectTagging"
		}
		return "DeleteObject"
	}
	return "Other"
}

// bucketVerb names an operation on a bucket.
func bucketVerb(method string, q url.Values) string {
	switch method {
	case http.MethodHead:
		return "HeadBucket"
	case http.MethodGet:
		switch {
		case q.Has("encryption"):
			return "GetBucketEncryption"
		case q.Has("location"):
			return "GetBucketLocation"
		case q.Has("versioning"):
			return "GetBucketVersioning"
		case q.Has("versions"):
			return "ListObjectVersions"
		case q.Has("uploads"):
			return "ListMultipartUploads"
		case q.Get("list-type") == "2":
			return "ListObjectsV2"
		}
		return "ListObjects"
	case http.MethodPut:
		switch {
		case q.Has("encryption"):
			return "PutBucketEncryption"
		case q.Has("versioning"):
			return "PutBucketVersioning"
		}
		return "CreateBucket"
	case http.MethodPost:
		if q.Has("delete") {
			return "DeleteObjects"
		}
	case http.MethodDelete:
		if q.Has("encryption") {
			return "DeleteBucketEncryption"
		}
		return "DeleteBucket"
	}
	return "Other"
}
