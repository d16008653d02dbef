package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/minio/minio-go/v7"
	miniocreds "github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

const (
	accessKey = "AKIATESTTESTTESTTEST"
	secretKey = "secret/of+the/tests"
)

// plainDialects are those that differ from Amazon S3 in encryption alone.
var plainDialects = []string{"aws", "liar", "nosse"}

// start runs a server over dir and closes it when the test ends.
func start(t testing.TB, cfg emulator.Config) *emulator.Server {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.AccessKeyID, cfg.SecretAccessKey = accessKey, secretKey
	s, err := emulator.New(cfg)
	require.NoError(t, err)
	require.NoError(t, s.Listen("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// sdk returns a client of the AWS SDK that does not retry.
func sdk(t testing.TB, s *emulator.Server, opts ...func(*s3.Options)) *s3.Client {
	t.Helper()
	tr := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(tr.CloseIdleConnections)
	return s3.New(s3.Options{
		BaseEndpoint:               aws.String(s.Endpoint()),
		Region:                     "us-east-1",
		UsePathStyle:               true,
		Credentials:                credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		RetryMaxAttempts:           1,
		HTTPClient:                 &http.Client{Transport: tr},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	}, opts...)
}

// mc returns a client of minio-go, the second implementation of the protocol.
func mc(t testing.TB, s *emulator.Server) *minio.Client {
	t.Helper()
	c, err := minio.New(strings.TrimPrefix(s.Endpoint(), "http://"), &minio.Options{
		Creds: miniocreds.NewStaticV4(accessKey, secretKey, ""), Region: "us-east-1", BucketLookup: minio.BucketLookupPath, MaxRetries: 1, TrailingHeaders: true,
	})
	require.NoError(t, err)
	return c
}

// bucketOn starts an aws server with one bucket.
func bucketOn(t testing.TB, cfg emulator.Config) (*emulator.Server, *s3.Client) {
	t.Helper()
	s := start(t, cfg)
	c := sdk(t, s)
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	return s, c
}

// unblock lets the bucket take SSE-C.
func unblock(t testing.TB, c *s3.Client) {
	t.Helper()
	_, err := c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: aws.String("bucket"),
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256},
			BlockedEncryptionTypes:             &types.BlockedEncryptionTypes{EncryptionType: []types.EncryptionType{types.EncryptionTypeNone}},
		}}}})
	require.NoError(t, err)
}

func put(t testing.TB, c *s3.Client, key string, body []byte) *s3.PutObjectOutput {
	t.Helper()
	out, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: bytes.NewReader(body)})
	require.NoError(t, err)
	return out
}

func get(t testing.TB, c *s3.Client, key string) []byte {
	t.Helper()
	b, err := tryGet(t.Context(), c, key)
	require.NoError(t, err)
	return b
}

func tryGet(ctx context.Context, c *s3.Client, key string) ([]byte, error) {
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: &key})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// failure returns status and code of an SDK error.
func failure(t testing.TB, err error) (int, string) {
	t.Helper()
	require.Error(t, err)
	var re *smithyhttp.ResponseError
	require.True(t, errors.As(err, &re), "no response in %v", err)
	var ae smithy.APIError
	if errors.As(err, &ae) {
		return re.HTTPStatusCode(), ae.ErrorCode()
	}
	return re.HTTPStatusCode(), ""
}

func requireFailure(t testing.TB, err error, status int, code string) {
	t.Helper()
	gotStatus, gotCode := failure(t, err)
	require.Equal(t, status, gotStatus, "%v", err)
	require.Equal(t, code, gotCode, "%v", err)
}

// noise returns n bytes that differ for each seed and do not compress.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}
