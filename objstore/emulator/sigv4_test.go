package emulator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"
)

// The examples of the S3 API reference, "Signature Calculations for the
// Authorization Header" and "Authenticating Requests: Using Query Parameters".
var (
	exampleCreds = credentials{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"}
	exampleTime  = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
)

const (
	emptySHA     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	exampleScope = "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
)

func exampleRequest(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Host = "examplebucket.s3.amazonaws.com"
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	r.Header.Set("X-Amz-Content-Sha256", emptySHA)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func verifyRequest(r *http.Request, c credentials, now time.Time) (*signature, error) {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	return c.verify(r, q, now)
}

func TestPublishedSignatures(t *testing.T) {
	auth := func(signed, sig string) string {
		return "AWS4-HMAC-SHA256 " + exampleScope + ",SignedHeaders=" + signed + ",Signature=" + sig
	}
	const plain = "host;x-amz-content-sha256;x-amz-date"
	for _, tc := range []struct {
		name string
		r    *http.Request
	}{
		{"get object", exampleRequest("GET", "/test.txt", "Range", "bytes=0-9", "Authorization",
			auth("host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"))},
		{"put object", exampleRequest("PUT", "/test$file.text", "Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY",
			"X-Amz-Content-Sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "Authorization",
			auth("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"))},
		{"get lifecycle", exampleRequest("GET", "/?lifecycle", "Authorization",
			auth(plain, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"))},
		{"list objects", exampleRequest("GET", "/?max-keys=2&prefix=J", "Authorization",
			auth(plain, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := verifyRequest(tc.r, exampleCreds, exampleTime)
			require.NoError(t, err)
			tc.r.URL.Path += "x"
			_, err = verifyRequest(tc.r, exampleCreds, exampleTime)
			requireCode(t, err, "SignatureDoesNotMatch")
		})
	}
	t.Run("presigned", func(t *testing.T) {
		r := httptest.NewRequest("GET", "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", nil)
		r.Host = "examplebucket.s3.amazonaws.com"
		_, err := verifyRequest(r, exampleCreds, exampleTime.Add(time.Hour))
		require.NoError(t, err)
		_, err = verifyRequest(r, exampleCreds, exampleTime.Add(25*time.Hour))
		requireCode(t, err, "AccessDenied")
	})
}

func requireCode(t testing.TB, err error, code string) {
	t.Helper()
	var e *apiError
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code)
}

// publishedChunks is the example of "Signature Calculations for the
// Authorization Header: Transferring Payload in Multiple Chunks": 65 KiB of
// the letter a in three chunks.
func publishedChunks() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n%s\r\n", strings.Repeat("a", 65536))
	fmt.Fprintf(&b, "400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n%s\r\n", strings.Repeat("a", 1024))
	b.WriteString("0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n")
	return b.Bytes()
}

func TestPublishedChunkSignatures(t *testing.T) {
	r := httptest.NewRequest("PUT", "/examplebucket/chunkObject.txt", bytes.NewReader(publishedChunks()))
	r.Host = "s3.amazonaws.com"
	for name, value := range map[string]string{
		"X-Amz-Date": "20130524T000000Z", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY", "Content-Encoding": "aws-chunked",
		"X-Amz-Content-Sha256": streamingSigned, "X-Amz-Decoded-Content-Length": "66560",
		"Authorization": "AWS4-HMAC-SHA256 " + exampleScope + ",SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
	} {
		r.Header.Set(name, value)
	}
	require.EqualValues(t, 66824, r.ContentLength)
	sig, err := verifyRequest(r, exampleCreds, exampleTime)
	require.NoError(t, err)
	got, err := io.ReadAll(newChunkedReader(r.Body, sig, false))
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("a", 66560), string(got))

	body := publishedChunks()
	for _, at := range []int{100, 20, 65536 + 200, len(body) - 10} {
		damaged := bytes.Clone(body)
		damaged[at] ^= 1
		_, err := io.ReadAll(newChunkedReader(bytes.NewReader(damaged), sig, false))
		require.Error(t, err, "byte %d", at)
	}
	for _, n := range []int{10, 1000, len(body) - 90} {
		_, err := io.ReadAll(newChunkedReader(bytes.NewReader(body[:n]), sig, false))
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", n)
	}
}

// TestSignerOfTheSDK verifies what an independent signer makes of odd paths,
// queries and headers.
func TestSignerOfTheSDK(t *testing.T) {
	now := time.Now().UTC()
	creds := aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}
	ours := credentials{"key", "secret", "us-east-1"}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	for _, target := range []string{
		"/b/k", "/b//lead", "/b/a%20b%2Bc", "/b/%E3%81%82%F0%9F%98%80", "/b/%23%3F%26%3D%25", "/b/a/../b/./c",
		"/b?list-type=2&prefix=a%2Fb&delimiter=%2F&start-after=%20", "/b?uploads", "/b?select&select-type=2&a-b=1&a=2",
		"/b?prefix=a%2Bb%20c&x=%7E~", "/b/~_-.%21%2A%27%28%29",
	} {
		for _, presign := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s presigned=%v", target, presign), func(t *testing.T) {
				out, err := http.NewRequest("GET", "http://127.0.0.1:9"+target, nil)
				require.NoError(t, err)
				out.Header.Set("X-Amz-Meta-Spaces", "  a   b ")
				var raw bytes.Buffer
				if presign {
					out.Header.Del("X-Amz-Meta-Spaces")
					q := out.URL.Query()
					q.Set("X-Amz-Expires", "60")
					out.URL.RawQuery = q.Encode()
					uri, _, err := signer.PresignHTTP(context.Background(), creds, out, unsignedPayload, "s3", "us-east-1", now)
					require.NoError(t, err)
					fmt.Fprintf(&raw, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:9\r\n\r\n", strings.TrimPrefix(uri, "http://127.0.0.1:9"))
				} else {
					out.Header.Set("X-Amz-Content-Sha256", emptySHA)
					require.NoError(t, signer.SignHTTP(context.Background(), creds, out, emptySHA, "s3", "us-east-1", now))
					require.NoError(t, out.Write(&raw))
				}
				in, err := http.ReadRequest(bufio.NewReader(&raw))
				require.NoError(t, err)
				_, err = verifyRequest(in, ours, now)
				require.NoError(t, err)
				_, err = verifyRequest(in, credentials{"key", "other", "us-east-1"}, now)
				requireCode(t, err, "SignatureDoesNotMatch")
			})
		}
	}
}

