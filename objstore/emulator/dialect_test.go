package emulator_test

import (
	"bytes"
	"crypto/md5"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// withHeader adds a header to a request before it is signed.
func withHeader(name, value string) func(*s3.Options) {
	return func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, smithyhttp.SetHeaderValue(name, value))
	}
}

func bucketRuleOf(t testing.TB, c *s3.Client, bucket string) string {
	t.Helper()
	out, err := c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: &bucket})
	if err != nil {
		_, code := failure(t, err)
		return code
	}
	return string(out.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm)
}

const noRule = "ServerSideEncryptionConfigurationNotFoundError"

func TestScalityEncryption(t *testing.T) {
	for dialect, fresh := range map[string]string{"scality": noRule, "scality74": "NotImplemented"} {
		t.Run(dialect, func(t *testing.T) {
			dir := t.TempDir()
			_, c := bucketOn(t, emulator.Config{Dir: dir, Dialect: dialect})
			require.Equal(t, fresh, bucketRuleOf(t, c, "bucket"))
			body := []byte("the text to look for on the disk")
			put(t, c, "k", body)
			require.Empty(t, headOf(t, c, "k").ServerSideEncryption)
			require.NotEmpty(t, found(t, dir, body))
			_, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
			require.NoError(t, err)
			_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("bucket")})
			require.NoError(t, err)

			_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}, withHeader("x-amz-scal-server-side-encryption", "bogus"))
			require.NoError(t, err)
			require.Equal(t, fresh, bucketRuleOf(t, c, "bucket"), "an unknown value is ignored")
			_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("bucket")})
			require.NoError(t, err)
			_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}, withHeader("x-amz-scal-server-side-encryption", "AES256"))
			require.NoError(t, err)
			if dialect == "scality" {
				require.Equal(t, "AES256", bucketRuleOf(t, c, "bucket"))
			}
			out := put(t, c, "k", body)
			sum := md5.Sum(body)
			require.Equal(t, `"`+hex.EncodeToString(sum[:])+`"`, *out.ETag)
			require.Empty(t, out.ServerSideEncryption, "the reply to a PUT says nothing")
			require.EqualValues(t, "AES256", headOf(t, c, "k").ServerSideEncryption)
			require.Empty(t, found(t, dir, body))
			id, parts := multipart(t, c, "m", body, s3.CreateMultipartUploadInput{})
			done, err := complete(c, t, "m", id, parts, nil)
			require.NoError(t, err)
			require.Empty(t, done.ServerSideEncryption)
			require.EqualValues(t, "AES256", headOf(t, c, "m").ServerSideEncryption)
			copied, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("c"), CopySource: aws.String("bucket/k")})
			require.NoError(t, err)
			require.EqualValues(t, "AES256", copied.ServerSideEncryption, "that to a copy does")

			_, err = c.PutObject(t.Context(), kmsPut("k2", body, "AES256", ""))
			if dialect == "scality74" {
				requireFailure(t, err, 501, "NotImplemented")
			} else {
				require.NoError(t, err)
				_, err = c.PutObject(t.Context(), kmsPut("k2", body, "aws:kms:dsse", ""))
				requireFailure(t, err, 400, "InvalidArgument")
			}
			_, err = c.PutObject(t.Context(), ssec(1).put("k2", body))
			requireFailure(t, err, 501, "NotImplemented")
			read, err := c.GetObject(t.Context(), ssec(1).get("k"))
			require.NoError(t, err, "a key is not looked at when reading")
			read.Body.Close()
		})
	}
}

