package emulator_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func TestForeignBucket(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", []byte("x"))
	_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("mine")})
	require.NoError(t, err)
	s.SetTraits("bucket", emulator.Traits{Foreign: true, RequesterPays: true})
	_, err = tryGet(t.Context(), c, "k")
	requireFailure(t, err, 403, "AccessDenied")
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("mine"), Key: aws.String("c"), CopySource: aws.String("bucket/k")})
	requireFailure(t, err, 403, "AccessDenied")
	out, err := c.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	require.NoError(t, err)
	require.Len(t, out.Buckets, 1)
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), RequestPayer: types.RequestPayerRequester})
	require.NoError(t, err)
	s.SetTraits("bucket", emulator.Traits{Foreign: true})
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), RequestPayer: types.RequestPayerRequester})
	requireFailure(t, err, 403, "AccessDenied")
}

func TestBucketOfAnotherRegion(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", []byte("x"))
	s.SetTraits("bucket", emulator.Traits{Region: "eu-west-1"})
	_, err := tryGet(t.Context(), c, "k")
	requireFailure(t, err, 301, "PermanentRedirect")
	there := sdk(t, s, func(o *s3.Options) { o.Region = "eu-west-1" })
	require.Equal(t, []byte("x"), get(t, there, "k"))
	head, err := there.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	require.Equal(t, "eu-west-1", aws.ToString(head.BucketRegion))
}

func TestArchivedObject(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), StorageClass: types.StorageClassGlacier})
	require.NoError(t, err)
	_, err = tryGet(t.Context(), c, "k")
	requireFailure(t, err, 403, "InvalidObjectState")
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("c"), CopySource: aws.String("bucket/k")})
	requireFailure(t, err, 403, "InvalidObjectState")
	require.Nil(t, headOf(t, c, "k").Restore)
	restore := func(key string, days int32) error {
		_, err := c.RestoreObject(t.Context(), &s3.RestoreObjectInput{Bucket: aws.String("bucket"), Key: aws.String(key), RestoreRequest: &types.RestoreRequest{Days: aws.Int32(days)}})
		return err
	}
	requireFailure(t, restore("k", 0), 400, "MalformedXML")
	require.NoError(t, restore("k", 1))
	require.Contains(t, aws.ToString(headOf(t, c, "k").Restore), `ongoing-request="false", expiry-date="`)
	require.Empty(t, get(t, c, "k"))
	require.NoError(t, restore("k", 2))
	put(t, c, "plain", nil)
	requireFailure(t, restore("plain", 1), 403, "InvalidObjectState")
}

// TestNewBucketsBlockCustomerKeys: and a configuration that does not speak of
// it leaves it so.
func TestNewBucketsBlockCustomerKeys(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{AllowSSECOverHTTP: true})
	conf := func() *types.ServerSideEncryptionRule {
		out, err := c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: aws.String("bucket")})
		require.NoError(t, err)
		return &out.ServerSideEncryptionConfiguration.Rules[0]
	}
	in := ssec(1).put("k", nil)
	_, err := c.PutObject(t.Context(), in)
	requireFailure(t, err, 403, "AccessDenied")
	require.Equal(t, []types.EncryptionType{"SSE-C"}, conf().BlockedEncryptionTypes.EncryptionType)
	_, err = c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: aws.String("bucket"),
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256}}}}})
	require.NoError(t, err)
	_, err = c.PutObject(t.Context(), in)
	requireFailure(t, err, 403, "AccessDenied")
	unblock(t, c)
	_, err = c.PutObject(t.Context(), in)
	require.NoError(t, err)
	require.Nil(t, conf().BlockedEncryptionTypes)
}
