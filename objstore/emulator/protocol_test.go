package emulator_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// raw sends a signed request as it stands.
func raw(t *testing.T, s *emulator.Server, method, target string, body []byte, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.Endpoint()+target, bytes.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Content-Sha256", hash)
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	require.NoError(t, signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, r, hash, "s3", "us-east-1", time.Now()))
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(b)
}

// TestUnknownIsRefused sends what this server does not know; it must never be
// taken for a plain verb: the object stays as it was.
func TestUnknownIsRefused(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", []byte("safe"))
	for _, tc := range []struct{ method, target string }{
		{"PUT", "/bucket/k?renameObject"}, {"PUT", "/bucket/k?encryption"}, {"PUT", "/bucket/k?append&position=4"},
		{"PUT", "/bucket/k?partNumber=1"}, {"PUT", "/bucket/k?unheardOf"}, {"DELETE", "/bucket/k?unheardOf"}, {"GET", "/bucket/k?torrent"},
		{"GET", "/bucket?policy"}, {"PUT", "/bucket?policy"}, {"DELETE", "/bucket?lifecycle"}, {"PUT", "/bucket?object-lock"},
		{"POST", "/bucket/k?select&select-type=2"}, {"POST", "/bucket"}, {"PATCH", "/bucket/k"}, {"POST", "/"}, {"DELETE", "/"},
	} {
		t.Run(tc.method+" "+tc.target, func(t *testing.T) {
			resp, body := raw(t, s, tc.method, tc.target, nil)
			require.Equal(t, http.StatusNotImplemented, resp.StatusCode, body)
			require.Contains(t, body, "<Code>NotImplemented</Code>")
			require.Equal(t, "safe", string(get(t, c, "k")))
			last := s.Requests()
			require.True(t, slices.ContainsFunc(last, func(r emulator.Request) bool { return r.Verb == "Unknown" && r.Code == "NotImplemented" }))
		})
	}
	t.Run("append by header", func(t *testing.T) {
		resp, body := raw(t, s, "PUT", "/bucket/k", []byte("x"), "X-Amz-Write-Offset-Bytes", "4")
		require.Equal(t, http.StatusNotImplemented, resp.StatusCode, body)
		require.Equal(t, "safe", string(get(t, c, "k")))
	})
	t.Run("a user's own query name is ignored", func(t *testing.T) {
		resp, body := raw(t, s, "GET", "/bucket/k?x-trace=1", nil)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "safe", body)
	})
}

func TestErrorForm(t *testing.T) {
	s, _ := bucketOn(t, emulator.Config{})
	resp, body := raw(t, s, "GET", "/bucket/missing%20key", nil)
	require.Equal(t, 404, resp.StatusCode)
	var doc struct {
		XMLName                       xml.Name `xml:"Error"`
		Code, Message, Key, RequestID string
		RequestId                     string
	}
	require.NoError(t, xml.Unmarshal([]byte(body), &doc))
	require.Equal(t, "NoSuchKey", doc.Code)
	require.Equal(t, "missing key", doc.Key)
	require.NotEmpty(t, doc.Message)
	require.Equal(t, resp.Header.Get("x-amz-request-id"), doc.RequestId)

	head, body := raw(t, s, "HEAD", "/bucket/missing", nil)
	require.Equal(t, 404, head.StatusCode)
	require.Empty(t, body)
	anonymous, err := http.Get(s.Endpoint() + "/bucket/k")
	require.NoError(t, err)
	anonymous.Body.Close()
	require.Equal(t, 403, anonymous.StatusCode)
	resp, _ = raw(t, s, "GET", "/bucket/%FF", nil)
	require.Equal(t, 400, resp.StatusCode)
	resp, body = raw(t, s, "PUT", "/bucket?versioning", []byte("<not xml"))
	require.Equal(t, 400, resp.StatusCode)
	require.Contains(t, body, "MalformedXML")
}

func TestResponseOverrides(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", []byte("x"))
	resp, _ := raw(t, s, "GET", "/bucket/k?response-content-type=text%2Fx&response-content-disposition=inline", nil)
	require.Equal(t, "text/x", resp.Header.Get("Content-Type"))
	require.Equal(t, "inline", resp.Header.Get("Content-Disposition"))
}