func TestRefusedSignatures(t *testing.T) {
	now := time.Now().UTC()
	ours := credentials{"key", "secret", "us-east-1"}
	sign := func(edit func(*http.Request), region string, at time.Time) *http.Request {
		r := httptest.NewRequest("GET", "http://127.0.0.1/b/k", nil)
		r.Header.Set("X-Amz-Content-Sha256", emptySHA)
		err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}, r, emptySHA, "s3", region, at)
		require.NoError(t, err)
		edit(r)
		return r
	}
	keep := func(*http.Request) {}
	for _, tc := range []struct {
		name, code string
		r          *http.Request
	}{
		{"right", "", sign(keep, "us-east-1", now)},
		{"anonymous", "AccessDenied", sign(func(r *http.Request) { r.Header.Del("Authorization") }, "us-east-1", now)},
		{"old scheme", "InvalidRequest", sign(func(r *http.Request) { r.Header.Set("Authorization", "AWS key:sig") }, "us-east-1", now)},
		{"garbage", "AuthorizationHeaderMalformed", sign(func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x") }, "us-east-1", now)},
		{"other key", "InvalidAccessKeyId", sign(func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "=key/", "=other/", 1))
		}, "us-east-1", now)},
		{"other region", "AuthorizationHeaderMalformed", sign(keep, "eu-west-1", now)},
		{"slow clock", "RequestTimeTooSkewed", sign(keep, "us-east-1", now.Add(-16*time.Minute))},
		{"fast clock", "RequestTimeTooSkewed", sign(keep, "us-east-1", now.Add(16*time.Minute))},
		{"other path", "SignatureDoesNotMatch", sign(func(r *http.Request) { r.URL.Path = "/b/other" }, "us-east-1", now)},
		{"other method", "SignatureDoesNotMatch", sign(func(r *http.Request) { r.Method = "DELETE" }, "us-east-1", now)},
		{"added x-amz header", "AccessDenied", sign(func(r *http.Request) { r.Header.Set("X-Amz-Copy-Source", "b/x") }, "us-east-1", now)},
		{"added query", "SignatureDoesNotMatch", sign(func(r *http.Request) { r.URL.RawQuery = "versionId=1" }, "us-east-1", now)},
		{"no payload hash", "InvalidRequest", sign(func(r *http.Request) { r.Header.Del("X-Amz-Content-Sha256") }, "us-east-1", now)},
		{"bad payload hash", "InvalidArgument", sign(func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "abc") }, "us-east-1", now)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := verifyRequest(tc.r, ours, now)
			if tc.code == "" {
				require.NoError(t, err)
				return
			}
			requireCode(t, err, tc.code)
		})
	}
}

// TestSignedTrailer makes a signed trailer by the documented formula, which
// the reader must take, and damages it.
func TestSignedTrailer(t *testing.T) {
	sig := &signature{key: []byte("key"), date: "20130524T000000Z", scope: "scope", value: "seed"}
	sum := func(b string) string { s := sha256.Sum256([]byte(b)); return hex.EncodeToString(s[:]) }
	head := sig.date + "\n" + sig.scope + "\n"
	data := hexHMAC(sig.key, "AWS4-HMAC-SHA256-PAYLOAD\n"+head+sig.value+"\n"+emptySHA+"\n"+sum("hello"))
	end := hexHMAC(sig.key, "AWS4-HMAC-SHA256-PAYLOAD\n"+head+data+"\n"+emptySHA+"\n"+emptySHA)
	trail := hexHMAC(sig.key, "AWS4-HMAC-SHA256-TRAILER\n"+head+end+"\n"+sum("x-amz-checksum-crc32:NhCmhg==\n"))
	body := "5;chunk-signature=" + data + "\r\nhello\r\n0;chunk-signature=" + end + "\r\nx-amz-checksum-crc32:NhCmhg==\r\nx-amz-trailer-signature:" + trail + "\r\n\r\n"
	r := newChunkedReader(strings.NewReader(body), sig, true)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.Equal(t, "NhCmhg==", r.trailer.Get("x-amz-checksum-crc32"))

	_, err = io.ReadAll(newChunkedReader(strings.NewReader(strings.Replace(body, "NhCmhg==", "NhCmhQ==", 1)), sig, true))
	requireCode(t, err, "SignatureDoesNotMatch")
}

func FuzzChunkedReader(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"))
	f.Add(publishedChunks()[:200])
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := io.ReadAll(newChunkedReader(bytes.NewReader(body), nil, true))
		require.LessOrEqual(t, len(got), len(body))
		var e *apiError
		if err != nil && !errors.As(err, &e) {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		}
		// Without signatures' keys no signed body is taken.
		_, err = io.ReadAll(newChunkedReader(bytes.NewReader(body), &signature{key: []byte("k")}, true))
		require.Error(t, err)
	})
}
