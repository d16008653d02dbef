package emulator_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// ssecKey is a customer's key as the SDK wants it.
type ssecKey struct{ alg, key, md5 *string }

func ssec(seed uint64) ssecKey {
	k := noise(seed, 32)
	sum := md5.Sum(k)
	return ssecKey{aws.String("AES256"), aws.String(base64.StdEncoding.EncodeToString(k)), aws.String(base64.StdEncoding.EncodeToString(sum[:]))}
}

func (k ssecKey) put(key string, body []byte) *s3.PutObjectInput {
	return &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: bytes.NewReader(body), SSECustomerAlgorithm: k.alg, SSECustomerKey: k.key, SSECustomerKeyMD5: k.md5}
}

func (k ssecKey) get(key string) *s3.GetObjectInput {
	return &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: &key, SSECustomerAlgorithm: k.alg, SSECustomerKey: k.key, SSECustomerKeyMD5: k.md5}
}

func (k ssecKey) head(key string) *s3.HeadObjectInput {
	return &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: &key, SSECustomerAlgorithm: k.alg, SSECustomerKey: k.key, SSECustomerKeyMD5: k.md5}
}

func (k ssecKey) read(t testing.TB, c *s3.Client, key string) []byte {
	t.Helper()
	out, err := c.GetObject(t.Context(), k.get(key))
	require.NoError(t, err)
	defer out.Body.Close()
	require.Equal(t, k.md5, out.SSECustomerKeyMD5)
	require.Empty(t, out.ServerSideEncryption)
	b, err := io.ReadAll(out.Body)
	require.NoError(t, err)
	return b
}

func TestCustomerKey(t *testing.T) {
	dir := t.TempDir()
	_, c := bucketOn(t, emulator.Config{Dir: dir, AllowSSECOverHTTP: true})
	unblock(t, c)
	key, other, none := ssec(1), ssec(2), ssecKey{}
	body := []byte("what only the holder of the key may read")
	out, err := c.PutObject(t.Context(), key.put("k", body))
	require.NoError(t, err)
	require.Equal(t, "AES256", *out.SSECustomerAlgorithm)
	require.Equal(t, key.md5, out.SSECustomerKeyMD5)
	sum := md5.Sum(body)
	require.NotEqual(t, `"`+hex.EncodeToString(sum[:])+`"`, *out.ETag)
	require.Equal(t, body, key.read(t, c, "k"))

	in := key.get("k")
	in.Range = aws.String("bytes=5-8")
	part, err := c.GetObject(t.Context(), in)
	require.NoError(t, err)
	got, err := io.ReadAll(part.Body)
	require.NoError(t, err)
	require.Equal(t, body[5:9], got)
	head, err := c.HeadObject(t.Context(), key.head("k"))
	require.NoError(t, err)
	require.Equal(t, *out.ETag, *head.ETag)
	require.EqualValues(t, len(body), *head.ContentLength)
	require.Equal(t, "AES256", *head.SSECustomerAlgorithm)

	put(t, c, "plain", body)
	for _, tc := range []struct {
		what, object string
		key          ssecKey
		status       int
		code         string
	}{
		{"no key", "k", none, 400, "InvalidRequest"},
		{"wrong key", "k", other, 403, "AccessDenied"},
		{"a key for an object without", "plain", key, 400, "InvalidRequest"},
		{"an MD5 of another key", "k", ssecKey{key.alg, key.key, other.md5}, 400, "InvalidArgument"},
		{"an algorithm nobody knows", "k", ssecKey{aws.String("ROT13"), key.key, key.md5}, 400, "InvalidEncryptionAlgorithmError"},
		{"a key without its algorithm", "k", ssecKey{nil, key.key, key.md5}, 400, "InvalidArgument"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			_, err := c.GetObject(t.Context(), tc.key.get(tc.object))
			requireFailure(t, err, tc.status, tc.code)
			_, err = c.HeadObject(t.Context(), tc.key.head(tc.object))
			status, _ := failure(t, err)
			require.Equal(t, tc.status, status)
		})
	}
	both := key.put("k", nil)
	both.ServerSideEncryption = types.ServerSideEncryptionAes256
	_, err = c.PutObject(t.Context(), both)
	requireFailure(t, err, 400, "InvalidArgument")

	// Neither the key nor the bytes are on disk.
	raw, err := base64.StdEncoding.DecodeString(*key.key)
	require.NoError(t, err)
	for _, needle := range [][]byte{raw, []byte(*key.key), []byte(hex.EncodeToString(raw))} {
		require.Empty(t, found(t, dir, needle))
	}
}