func TestPresigned(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	_ = s
	p := s3.NewPresignClient(c)
	up, err := p.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a b/ü+"), ServerSideEncryption: types.ServerSideEncryptionAes256})
	require.NoError(t, err)
	do := func(method, url string, h http.Header, body string) (int, string) {
		r, err := http.NewRequest(method, url, strings.NewReader(body))
		require.NoError(t, err)
		for name, v := range h {
			if name != "Host" {
				r.Header[name] = v
			}
		}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	status, body := do("PUT", up.URL, up.SignedHeader, "presigned")
	require.Equal(t, 200, status, body)
	down, err := p.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a b/ü+")})
	require.NoError(t, err)
	status, body = do("GET", down.URL, nil, "")
	require.Equal(t, 200, status)
	require.Equal(t, "presigned", body)
	status, _ = do("GET", strings.Replace(down.URL, "Expires=900", "Expires=901", 1), nil, "")
	require.Equal(t, 403, status)
	status, _ = do("DELETE", down.URL, nil, "")
	require.Equal(t, 403, status)
	for _, r := range s.Requests() {
		require.NotContains(t, r.RawQuery, "X-Amz-Signature")
		require.Empty(t, r.Header.Get("Authorization"))
	}
}

// TestTrailersOverTLS reaches STREAMING-UNSIGNED-PAYLOAD-TRAILER, which the
// SDK uses only over TLS, by serving without Listen.
func TestTrailersOverTLS(t *testing.T) {
	s, err := emulator.New(emulator.Config{Dir: t.TempDir(), AccessKeyID: accessKey, SecretAccessKey: secretKey})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	srv := httptest.NewTLSServer(s)
	t.Cleanup(srv.Close)
	c := sdk(t, s, func(o *s3.Options) { o.BaseEndpoint, o.HTTPClient = &srv.URL, srv.Client() })
	_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	body := noise(1, 300_000)
	for _, a := range algorithms {
		s.ResetRequests()
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: io.LimitReader(bytes.NewReader(body), 1<<30), ContentLength: aws.Int64(int64(len(body))), ChecksumAlgorithm: a, ContentEncoding: aws.String("gzip")})
		require.NoError(t, err)
		require.Equal(t, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", s.Requests()[0].Header.Get("X-Amz-Content-Sha256"))
		require.Greater(t, s.Requests()[0].BodyBytes, int64(len(body)))
		head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
		require.NoError(t, err)
		require.Equal(t, "gzip", *head.ContentEncoding, "aws-chunked is not kept")
		require.Equal(t, body, get(t, c, "k"))
	}
}

func TestVirtualHostStyle(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	put(t, c, "dir/k", []byte("x"))
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	for _, host := range []string{"bucket.localhost", "bucket.s3.localhost:9000"} {
		r, err := http.NewRequest("GET", s.Endpoint()+"/dir/k", nil)
		require.NoError(t, err)
		r.Host = host
		r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		require.NoError(t, signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, r, "UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now()))
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode, host)
	}
}

func TestEnvAndListen(t *testing.T) {
	s, err := emulator.New(emulator.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	require.Empty(t, s.Endpoint())
	for _, bad := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "example.com:0", "127.0.0.1"} {
		require.Error(t, s.Listen(bad), bad)
	}
	require.NoError(t, s.Listen("localhost:0"))
	require.Error(t, s.Listen("127.0.0.1:0"))
	env := strings.Join(s.Env(), "\n")
	require.Regexp(t, `^AWS_ENDPOINT_URL=http://127\.0\.0\.1:\d+\nAWS_ACCESS_KEY_ID=AKIA[A-Z2-7]{16}\nAWS_SECRET_ACCESS_KEY=\w{40}\nAWS_REGION=us-east-1\nAWS_ENDPOINT_URL_KMS=http://127\.0\.0\.1:\d+$`, env)
	require.NoError(t, s.Close())
	require.Error(t, s.Listen("127.0.0.1:0"))
}

func TestConfigValidate(t *testing.T) {
	for name, cfg := range map[string]emulator.Config{
		"no directory":       {},
		"unknown dialect":    {Dir: "d", Dialect: "klingon"},
		"half a credential":  {Dir: "d", AccessKeyID: "x"},
		"negative idle time": {Dir: "d", IdleTimeout: -1},
		"negative log size":  {Dir: "d", LogSize: -1},
	} {
		require.Error(t, cfg.Validate(), name)
		_, err := emulator.New(cfg)
		require.Error(t, err, name)
	}
	require.NoError(t, emulator.Config{Dir: "d"}.Validate())
}

func TestRequestLog(t *testing.T) {
	s := start(t, emulator.Config{LogSize: 3})
	c := sdk(t, s)
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	put(t, c, "k", []byte("12345"))
	get(t, c, "k")
	_, err = tryGet(t.Context(), c, "absent")
	require.Error(t, err)
	var lines []string
	for _, r := range s.Requests() {
		lines = append(lines, fmt.Sprint(r.Verb, " ", r.Bucket, "/", r.Key, " ", r.Method, " ", r.Status, " ", r.Code, " ", r.BodyBytes, " ", r.RespBytes > 0))
	}
	require.Equal(t, []string{"PutObject bucket/k PUT 200  5 false", "GetObject bucket/k GET 200  0 true", "GetObject bucket/absent GET 404 NoSuchKey 0 true"}, lines)
	s.ResetRequests()
	require.Empty(t, s.Requests())
}

// ACLs are shown and cannot be set, as in every bucket that S3 makes today.
func TestACL(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", []byte("data"))
	acl, err := c.GetObjectAcl(t.Context(), &s3.GetObjectAclInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	require.Len(t, acl.Grants, 1)
	require.Equal(t, types.PermissionFullControl, acl.Grants[0].Permission)
	require.Equal(t, types.TypeCanonicalUser, acl.Grants[0].Grantee.Type)
	require.Equal(t, acl.Owner.ID, acl.Grants[0].Grantee.ID)
	_, err = c.GetBucketAcl(t.Context(), &s3.GetBucketAclInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	_, err = c.PutObjectAcl(t.Context(), &s3.PutObjectAclInput{Bucket: aws.String("bucket"), Key: aws.String("k"), ACL: types.ObjectCannedACLPublicRead})
	require.ErrorContains(t, err, "AccessControlListNotSupported")
	_, err = c.GetObjectAcl(t.Context(), &s3.GetObjectAclInput{Bucket: aws.String("bucket"), Key: aws.String("absent")})
	require.ErrorContains(t, err, "NoSuchKey")
}
