package s3store

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"coffer/objstore"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// wire sends the requests that come by the thousand, those of single objects,
// of parts and of listings. The SDK would double what such a request costs: it
// builds some forty layers anew for each, see BenchmarkSmall and the figures in
// e2e/BENCH.md. All other requests go through its client. Both share
// connections, credentials, the retryer, encryption headers and the types of
// errors, so that nothing else here knows which way a request went.
type wire struct {
	s *Store
	// at is where the bucket is.
	at     func() (endpoint, error)
	client *httpClient
	retry  *retryer
}

func (s *Store) wireTo(bucket, region string) *wire {
	return &wire{
		s: s, at: sync.OnceValues(func() (endpoint, error) { return s.endpointOf(bucket, region) }),
		client: &httpClient{transport: s.transport, patience: s.patience}, retry: newRetryer(s.creds),
	}
}

// request is one request with its repetitions. Its headers are sent as they
// are; those of encryption and signature are added.
type request struct {
	verb   string // as in sseVerbs
	method string
	key    string // "" for the bucket
	query  url.Values
	header http.Header
	// body returns a reader of the length bytes to be sent, for each attempt.
	body   func() *partReader
	length int64
	// read takes the reply's body; what fails here is repeated too. Nil passes
	// over it.
	read func(*http.Response) error
	// open leaves the reply's body to the caller.
	open bool
}

// newRequest returns a request without a body.
func newRequest(verb, method, key string) *request {
	return &request{verb: verb, method: method, key: key, header: make(http.Header, 16)}
}

// set adds a header unless value is "".
func (r *request) set(name, value string) {
	if value != "" {
		r.header[name] = []string{value}
	}
}

// version asks for one version of the object, "" for the newest.
func (r *request) version(id string) {
	if id != "" {
		r.query = url.Values{"versionId": {id}}
	}
}

// inOneWrite is the length in bytes of a body that goes out together with the
// headers, for which it is copied. Requests with larger ones go through net/http,
// which listens to a refusal while it sends.
const inOneWrite = 256 << 10

// continueFrom is the length in bytes of a body that is not sent before the
// server wants it, as with the SDK.
const continueFrom = 2 << 20

// send sends r until it succeeds, is refused for good or ctx ends.
func (w *wire) send(ctx context.Context, r *request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		skew := time.Duration(w.s.skew.Load())
		resp, err := w.once(ctx, r, time.Now().Add(skew))
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil || !w.learnSkew(err, skew) && !w.retry.IsErrorRetryable(err) {
			return nil, err
		}
		if _, refused := w.retry.GetRetryToken(ctx, err); refused != nil {
			return nil, errors.Join(err, refused)
		}
		pause, perr := w.retry.RetryDelay(attempt, err)
		if perr != nil {
			return nil, errors.Join(err, perr)
		}
		w.s.log.Debug("repeating a request", "verb", r.verb, "key", r.key, "attempt", attempt, "pause", pause, "error", err)
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
		r.header = r.header.Clone() // the connection given up may still read the old one
	}
}

// learnSkew takes over the store's time from a refusal, and reports whether the
// request was refused because it was signed by quite another.
func (w *wire) learnSkew(err error, skew time.Duration) bool {
	if statusOf(err) != http.StatusForbidden {
		return false
	}
	date, perr := http.ParseTime(headerOf(err, "Date"))
	if perr != nil {
		return false
	}
	now := time.Until(date)
	if (now - skew).Abs() <= maxSkew {
		return false
	}
	w.s.skew.Store(int64(now))
	return codeOf(err) == "RequestTimeTooSkewed"
}