func TestScalityQuirks(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{Dialect: "scality"})
	put(t, c, "k", []byte("old"))
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("new"), IfNoneMatch: aws.String("*")})
	require.NoError(t, err)
	require.Equal(t, "new", string(get(t, c, "k")))
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("new"), ChecksumCRC32: aws.String("AAAAAA==")})
	require.NoError(t, err, "a wrong checksum is taken")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String(strings.Repeat("k", 916))})
	requireFailure(t, err, 400, "KeyTooLong")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a\nb")})
	requireFailure(t, err, 400, "InvalidInput")
	_, err = c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: aws.String("none"), PartNumber: aws.Int32(1)})
	requireFailure(t, err, 404, "NoSuchKey")
	id, parts := multipart(t, c, "m", []byte("x"), s3.CreateMultipartUploadInput{})
	_, err = complete(c, t, "m", id, parts, nil)
	require.NoError(t, err)
	_, err = complete(c, t, "m", id, parts, nil)
	requireFailure(t, err, 404, "NoSuchUpload")
	del := &s3.DeleteObjectsInput{Bucket: aws.String("bucket"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("m")}}}}
	_, err = c.DeleteObjects(t.Context(), del)
	requireFailure(t, err, 400, "BadDigest")
	_, err = c.DeleteObjects(t.Context(), del, func(o *s3.Options) {
		o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware)
	})
	require.NoError(t, err)
	put(t, c, "dir/x", nil)
	list, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), Delimiter: aws.String("/"), MaxKeys: aws.Int32(5000)})
	require.NoError(t, err)
	require.Len(t, list.CommonPrefixes, 1)
	require.EqualValues(t, 1, *list.KeyCount, "keys only")
	require.EqualValues(t, 5000, *list.MaxKeys)
	require.NotNil(t, list.ContinuationToken)

	// A rename that the server does not know overwrites with its empty body.
	_, err = c.RenameObject(t.Context(), &s3.RenameObjectInput{Bucket: aws.String("bucket"), Key: aws.String("target"), RenameSource: aws.String("k")})
	require.NoError(t, err)
	require.Empty(t, get(t, c, "target"))
	require.Equal(t, "new", string(get(t, c, "k")))
}

func TestMinIODialect(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{Dialect: "minio", AllowSSECOverHTTP: true})
	require.Equal(t, noRule, bucketRuleOf(t, c, "bucket"))
	_, err := s.CreateKMSKey("demo-key")
	require.NoError(t, err)
	require.Empty(t, put(t, c, "plain", []byte("x")).ServerSideEncryption)
	for _, name := range []string{"demo-key", "arn:aws:kms:demo-key"} {
		out, err := c.PutObject(t.Context(), kmsPut("k", []byte("x"), "aws:kms", name))
		require.NoError(t, err)
		require.Equal(t, "arn:aws:kms:demo-key", *out.SSEKMSKeyId)
		require.Equal(t, "x", string(get(t, c, "k")))
	}
	for _, name := range []string{"nobody", "arn:aws:kms:us-east-1:111122223333:key/demo-key"} {
		_, err = c.PutObject(t.Context(), kmsPut("k", []byte("x"), "aws:kms", name))
		requireFailure(t, err, 404, "kms:KeyNotFound")
	}
	_, err = c.PutObject(t.Context(), kmsPut("own", []byte("x"), "aws:kms", ""))
	require.NoError(t, err)
	_, err = c.PutObject(t.Context(), kmsPut("own", []byte("x"), "aws:kms:dsse", ""))
	require.Error(t, err)
	up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("m"), ServerSideEncryption: "aws:kms", ChecksumAlgorithm: "CRC32"})
	require.NoError(t, err)
	require.Empty(t, up.ServerSideEncryption)
	_, err = c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{Bucket: aws.String("bucket"), Key: aws.String("m"), UploadId: up.UploadId, PartNumber: aws.Int32(1), CopySource: aws.String("bucket/k")})
	requireFailure(t, err, 400, "InvalidArgument")
	copied, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("copy"), CopySource: aws.String("bucket/plain"), ServerSideEncryption: "AES256"})
	require.NoError(t, err)
	require.Empty(t, copied.ServerSideEncryption)
	require.EqualValues(t, "AES256", headOf(t, c, "copy").ServerSideEncryption)

	rule := func(mode types.ServerSideEncryption, key *string) error {
		_, err := c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: aws.String("bucket"), ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: mode, KMSMasterKeyID: key}, BucketKeyEnabled: aws.Bool(true)}}}})
		return err
	}
	requireFailure(t, rule("aws:kms", nil), 400, "MalformedXML")
	requireFailure(t, rule("aws:kms", aws.String("nobody")), 404, "kms:KeyNotFound")
	require.NoError(t, rule("aws:kms", aws.String("demo-key")))
	require.EqualValues(t, "aws:kms", put(t, c, "plain", []byte("x")).ServerSideEncryption)
	require.Nil(t, headOf(t, c, "plain").BucketKeyEnabled)

	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("plain"), IfMatch: aws.String(`"wrong"`)})
	require.NoError(t, err)
	_, err = tryGet(t.Context(), c, "plain")
	requireFailure(t, err, 404, "NoSuchKey")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), IfNoneMatch: aws.String("*")})
	requireFailure(t, err, 412, "PreconditionFailed")
	for _, key := range []string{"a//b", "a/../b", "./a", strings.Repeat("x", 256)} {
		_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key})
		requireFailure(t, err, 400, "XMinioInvalidObjectName")
	}
	_, err = c.PutObject(t.Context(), ssec(1).put("c", []byte("x")))
	require.NoError(t, err)
	_, err = c.GetObject(t.Context(), ssec(2).get("c"))
	requireFailure(t, err, 403, "AccessDenied")
	k1, k2 := ssec(1), ssec(2)
	up, err = c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("c"), SSECustomerAlgorithm: k1.alg, SSECustomerKey: k1.key, SSECustomerKeyMD5: k1.md5})
	require.NoError(t, err)
	_, err = c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("c"), UploadId: up.UploadId, PartNumber: aws.Int32(1), SSECustomerAlgorithm: k2.alg, SSECustomerKey: k2.key, SSECustomerKeyMD5: k2.md5})
	requireFailure(t, err, 403, "AccessDenied")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("x"), ChecksumCRC32: aws.String("AAAAAA==")})
	requireFailure(t, err, 400, "XAmzContentChecksumMismatch")
}

