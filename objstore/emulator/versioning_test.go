package emulator_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func setVersioning(t *testing.T, c *s3.Client, status types.BucketVersioningStatus) {
	t.Helper()
	_, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: aws.String("bucket"), VersioningConfiguration: &types.VersioningConfiguration{Status: status}})
	require.NoError(t, err)
}

func TestVersioning(t *testing.T) {
	dir := t.TempDir()
	_, c := bucketOn(t, emulator.Config{Dir: dir})
	key := aws.String("k")
	require.Nil(t, put(t, c, "k", []byte("null")).VersionId)
	setVersioning(t, c, types.BucketVersioningStatusEnabled)
	got, err := c.GetBucketVersioning(t.Context(), &s3.GetBucketVersioningInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	require.Equal(t, types.BucketVersioningStatusEnabled, got.Status)
	first := put(t, c, "k", []byte("first")).VersionId
	second := put(t, c, "k", []byte("second")).VersionId
	require.NotEqual(t, *first, *second)
	require.Equal(t, "second", string(get(t, c, "k")))
	read := func(id *string) string {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: key, VersionId: id})
		require.NoError(t, err)
		b := make([]byte, *out.ContentLength)
		_, _ = out.Body.Read(b)
		require.Equal(t, *id, *out.VersionId)
		return string(b)
	}
	require.Equal(t, "first", read(first))
	require.Equal(t, "null", read(aws.String("null")))

	del, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: key})
	require.NoError(t, err)
	require.True(t, *del.DeleteMarker)
	_, err = tryGet(t.Context(), c, "k")
	requireFailure(t, err, 404, "NoSuchKey")
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: key, VersionId: del.VersionId})
	requireFailure(t, err, 405, "MethodNotAllowed")
	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: key, VersionId: aws.String("nonsense")})
	requireFailure(t, err, 404, "NoSuchVersion")
	require.Empty(t, listKeys(t, c))

	// Page by page, one at a time, newest first.
	var ids []string
	in := &s3.ListObjectVersionsInput{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(1)}
	for {
		out, err := c.ListObjectVersions(t.Context(), in)
		require.NoError(t, err)
		for _, v := range out.Versions {
			ids = append(ids, *v.VersionId)
			require.False(t, *v.IsLatest)
		}
		for _, m := range out.DeleteMarkers {
			ids = append(ids, *m.VersionId)
			require.True(t, *m.IsLatest)
		}
		if !*out.IsTruncated {
			break
		}
		in.KeyMarker, in.VersionIdMarker = out.NextKeyMarker, out.NextVersionIdMarker
	}
	require.Equal(t, []string{*del.VersionId, *second, *first, "null"}, ids)

	// Without the marker the object is back.
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: key, VersionId: del.VersionId})
	require.NoError(t, err)
	require.Equal(t, "second", string(get(t, c, "k")))
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: key, VersionId: second})
	require.NoError(t, err)
	require.Equal(t, "first", string(get(t, c, "k")))

	// A suspended bucket replaces its null version.
	setVersioning(t, c, types.BucketVersioningStatusSuspended)
	require.Equal(t, "null", *put(t, c, "k", []byte("suspended")).VersionId)
	require.Equal(t, "suspended", read(aws.String("null")))
	require.Equal(t, "first", read(first))
	copied, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("old"), CopySource: aws.String("bucket/k?versionId=" + *first)})
	require.NoError(t, err)
	require.Equal(t, *first, *copied.CopySourceVersionId)
	require.Equal(t, "first", string(get(t, c, "old")))
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: key})
	require.NoError(t, err)
	_, err = tryGet(t.Context(), c, "k")
	requireFailure(t, err, 404, "NoSuchKey")
	require.Equal(t, "first", read(first))
	_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("bucket")})
	requireFailure(t, err, 409, "BucketNotEmpty")
}

func listKeys(t *testing.T, c *s3.Client) []string {
	t.Helper()
	out, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	var keys []string
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
	}
	return keys
}
