package s3store

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/httpbinding"
	"github.com/stretchr/testify/require"
)

// FuzzSignature compares our signatures with the SDK's.
func FuzzSignature(f *testing.F) {
	f.Add("dir/a b+c%41", "pre fix+&=", "  two  blanks ", "secret", "token", int64(1764000000))
	f.Add("grüße/日本", "", "", "", "", int64(0))
	f.Fuzz(func(t *testing.T, key, prefix, value, secret, token string, at int64) {
		if !isPrintableASCII(value) || at < 0 || at > 4e9 {
			return // no header has such a value
		}
		creds := aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: secret, SessionToken: token}
		now := time.Unix(at, 0)
		request := func() *http.Request {
			return &http.Request{
				Method: http.MethodPut, Host: "bucket.example.org",
				URL:    &url.URL{Scheme: "https", Host: "bucket.example.org", Path: "/" + key, RawPath: "/" + httpbinding.EscapePath(key, false), RawQuery: encoded(url.Values{"prefix": {prefix}, "a": {"b"}})},
				Header: http.Header{"X-Amz-Meta-Name": {value}, "X-Amz-Content-Sha256": {unsignedPayload}, "If-Match": {`"tag"`}, "User-Agent": {"x"}},
			}
		}
		want, got := request(), request()
		require.NoError(t, v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).
			SignHTTP(t.Context(), creds, want, unsignedPayload, "s3", "eu-west-1", now))
		(&signer{}).sign(got, creds, "eu-west-1", unsignedPayload, now)
		require.Equal(t, want.Header, got.Header)
	})
}

// TestSignerKeepsTheRightKey changes what a key is derived from.
func TestSignerKeepsTheRightKey(t *testing.T) {
	day := time.Date(2026, 1, 2, 23, 59, 59, 0, time.UTC)
	same := &signer{}
	for _, c := range []struct {
		id, secret, region string
		now                time.Time
	}{
		{"a", "1", "r", day}, {"a", "2", "r", day}, {"b", "2", "r", day}, {"b", "2", "s", day}, {"b", "2", "s", day.Add(time.Second)}, {"a", "1", "r", day},
	} {
		sign := func(s *signer) string {
			req := &http.Request{Method: http.MethodGet, Host: "h", URL: &url.URL{}, Header: http.Header{}}
			s.sign(req, aws.Credentials{AccessKeyID: c.id, SecretAccessKey: c.secret}, c.region, emptyPayload, c.now)
			return req.Header.Get("Authorization")
		}
		require.Equal(t, sign(&signer{}), sign(same))
	}
}

// TestTokenGoesWithItsCredentials: a request may be signed again by others that
// have none.
func TestTokenGoesWithItsCredentials(t *testing.T) {
	req := &http.Request{Method: http.MethodGet, Host: "h", URL: &url.URL{}, Header: http.Header{}}
	for _, token := range []string{"one", "two", ""} {
		(&signer{}).sign(req, aws.Credentials{AccessKeyID: "a", SecretAccessKey: "s", SessionToken: token}, "r", emptyPayload, time.Now())
		require.Equal(t, token, req.Header.Get("X-Amz-Security-Token"))
		require.Equal(t, token != "", strings.Contains(req.Header.Get("Authorization"), "x-amz-security-token"))
	}
}
