package emulator_test

import (
	"fmt"
	"net/url"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// oddKeys are keys that servers are known to stumble over.
var oddKeys = []string{
	"/lead", "a//b", "a/../b", "./x", "trail/", "space end ", " space", "plus+plus", "per%cent", "a&b<c>\"d'", "q?x=1#y", "日本語/ファイル",
	"😀", "e\u0301", "é", "tab\there", "new\nline", "cr\rhere", "\x01ctl\x7f", "back\\slash", "a=b;c:d,e", "~!*'()", "{}[]|^`$@", "zz\U0010ffff",
	"x", "x/y",
}

func TestOddKeys(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	for _, key := range oddKeys {
		put(t, c, key, []byte(key))
		require.Equal(t, key, string(get(t, c, key)))
	}
	want := slices.Clone(oddKeys)
	slices.Sort(want)
	v2, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), EncodingType: types.EncodingTypeUrl})
	require.NoError(t, err)
	var got []string
	for _, o := range v2.Contents {
		key, err := url.QueryUnescape(*o.Key)
		require.NoError(t, err)
		got = append(got, key)
	}
	require.Equal(t, want, got)

	got = nil
	for o := range mc(t, s).ListObjectsIter(t.Context(), "bucket", minio.ListObjectsOptions{Recursive: true}) {
		require.NoError(t, o.Err)
		got = append(got, o.Key)
	}
	require.Equal(t, want, got)
}

func TestListPages(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	for i := range 30 {
		put(t, c, fmt.Sprintf("d%d/f%d", i%5, i), nil)
		put(t, c, fmt.Sprintf("top%02d", i), nil)
	}
	list := func(pageSize int32, prefix, delimiter, after string) (v1, v2 []string) {
		in := &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), MaxKeys: &pageSize, Prefix: &prefix, Delimiter: &delimiter, StartAfter: &after}
		for {
			out, err := c.ListObjectsV2(t.Context(), in)
			require.NoError(t, err)
			require.EqualValues(t, len(out.Contents)+len(out.CommonPrefixes), *out.KeyCount)
			require.LessOrEqual(t, *out.KeyCount, pageSize)
			for _, o := range out.Contents {
				v2 = append(v2, *o.Key)
			}
			for _, p := range out.CommonPrefixes {
				v2 = append(v2, *p.Prefix)
			}
			if !*out.IsTruncated {
				break
			}
			in.ContinuationToken = out.NextContinuationToken
		}
		in1 := &s3.ListObjectsInput{Bucket: aws.String("bucket"), MaxKeys: &pageSize, Prefix: &prefix, Delimiter: &delimiter, Marker: &after}
		for {
			out, err := c.ListObjects(t.Context(), in1)
			require.NoError(t, err)
			for _, o := range out.Contents {
				v1 = append(v1, *o.Key)
				in1.Marker = o.Key
			}
			for _, p := range out.CommonPrefixes {
				v1 = append(v1, *p.Prefix)
			}
			if !*out.IsTruncated {
				break
			}
			require.Equal(t, delimiter != "", out.NextMarker != nil, "NextMarker only comes with a delimiter")
			if delimiter != "" {
				in1.Marker = out.NextMarker
			}
		}
		return v1, v2
	}
	for _, pageSize := range []int32{1, 3, 1000} {
		v1, v2 := list(pageSize, "", "/", "")
		require.Len(t, v2, 35)
		require.ElementsMatch(t, v2, v1)
		v1, v2 = list(pageSize, "", "", "d4/")
		require.Len(t, v2, 36)
		require.Equal(t, v2, v1)
		v1, v2 = list(pageSize, "d1/", "/", "d1/f11")
		require.Equal(t, []string{"d1/f16", "d1/f21", "d1/f26", "d1/f6"}, v2)
		require.Equal(t, v2, v1)
		_, v2 = list(pageSize, "", "/", "d3/")
		require.Len(t, v2, 31, "a prefix that start-after names is passed")
	}
	out, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(0)})
	require.NoError(t, err)
	require.False(t, *out.IsTruncated)
	_, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), ContinuationToken: aws.String("bogus")})
	requireFailure(t, err, 400, "InvalidArgument")
	_, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), MaxKeys: aws.Int32(-1)})
	requireFailure(t, err, 400, "InvalidArgument")
}

func TestBuckets(t *testing.T) {
	s := start(t, emulator.Config{})
	c := sdk(t, s)
	for _, name := range []string{"bbb", "aaa", "a.b-c"} {
		_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name})
		require.NoError(t, err)
	}
	out, err := c.ListBuckets(t.Context(), &s3.ListBucketsInput{})
	require.NoError(t, err)
	var names []string
	for _, b := range out.Buckets {
		names = append(names, *b.Name)
	}
	require.Equal(t, []string{"a.b-c", "aaa", "bbb"}, names)
	head, err := c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("aaa")})
	require.NoError(t, err)
	require.Equal(t, "us-east-1", *head.BucketRegion)
	_, err = c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("absent")})
	status, _ := failure(t, err)
	require.Equal(t, 404, status)
	loc, err := c.GetBucketLocation(t.Context(), &s3.GetBucketLocationInput{Bucket: aws.String("aaa")})
	require.NoError(t, err)
	require.Empty(t, loc.LocationConstraint)
	_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("aaa")})
	require.NoError(t, err, "us-east-1 answers 200 to the owner")
	for _, bad := range []string{"Upper", "a_b", "ab", "192.168.1.1", "-ab", "a..b"} {
		_, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bad})
		requireFailure(t, err, 400, "InvalidBucketName")
	}
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("aaa"), Key: aws.String("k")})
	require.NoError(t, err)
	_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("aaa")})
	requireFailure(t, err, 409, "BucketNotEmpty")
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("aaa"), Key: aws.String("k")})
	require.NoError(t, err)
	_, err = c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("aaa")})
	require.NoError(t, err)
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("aaa"), Key: aws.String("k")})
	requireFailure(t, err, 404, "NoSuchBucket")
}