// once sends r signed at a time by the store's clock.
func (w *wire) once(ctx context.Context, r *request, now time.Time) (*http.Response, error) {
	at, err := w.at()
	if err != nil {
		return nil, err
	}
	u := at.url
	if r.key != "" {
		u.Path = strings.TrimSuffix(at.url.Path, "/") + "/" + r.key
		u.RawPath = strings.TrimSuffix(at.url.EscapedPath(), "/") + "/" + httpbinding.EscapePath(r.key, false)
	}
	u.RawQuery = encoded(r.query)
	req := &http.Request{Method: r.method, URL: &u, Host: u.Host, Header: r.header, ContentLength: r.length}
	r.set("User-Agent", w.s.cfg.UserAgent)
	r.set("Accept-Encoding", "identity")
	if w.s.cfg.RequesterPays {
		r.set("X-Amz-Request-Payer", "requester")
	}
	if err := w.s.keys.set(ctx, r.verb, r.header); err != nil {
		return nil, err
	}
	payload := emptyPayload
	if r.body != nil {
		payload = unsignedPayload
		if r.length > 0 {
			body := newSentBody(r.body())
			defer body.Close()
			req.Body = body
		}
		if r.length >= continueFrom {
			r.set("Expect", "100-continue")
		}
	}
	if w.s.creds != nil {
		c, err := w.s.creds.Retrieve(ctx)
		if err != nil {
			return nil, err
		}
		w.s.signer.sign(req, c, at.region, payload, now)
	}
	exchange := w.client.exchange
	if r.length <= inOneWrite && w.s.conns.takes(req) {
		exchange = w.s.conns.exchange
	}
	resp, err := exchange(ctx, req)
	if err != nil {
		return nil, &smithyhttp.RequestSendError{Err: err}
	}
	if resp.StatusCode/100 != 2 {
		return nil, refusal(resp)
	}
	if r.open {
		return resp, nil
	}
	defer resp.Body.Close()
	if r.read != nil {
		return resp, r.read(resp)
	}
	return resp, late(resp)
}

// encoded is a query as it is sent and signed: a blank is %20, and a plus is
// %2B already.
func encoded(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }

// decodeXML decodes text, the body of resp: a document whose root is name.
func decodeXML(resp *http.Response, text []byte, name string, into any) error {
	dec, start, err := rootOf(text)
	switch {
	case err != nil:
		return fmt.Errorf("%w: the reply is no document: %w", objstore.Integrity, err)
	case start.Name.Local == "Error":
		return lateRefusal(resp, text)
	case start.Name.Local != name:
		return fmt.Errorf("%w: the reply is a %q", objstore.Integrity, start.Name.Local)
	}
	if err := dec.DecodeElement(into, &start); err != nil {
		return fmt.Errorf("%w: %w", objstore.Integrity, err)
	}
	return nil
}

// late reads the body of a reply whose headers tell all, and returns the refusal
// that is in it, nil without one.
func late(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil || len(text) == 0 {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body) // for the connection
	if _, start, err := rootOf(text); err == nil && start.Name.Local == "Error" {
		return lateRefusal(resp, text)
	}
	return nil
}

// rootOf returns the first element of a document, and a decoder of what follows.
func rootOf(text []byte) (*xml.Decoder, xml.StartElement, error) {
	dec := xml.NewDecoder(bytes.NewReader(text))
	for {
		tok, err := dec.Token()
		if err != nil {
			return nil, xml.StartElement{}, err
		}
		if start, ok := tok.(xml.StartElement); ok {
			return dec, start, nil
		}
	}
}

// lateRefusal is the error that text stands for, the body of a reply of success:
// some servers find out that late. The SDK takes it for a 500 as well; see isLate.
func lateRefusal(resp *http.Response, text []byte) error {
	resp.StatusCode = http.StatusInternalServerError
	resp.Body = io.NopCloser(bytes.NewReader(text))
	return refusal(resp)
}

// maxRefusal is how many bytes of a refusal are looked at.
const maxRefusal = 64 << 10

// refusal is the error that a reply stands for, as the SDK would have it.
func refusal(resp *http.Response) error {
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	var said struct{ Code, Message string }
	if err == nil {
		// What is no document, such as a proxy's text, has no code; see below.
		_ = xml.Unmarshal(text, &said)
		if said.Code == "" && said.Message == "" {
			said.Message = http.StatusText(resp.StatusCode) // replies to HEAD say no more
			said.Code = strings.ReplaceAll(said.Message, " ", "")
		}
		err = &smithy.GenericAPIError{Code: said.Code, Message: said.Message}
	}
	return &awshttp.ResponseError{
		ResponseError: &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: err},
		RequestID:     resp.Header.Get("X-Amz-Request-Id"),
	}
}
