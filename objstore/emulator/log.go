package emulator

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Request is what the server remembers of one request. It holds no credential:
// the Authorization header and the signature of a presigned URL are left out.
type Request struct {
	Time time.Time
	// Verb is the operation's name in the S3 API reference: "PutObject",
	// "ListObjectsV2", ...; "Unknown" for what no verb of this server is.
	Verb        string
	Bucket, Key string
	Method      string
	RawQuery    string
	Header      http.Header
	// Status is what the client was answered; 0 when a fault lost the answer.
	Status int
	// Processed is the status that processing came to; it differs from Status
	// only where a fault lost the answer.
	Processed int
	// BodyBytes and RespBytes count the bodies as they went over the wire. As
	// long as an answer is under way RespBytes is what it announced.
	BodyBytes, RespBytes int64
	// Code is S3's error code, "" on success.
	Code string
}

// redactHeader returns a copy without credentials and keys.
func redactHeader(h http.Header) http.Header {
	h = h.Clone()
	h.Del("Authorization")
	for name := range h {
		if name == "X-Amz-Security-Token" || strings.HasSuffix(name, "-Customer-Key") {
			h.Set(name, "REDACTED")
		}
	}
	return h
}

// redactQuery takes the signature of a presigned URL out of a query.
func redactQuery(raw string) string {
	if !strings.Contains(raw, "X-Amz-") {
		return raw
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return ""
	}
	q.Del("X-Amz-Signature")
	q.Del("X-Amz-Security-Token")
	return q.Encode()
}

// requestLog keeps the latest max requests. Safe for concurrent use.
type requestLog struct {
	max  int
	mu   sync.Mutex
	ring []*Request
	next int // where the oldest is, once the ring is full
}

// add appends r after fill has completed it. Both are changed only under the
// log's lock from then on.
func (l *requestLog) add(r *Request, fill func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fill()
	if len(l.ring) < l.max {
		l.ring = append(l.ring, r)
		return
	}
	l.ring[l.next] = r
	l.next = (l.next + 1) % l.max
}

// change runs fill, which completes a request that was added before.
func (l *requestLog) change(fill func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fill()
}

func (l *requestLog) all() []Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Request, 0, len(l.ring))
	for i := range l.ring {
		out = append(out, *l.ring[(l.next+i)%len(l.ring)])
	}
	return out
}

func (l *requestLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring, l.next = nil, 0
}