func TestLossyV2(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{LossyV2: true, Dialect: "nosse"})
	for i := range 1003 {
		put(t, c, fmt.Sprintf("k%04d", i), nil)
	}
	v2, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	require.Len(t, v2.Contents, 1000)
	require.False(t, *v2.IsTruncated)
	require.Nil(t, v2.NextContinuationToken)
	v1, err := c.ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	require.True(t, *v1.IsTruncated)
}

// tlsClient trusts what CAFile names and nothing else.
func tlsClient(t testing.TB, s *emulator.Server) func(*s3.Options) {
	t.Helper()
	pem, err := os.ReadFile(s.CAFile())
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return func(o *s3.Options) { o.HTTPClient = &http.Client{Transport: tr} }
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	s := start(t, emulator.Config{Dir: dir, TLS: true})
	require.True(t, strings.HasPrefix(s.Endpoint(), "https://"))
	require.Contains(t, s.Env(), "AWS_CA_BUNDLE="+s.CAFile())
	c := sdk(t, s, tlsClient(t, s))
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	// On TLS the SDK sends its checksum in a trailer, and a customer's key is
	// welcome.
	unblock(t, c)
	_, err = c.PutObject(t.Context(), ssec(1).put("k", []byte("body")))
	require.NoError(t, err)
	require.Equal(t, "body", string(ssec(1).read(t, c, "k")))
	s.Inject(emulator.Fault{Verb: "GetObject", Reset: true})
	_, err = c.GetObject(t.Context(), ssec(1).get("k"))
	require.Error(t, err)
	first, err := os.ReadFile(s.CAFile())
	require.NoError(t, err)
	require.NoError(t, s.Close())
	again := start(t, emulator.Config{Dir: dir, TLS: true, Dialect: "scality"})
	second, err := os.ReadFile(again.CAFile())
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, second), "the certificate stays")
	_, err = sdk(t, again, tlsClient(t, again)).PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: strings.NewReader("x")})
	requireFailure(t, err, 400, "BadRequest")
	require.Empty(t, start(t, emulator.Config{}).CAFile())
}
