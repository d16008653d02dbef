package emulator_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func TestHideSSE(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	_, err := c.PutObject(t.Context(), kmsPut("k", []byte("x"), "aws:kms", ""))
	require.NoError(t, err)
	s.Inject(emulator.Fault{Verb: "HeadObject", HideSSE: true})
	head := headOf(t, c, "k")
	require.Empty(t, head.ServerSideEncryption)
	require.Nil(t, head.SSEKMSKeyId)
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	defer out.Body.Close()
	require.EqualValues(t, "aws:kms", out.ServerSideEncryption)
}

func TestDropSSE(t *testing.T) {
	dir := t.TempDir()
	s, c := bucketOn(t, emulator.Config{Dir: dir})
	body := []byte("text that a copy lays bare")
	put(t, c, "k", body)
	require.Empty(t, found(t, dir, body))
	s.Inject(emulator.Fault{Verb: "CopyObject", DropSSE: true})
	_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("c"), CopySource: aws.String("bucket/k"), ServerSideEncryption: "AES256"})
	require.NoError(t, err)
	require.Empty(t, headOf(t, c, "c").ServerSideEncryption)
	require.Equal(t, body, get(t, c, "c"))
	require.NotEmpty(t, found(t, dir, body))
}

// TestErrorIn200: the error is in the body alone, and nothing was done.
func TestErrorIn200(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", []byte("x"))
	id, parts := multipart(t, c, "m", []byte("x"), s3.CreateMultipartUploadInput{})
	s.Inject(emulator.Fault{Code: "InternalError", ErrorIn200: true})
	_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("c"), CopySource: aws.String("bucket/k")})
	require.ErrorContains(t, err, "InternalError")
	_, err = complete(c, t, "m", id, parts, nil)
	require.ErrorContains(t, err, "InternalError")
	requests := s.Requests()
	require.Equal(t, 200, requests[len(requests)-1].Status)
	s.ClearFaults()
	_, err = tryGet(t.Context(), c, "c")
	requireFailure(t, err, 404, "NoSuchKey")
	_, err = complete(c, t, "m", id, parts, nil)
	require.NoError(t, err)
	require.Panics(t, func() { s.Inject(emulator.Fault{ErrorIn200: true}) })
}

func TestCodesByName(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	for code, status := range map[string]int{"ConditionalRequestConflict": 409, "ExpiredToken": 400, "RequestTimeTooSkewed": 403} {
		s.Inject(emulator.Fault{Verb: "PutObject", Code: code})
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: bytes.NewReader(nil)})
		requireFailure(t, err, status, code)
		s.ClearFaults()
	}
}

// TestSkew: a clock that is off is refused, and the Date of the refusal lets
// the SDK sign by the server's clock.
func TestSkew(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	for _, d := range []time.Duration{time.Hour, -time.Hour} {
		s.SetSkew(d)
		_, err := sdk(t, s).ListBuckets(t.Context(), &s3.ListBucketsInput{})
		requireFailure(t, err, 403, "RequestTimeTooSkewed")
		_, err = sdk(t, s, func(o *s3.Options) { o.RetryMaxAttempts = 3 }).ListBuckets(t.Context(), &s3.ListBucketsInput{})
		require.NoError(t, err)
	}
	s.SetSkew(10 * time.Minute)
	put(t, c, "k", nil)
}
