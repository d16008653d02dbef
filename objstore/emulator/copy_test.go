package emulator_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// described is a PUT with everything that a copy has to carry along.
func described(key string) *s3.PutObjectInput {
	return &s3.PutObjectInput{
		Bucket: aws.String("bucket"), Key: &key, Body: strings.NewReader("content"),
		ContentType: aws.String("text/plain; charset=x"), ContentEncoding: aws.String("gzip"), ContentLanguage: aws.String("de"),
		ContentDisposition: aws.String(`attachment; filename="f"`), CacheControl: aws.String("no-cache"),
		Metadata: map[string]string{"mode": "33188", "unicode": "=?UTF-8?B?w6TDtsO8?="}, Tagging: aws.String("project=a%20b&x="),
		StorageClass: types.StorageClassStandardIa,
	}
}

func TestCopyKeepsOrReplaces(t *testing.T) {
	for _, dialect := range plainDialects {
		t.Run(dialect, func(t *testing.T) {
			_, c := bucketOn(t, emulator.Config{Dialect: dialect})
			_, err := c.PutObject(t.Context(), described("src"))
			require.NoError(t, err)
			src, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("src")})
			require.NoError(t, err)
			require.Equal(t, "gzip", *src.ContentEncoding)
			require.Equal(t, "=?UTF-8?b?w6TDtsO8?=", src.Metadata["unicode"])

			_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("same"), CopySource: aws.String("bucket/src")})
			require.NoError(t, err)
			dst, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("same")})
			require.NoError(t, err)
			require.Equal(t, src.Metadata, dst.Metadata)
			for _, pair := range [][2]*string{{src.ContentType, dst.ContentType}, {src.ContentEncoding, dst.ContentEncoding}, {src.ContentLanguage, dst.ContentLanguage}, {src.ContentDisposition, dst.ContentDisposition}, {src.CacheControl, dst.CacheControl}, {src.ETag, dst.ETag}} {
				require.Equal(t, *pair[0], *pair[1])
			}
			require.EqualValues(t, 2, *dst.TagCount)
			require.Empty(t, dst.StorageClass, "the storage class is the request's")
			require.Equal(t, "content", string(get(t, c, "same")))

			_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{
				Bucket: aws.String("bucket"), Key: aws.String("other"), CopySource: aws.String("/bucket/src"),
				MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"new": "1"}, TaggingDirective: types.TaggingDirectiveReplace, Tagging: aws.String("only=one"),
			})
			require.NoError(t, err)
			dst, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("other")})
			require.NoError(t, err)
			require.Equal(t, map[string]string{"new": "1"}, dst.Metadata)
			require.Nil(t, dst.ContentEncoding)
			require.EqualValues(t, 1, *dst.TagCount)

			_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("src"), CopySource: aws.String("bucket/src")})
			requireFailure(t, err, 400, "InvalidRequest")
			_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("src"), CopySource: aws.String("bucket/src"), MetadataDirective: types.MetadataDirectiveReplace, Metadata: map[string]string{"a": "b"}})
			require.NoError(t, err)
			require.Equal(t, "content", string(get(t, c, "src")))
		})
	}
}

func TestCopyConditions(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	etag := put(t, c, "src", []byte("x")).ETag
	put(t, c, "dst", []byte("old"))
	bad := aws.String(`"bad"`)
	for _, tc := range []struct {
		name   string
		edit   func(*s3.CopyObjectInput)
		status int
		code   string
	}{
		{"source match", func(in *s3.CopyObjectInput) { in.CopySourceIfMatch = bad }, 412, "PreconditionFailed"},
		{"source none match", func(in *s3.CopyObjectInput) { in.CopySourceIfNoneMatch = etag }, 412, "PreconditionFailed"},
		{"destination absent", func(in *s3.CopyObjectInput) { in.IfNoneMatch = aws.String("*") }, 412, "PreconditionFailed"},
		{"destination match", func(in *s3.CopyObjectInput) { in.IfMatch = bad }, 412, "PreconditionFailed"},
		{"no such source", func(in *s3.CopyObjectInput) { in.CopySource = aws.String("bucket/absent") }, 404, "NoSuchKey"},
		{"no such bucket", func(in *s3.CopyObjectInput) { in.CopySource = aws.String("absent/src") }, 404, "NoSuchBucket"},
		{"no key", func(in *s3.CopyObjectInput) { in.CopySource = aws.String("bucket") }, 400, "InvalidArgument"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("dst"), CopySource: aws.String("bucket/src")}
			tc.edit(in)
			_, err := c.CopyObject(t.Context(), in)
			requireFailure(t, err, tc.status, tc.code)
			require.Equal(t, "old", string(get(t, c, "dst")))
		})
	}
	_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a b+ü/%"), CopySource: aws.String("bucket/src"), CopySourceIfMatch: etag})
	require.NoError(t, err)
	_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("dst"), CopySource: aws.String("bucket/a%20b%2B%C3%BC/%25")})
	require.NoError(t, err)
	require.Equal(t, "x", string(get(t, c, "dst")))
}

