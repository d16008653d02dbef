package emulator

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The values of x-amz-content-sha256 that are not a hash, from "Signature
// Calculations for the Authorization Header" of the S3 API reference.
const (
	unsignedPayload        = "UNSIGNED-PAYLOAD"
	streamingUnsigned      = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamingSigned        = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamingSignedTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
)

const (
	algorithmV4 = "AWS4-HMAC-SHA256"
	timeFormat  = "20060102T150405Z"
	// maxSkew is how far a client's clock may be off.
	maxSkew = 15 * time.Minute
	// maxExpiry is the longest life of a presigned URL.
	maxExpiry = 7 * 24 * time.Hour
)

// credentials are the one account of a server.
type credentials struct{ accessKeyID, secret, region string }

// signature is a verified request: what the body still has to be checked by.
type signature struct {
	payload string // x-amz-content-sha256
	// The rest seeds the chunk signatures of a streaming payload.
	key   []byte
	date  string // in timeFormat
	scope string
	value string // the request's signature in hex
}

// claim is what a request says about its signature, before it is checked.
type claim struct {
	credential    string
	signedHeaders []string
	signature     string
	date          string
	payload       string
	presigned     bool
	expires       time.Duration
}

// verify checks the signature of a request to S3. query is r's parsed query.
func (c credentials) verify(r *http.Request, query url.Values, now time.Time) (*signature, error) {
	return c.verifyFor("s3", "", r, query, now)
}

