package s3store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// What stands for the body in a signature. Uploads leave it out: every body
// carries a CRC32 or an MD5 in a signed header, and a SHA-256 on top would
// cost more than all the rest of an upload.
const (
	emptyPayload    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	unsignedPayload = "UNSIGNED-PAYLOAD"
)

// signer makes signatures of version 4, as described in "Authenticating
// Requests: Using the Authorization Header" of the S3 API reference. It keeps
// the keys that are derived for a day. Safe for concurrent use.
type signer struct {
	mu   sync.Mutex
	keys map[string]derivedKey // by region
}

// derivedKey is the key for one day of a secret.
type derivedKey struct {
	secret, day string
	key         []byte
}

// notSigned are headers that are changed or added on the way.
var notSigned = map[string]bool{"Authorization": true, "User-Agent": true, "Accept-Encoding": true, "Expect": true}

// sign adds the headers that prove req to be of c: now is the store's time,
// payload what stands for the body. The URL's query must be encoded as it is
// signed.
func (s *signer) sign(req *http.Request, c aws.Credentials, region, payload string, now time.Time) {
	stamp := now.UTC().Format("20060102T150405Z")
	h := req.Header
	h["X-Amz-Date"] = []string{stamp}
	h["X-Amz-Content-Sha256"] = []string{payload}
	delete(h, "X-Amz-Security-Token") // of an attempt with other credentials
	if c.SessionToken != "" {
		h["X-Amz-Security-Token"] = []string{c.SessionToken}
	}
	type line struct{ name, value string }
	lines := append(make([]line, 0, 24), line{"host", req.Host})
	for name, values := range h {
		if !notSigned[name] {
			lines = append(lines, line{strings.ToLower(name), trimmed(strings.Join(values, ","))})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	names := make([]byte, 0, 512)
	canonical := make([]byte, 0, 1024)
	path := req.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	canonical = append(canonical, req.Method+"\n"+path+"\n"+req.URL.RawQuery+"\n"...)
	for i, l := range lines {
		if i > 0 {
			names = append(names, ';')
		}
		names = append(names, l.name...)
		canonical = append(append(append(append(canonical, l.name...), ':'), l.value...), '\n')
	}
	canonical = append(append(append(canonical, '\n'), names...), "\n"+payload...)
	sum := sha256.Sum256(canonical)
	scope := stamp[:8] + "/" + region + "/s3/aws4_request"
	text := "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	signature := hex.EncodeToString(mac(s.key(c.SecretAccessKey, stamp[:8], region), text))
	h["Authorization"] = []string{"AWS4-HMAC-SHA256 Credential=" + c.AccessKeyID + "/" + scope +
		", SignedHeaders=" + string(names) + ", Signature=" + signature}
}

// trimmed is a header's value as it is signed: blanks in a row count as one.
func trimmed(v string) string {
	v = strings.TrimSpace(v)
	for strings.Contains(v, "  ") {
		v = strings.ReplaceAll(v, "  ", " ")
	}
	return v
}

// key returns the key of a secret for a day.
func (s *signer) key(secret, day, region string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[region]
	if k.secret != secret || k.day != day {
		key := []byte("AWS4" + secret)
		for _, part := range []string{day, region, "s3", "aws4_request"} {
			key = mac(key, part)
		}
		k = derivedKey{secret, day, key}
		if s.keys == nil {
			s.keys = map[string]derivedKey{}
		}
		s.keys[region] = k
	}
	return k.key
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum(nil)
}