func TestCustomerKeyCopies(t *testing.T) {
	dir := t.TempDir()
	_, c := bucketOn(t, emulator.Config{Dir: dir, AllowSSECOverHTTP: true})
	unblock(t, c)
	k1, k2, none := ssec(1), ssec(2), ssecKey{}
	body := []byte("a body that is carried from key to key")
	_, err := c.PutObject(t.Context(), k1.put("a", body))
	require.NoError(t, err)
	copyTo := func(from, to string, source, target ssecKey) error {
		_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{
			Bucket: aws.String("bucket"), Key: &to, CopySource: aws.String("bucket/" + from),
			CopySourceSSECustomerAlgorithm: source.alg, CopySourceSSECustomerKey: source.key, CopySourceSSECustomerKeyMD5: source.md5,
			SSECustomerAlgorithm: target.alg, SSECustomerKey: target.key, SSECustomerKeyMD5: target.md5,
		})
		return err
	}
	require.NoError(t, copyTo("a", "b", k1, k2))
	require.Equal(t, body, k2.read(t, c, "b"))
	requireFailure(t, copyTo("a", "x", k2, k1), 403, "AccessDenied")
	requireFailure(t, copyTo("a", "x", none, k1), 400, "InvalidRequest")
	require.Empty(t, found(t, dir, body))
	require.NoError(t, copyTo("a", "a", k1, k2), "rotation in place")
	require.Equal(t, body, k2.read(t, c, "a"))
	require.NoError(t, copyTo("a", "c", k2, none))
	require.Equal(t, body, get(t, c, "c"))
	requireFailure(t, copyTo("c", "x", k1, none), 400, "InvalidRequest")
	require.NoError(t, copyTo("c", "d", none, k1))
	require.Equal(t, body, k1.read(t, c, "d"))
}

func TestCustomerKeyMultipart(t *testing.T) {
	dir := t.TempDir()
	cfg := emulator.Config{Dir: dir, AllowSSECOverHTTP: true}
	_, c := bucketOn(t, cfg)
	unblock(t, c)
	key, other, none := ssec(1), ssec(2), ssecKey{}
	body := noise(3, partSize+1000)
	_, err := c.PutObject(t.Context(), other.put("source", body[partSize:]))
	require.NoError(t, err)
	for _, algorithm := range []types.ChecksumAlgorithm{"", types.ChecksumAlgorithmCrc32c} {
		name := fmt.Sprintf("big%s", algorithm)
		up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: &name, ChecksumAlgorithm: algorithm, SSECustomerAlgorithm: key.alg, SSECustomerKey: key.key, SSECustomerKeyMD5: key.md5})
		require.NoError(t, err)
		require.Equal(t, key.md5, up.SSECustomerKeyMD5)
		part := func(k ssecKey) (*s3.UploadPartOutput, error) {
			return c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: &name, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(body[:partSize]), ChecksumAlgorithm: algorithm, SSECustomerAlgorithm: k.alg, SSECustomerKey: k.key, SSECustomerKeyMD5: k.md5})
		}
		_, err = part(none)
		requireFailure(t, err, 400, "InvalidRequest")
		_, err = part(other)
		requireFailure(t, err, 400, "InvalidRequest")
		first, err := part(key)
		require.NoError(t, err)
		second, err := c.UploadPartCopy(t.Context(), &s3.UploadPartCopyInput{
			Bucket: aws.String("bucket"), Key: &name, UploadId: up.UploadId, PartNumber: aws.Int32(2), CopySource: aws.String("bucket/source"),
			CopySourceSSECustomerAlgorithm: other.alg, CopySourceSSECustomerKey: other.key, CopySourceSSECustomerKeyMD5: other.md5,
			SSECustomerAlgorithm: key.alg, SSECustomerKey: key.key, SSECustomerKeyMD5: key.md5,
		})
		require.NoError(t, err)
		parts := []types.CompletedPart{
			{PartNumber: aws.Int32(1), ETag: first.ETag, ChecksumCRC32C: first.ChecksumCRC32C},
			{PartNumber: aws.Int32(2), ETag: second.CopyPartResult.ETag, ChecksumCRC32C: second.CopyPartResult.ChecksumCRC32C},
		}
		if algorithm != "" {
			_, err = complete(c, t, name, up.UploadId, parts, nil)
			requireFailure(t, err, 400, "InvalidRequest")
		}
		_, err = complete(c, t, name, up.UploadId, parts, func(in *s3.CompleteMultipartUploadInput) {
			if algorithm != "" {
				in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = key.alg, key.key, key.md5
			}
		})
		require.NoError(t, err)
		require.Equal(t, body, key.read(t, c, name))
		_, err = c.GetObject(t.Context(), none.get(name))
		requireFailure(t, err, 400, "InvalidRequest")
	}
	require.Empty(t, found(t, dir, body[100:200]))
}

func TestCustomerKeyNeedsTLS(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	_, err := c.PutObject(t.Context(), ssec(1).put("k", nil))
	requireFailure(t, err, 400, "InvalidRequest")
}