// verifyFor checks the signature of a request to one of AWS' services.
// payload is the hash of the body in hex; "" takes what the request says.
func (c credentials) verifyFor(service, payload string, r *http.Request, query url.Values, now time.Time) (*signature, error) {
	cl, err := readClaim(r, query, payload)
	if err != nil {
		return nil, err
	}
	scopeParts := strings.Split(cl.credential, "/")
	if len(scopeParts) < 5 {
		return nil, fail("AuthorizationHeaderMalformed", "The authorization header is malformed; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
	}
	// An access key id may hold slashes, the scope has four parts.
	n := len(scopeParts) - 4
	accessKeyID, scope := strings.Join(scopeParts[:n], "/"), scopeParts[n:]
	if accessKeyID != c.accessKeyID {
		return nil, fail("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.").with("AWSAccessKeyId", accessKeyID)
	}
	if scope[1] != c.region {
		return nil, fail("AuthorizationHeaderMalformed", "The authorization header is malformed; the region '%s' is wrong; expecting '%s'", scope[1], c.region).with("Region", c.region)
	}
	if scope[2] != service || scope[3] != "aws4_request" {
		return nil, fail("AuthorizationHeaderMalformed", "The authorization header is malformed; incorrect service or terminator in the credential scope.")
	}
	signed, err := time.Parse(timeFormat, cl.date)
	if err != nil || !strings.HasPrefix(cl.date, scope[0]) {
		return nil, fail("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
	}
	if err := checkTime(cl, signed, now); err != nil {
		return nil, err
	}
	if err := allSigned(r, cl); err != nil {
		return nil, err
	}
	key := signingKey(c.secret, scope[0], scope[1], scope[2])
	scopeText := strings.Join(scope, "/")
	canonical := canonicalRequest(r, query, cl)
	want := hexHMAC(key, stringToSign(cl.date, scopeText, canonical))
	if !hmac.Equal([]byte(want), []byte(cl.signature)) {
		return nil, fail("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.").
			with("AWSAccessKeyId", accessKeyID).with("SignatureProvided", cl.signature).with("CanonicalRequest", canonical)
	}
	if r.Header.Get("X-Amz-Security-Token") != "" || query.Get("X-Amz-Security-Token") != "" {
		return nil, fail("InvalidToken", "The provided token is malformed or otherwise invalid: this server knows no session tokens.")
	}
	return &signature{payload: cl.payload, key: key, date: cl.date, scope: scopeText, value: cl.signature}, nil
}

// readClaim finds the signature of a request in its headers or its query.
// payload, unless it is "", stands for the header that only S3 knows.
func readClaim(r *http.Request, query url.Values, payload string) (claim, error) {
	if query.Has("X-Amz-Algorithm") || query.Has("X-Amz-Signature") {
		return readQueryClaim(r, query)
	}
	auth := r.Header.Get("Authorization")
	if auth == "" {
		if query.Has("Signature") && query.Has("AWSAccessKeyId") {
			return claim{}, errOldSignature()
		}
		return claim{}, fail("AccessDenied", "Access Denied: this server takes no anonymous requests.")
	}
	rest, ok := strings.CutPrefix(auth, algorithmV4+" ")
	if !ok {
		return claim{}, errOldSignature()
	}
	cl := claim{date: r.Header.Get("X-Amz-Date")}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "Credential":
			cl.credential = value
		case "SignedHeaders":
			cl.signedHeaders = strings.Split(value, ";")
		case "Signature":
			cl.signature = value
		}
	}
	if cl.credential == "" || cl.signature == "" || len(cl.signedHeaders) == 0 {
		return claim{}, fail("AuthorizationHeaderMalformed", "The authorization header is malformed; it lacks Credential, SignedHeaders or Signature.")
	}
	if cl.date == "" {
		t, err := http.ParseTime(r.Header.Get("Date"))
		if err != nil {
			return claim{}, fail("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
		}
		cl.date = t.UTC().Format(timeFormat)
	}
	if cl.payload = payload; payload == "" {
		cl.payload = r.Header.Get("X-Amz-Content-Sha256")
	}
	if cl.payload == "" {
		return claim{}, fail("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
	}
	return cl, validPayload(cl.payload)
}

func readQueryClaim(r *http.Request, query url.Values) (claim, error) {
	for _, name := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		if query.Get(name) == "" {
			return claim{}, fail("AuthorizationQueryParametersError", "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
		}
	}
	if query.Get("X-Amz-Algorithm") != algorithmV4 {
		return claim{}, errOldSignature()
	}
	seconds, err := strconv.ParseInt(query.Get("X-Amz-Expires"), 10, 64)
	if err != nil || seconds < 0 || seconds > int64(maxExpiry/time.Second) {
		return claim{}, fail("AuthorizationQueryParametersError", "X-Amz-Expires must be between 0 and %d seconds", int64(maxExpiry/time.Second))
	}
	cl := claim{
		credential:    query.Get("X-Amz-Credential"),
		signedHeaders: strings.Split(query.Get("X-Amz-SignedHeaders"), ";"),
		signature:     query.Get("X-Amz-Signature"),
		date:          query.Get("X-Amz-Date"),
		payload:       unsignedPayload,
		presigned:     true,
		expires:       time.Duration(seconds) * time.Second,
	}
	if v := r.Header.Get("X-Amz-Content-Sha256"); v != "" {
		cl.payload = v
	} else if v := query.Get("X-Amz-Content-Sha256"); v != "" {
		cl.payload = v
	}
	return cl, validPayload(cl.payload)
}

func errOldSignature() *apiError {
	return fail("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
}

func validPayload(v string) error {
	switch v {
	case unsignedPayload, streamingUnsigned, streamingSigned, streamingSignedTrailer:
		return nil
	}
	if b, err := hex.DecodeString(v); err != nil || len(b) != sha256.Size {
		return fail("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.").
			with("ArgumentName", "x-amz-content-sha256").with("ArgumentValue", v)
	}
	return nil
}

// checkTime refuses requests that are too old or from the future.
func checkTime(cl claim, signed, now time.Time) error {
	skew := now.Sub(signed)
	if cl.presigned {
		switch {
		case skew < -maxSkew:
			return fail("AccessDenied", "Request is not yet valid")
		case skew > cl.expires:
			return fail("AccessDenied", "Request has expired").with("X-Amz-Expires", strconv.FormatInt(int64(cl.expires/time.Second), 10))
		}
		return nil
	}
	if skew > maxSkew || skew < -maxSkew {
		return fail("RequestTimeTooSkewed", "The difference between the request time and the current time is too large.").
			with("RequestTime", cl.date).with("ServerTime", now.UTC().Format(time.RFC3339)).
			with("MaxAllowedSkewMilliseconds", strconv.FormatInt(maxSkew.Milliseconds(), 10))
	}
	return nil
}

// allSigned demands that host and every x-amz- header are signed: a header
// that is not could be changed on the way.
func allSigned(r *http.Request, cl claim) error {
	if !slices.Contains(cl.signedHeaders, "host") {
		return fail("AccessDenied", "There were headers present in the request which were not signed").with("HeadersNotSigned", "host")
	}
	for name := range r.Header {
		lower := strings.ToLower(name)
		if strings.HasPrefix(lower, "x-amz-") && !slices.Contains(cl.signedHeaders, lower) && (!cl.presigned || lower != "x-amz-content-sha256") {
			return fail("AccessDenied", "There were headers present in the request which were not signed").with("HeadersNotSigned", lower)
		}
	}
	return nil
}

func canonicalRequest(r *http.Request, query url.Values, cl claim) string {
	var b strings.Builder
	b.WriteString(r.Method)
	b.WriteByte('\n')
	b.WriteString(uriEncode(r.URL.Path, false))
	b.WriteByte('\n')
	b.WriteString(canonicalQuery(query, cl.presigned))
	b.WriteByte('\n')
	for _, name := range cl.signedHeaders {
		b.WriteString(name)
		b.WriteByte(':')
		b.WriteString(headerText(r, name))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(cl.signedHeaders, ";"))
	b.WriteByte('\n')
	b.WriteString(cl.payload)
	return b.String()
}

// headerText returns a header's canonical value. net/http keeps some headers
// outside the map.
func headerText(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		if r.ContentLength >= 0 {
			return strconv.FormatInt(r.ContentLength, 10)
		}
	case "transfer-encoding":
		return strings.Join(r.TransferEncoding, ",")
	}
	values := r.Header.Values(name)
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(trimmed, ",")
}

// canonicalQuery sorts by name and then by value: sorting the joined pairs
// would put "a-b=" before "a=".
func canonicalQuery(query url.Values, presigned bool) string {
	var pairs [][2]string
	for name, values := range query {
		if presigned && name == "X-Amz-Signature" {
			continue
		}
		for _, v := range values {
			pairs = append(pairs, [2]string{uriEncode(name, true), uriEncode(v, true)})
		}
	}
	slices.SortFunc(pairs, func(a, b [2]string) int {
		return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1]))
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + p[1])
	}
	return b.String()
}

// uriEncode escapes every byte but RFC 3986's unreserved characters and, in a
// path, the slash.
func uriEncode(s string, slash bool) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s))
	for _, c := range []byte(s) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~', c == '/' && !slash:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

func stringToSign(date, scope, canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return algorithmV4 + "\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
}

func signingKey(secret, day, region, service string) []byte {
	key := hmacSHA256([]byte("AWS4"+secret), day)
	key = hmacSHA256(key, region)
	key = hmacSHA256(key, service)
	return hmacSHA256(key, "aws4_request")
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexHMAC(key []byte, text string) string { return hex.EncodeToString(hmacSHA256(key, text)) }