func TestTagging(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	_, err := c.PutObject(t.Context(), described("k"))
	require.NoError(t, err)
	tags := func() map[string]string {
		out, err := c.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
		require.NoError(t, err)
		m := map[string]string{}
		for _, tag := range out.TagSet {
			m[*tag.Key] = *tag.Value
		}
		return m
	}
	require.Equal(t, map[string]string{"project": "a b", "x": ""}, tags())
	before, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	_, err = c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("n"), Value: aws.String("ä")}}}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"n": "ä"}, tags())
	after, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	require.Equal(t, before.LastModified, after.LastModified)
	require.Equal(t, "content", string(get(t, c, "k")), "a change of tags keeps the bytes")
	many := make([]types.Tag, 11)
	for i := range many {
		many[i] = types.Tag{Key: aws.String(strings.Repeat("k", i+1)), Value: aws.String("")}
	}
	_, err = c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Tagging: &types.Tagging{TagSet: many}})
	requireFailure(t, err, 400, "BadRequest")
	_, err = c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Tagging: &types.Tagging{TagSet: []types.Tag{many[0], many[0]}}})
	requireFailure(t, err, 400, "InvalidTag")
	_, err = c.DeleteObjectTagging(t.Context(), &s3.DeleteObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	require.Empty(t, tags())
}

func TestLimits(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	put(t, c, strings.Repeat("k", 1024), []byte("x"))
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String(strings.Repeat("k", 1025))})
	requireFailure(t, err, 400, "KeyTooLongError")
	meta := func(n int) error {
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("m"), Body: bytes.NewReader(nil), Metadata: map[string]string{"k": strings.Repeat("v", n-1)}})
		return err
	}
	require.NoError(t, meta(2048))
	requireFailure(t, meta(2049), 400, "MetadataTooLarge")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("m"), StorageClass: "NONE"})
	requireFailure(t, err, 400, "InvalidStorageClass")
}

// TestTooLarge announces more than a PUT may hold; the answer comes before the
// body is asked for.
func TestTooLarge(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	url, err := s3.NewPresignClient(c).PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	r, err := http.NewRequest("PUT", url.URL, neverRead{t})
	require.NoError(t, err)
	r.ContentLength = 5<<30 + 1
	r.Header.Set("Expect", "100-continue")
	tr := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 400, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "EntityTooLarge")
	require.Zero(t, s.Requests()[len(s.Requests())-1].BodyBytes)
}

type neverRead struct{ t *testing.T }

func (n neverRead) Read([]byte) (int, error) {
	n.t.Error("the body was read")
	return 0, io.EOF
}

// TestFsync runs the slower way of writing once.
func TestFsync(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{Fsync: true})
	put(t, c, "k", []byte("x"))
	require.Equal(t, "x", string(get(t, c, "k")))
}

// TestMinioVerbs goes through what minio-go offers beyond reading and writing.
func TestMinioVerbs(t *testing.T) {
	s, _ := bucketOn(t, emulator.Config{})
	m := mc(t, s)
	require.NoError(t, m.MakeBucket(t.Context(), "second", minio.MakeBucketOptions{Region: "us-east-1"}))
	there, err := m.BucketExists(t.Context(), "second")
	require.NoError(t, err)
	require.True(t, there)
	for i := range 5 {
		_, err := m.PutObject(t.Context(), "second", fmt.Sprintf("d/%d", i), strings.NewReader("x"), 1, minio.PutObjectOptions{UserTags: map[string]string{"a": "b"}, UserMetadata: map[string]string{"Name": "ä"}})
		require.NoError(t, err)
	}
	info, err := m.StatObject(t.Context(), "second", "d/1", minio.StatObjectOptions{})
	require.NoError(t, err)
	require.Equal(t, 1, info.UserTagCount)
	tagged, err := m.GetObjectTagging(t.Context(), "second", "d/1", minio.GetObjectTaggingOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "b"}, tagged.ToMap())
	rule, err := m.GetBucketEncryption(t.Context(), "second")
	require.NoError(t, err)
	require.Equal(t, "AES256", rule.Rules[0].Apply.SSEAlgorithm)
	_, err = m.CopyObject(t.Context(), minio.CopyDestOptions{Bucket: "second", Object: "copy"}, minio.CopySrcOptions{Bucket: "second", Object: "d/1", MatchETag: info.ETag})
	require.NoError(t, err)
	require.Error(t, m.RemoveBucket(t.Context(), "second"))
	gone := make(chan minio.ObjectInfo, 6)
	for o := range m.ListObjectsIter(t.Context(), "second", minio.ListObjectsOptions{Recursive: true, UseV1: true}) {
		require.NoError(t, o.Err)
		gone <- o
	}
	close(gone)
	require.Len(t, gone, 6)
	for e := range m.RemoveObjects(t.Context(), "second", gone, minio.RemoveObjectsOptions{}) {
		t.Errorf("remove %s: %v", e.ObjectName, e.Err)
	}
	require.NoError(t, m.RemoveBucket(t.Context(), "second"))
}
