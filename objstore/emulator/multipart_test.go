package emulator_test

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

const partSize = 5 << 20

// multipart uploads body in parts and returns what Complete needs.
func multipart(t *testing.T, c *s3.Client, key string, body []byte, create s3.CreateMultipartUploadInput) (id *string, parts []types.CompletedPart) {
	t.Helper()
	create.Bucket, create.Key = aws.String("bucket"), &key
	up, err := c.CreateMultipartUpload(t.Context(), &create)
	require.NoError(t, err)
	for n := int32(1); len(body) > 0; n++ {
		chunk := body[:min(partSize, len(body))]
		body = body[len(chunk):]
		out, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: &key, UploadId: up.UploadId, PartNumber: &n, Body: bytes.NewReader(chunk), ChecksumAlgorithm: create.ChecksumAlgorithm})
		require.NoError(t, err)
		part := types.CompletedPart{PartNumber: &n, ETag: out.ETag}
		if create.ChecksumAlgorithm != "" {
			part.ChecksumCRC32, part.ChecksumCRC32C, part.ChecksumCRC64NVME = out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME
			part.ChecksumSHA1, part.ChecksumSHA256 = out.ChecksumSHA1, out.ChecksumSHA256
		}
		parts = append(parts, part)
	}
	return up.UploadId, parts
}

func complete(c *s3.Client, t *testing.T, key string, id *string, parts []types.CompletedPart, edit func(*s3.CompleteMultipartUploadInput)) (*s3.CompleteMultipartUploadOutput, error) {
	in := &s3.CompleteMultipartUploadInput{Bucket: aws.String("bucket"), Key: &key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts}}
	if edit != nil {
		edit(in)
	}
	return c.CompleteMultipartUpload(t.Context(), in)
}

func TestMultipart(t *testing.T) {
	for _, dialect := range plainDialects {
		t.Run(dialect, func(t *testing.T) {
			_, c := bucketOn(t, emulator.Config{Dialect: dialect})
			body := noise(3, 2*partSize+1234)
			id, parts := multipart(t, c, "big", body, s3.CreateMultipartUploadInput{Metadata: map[string]string{"colour": "blue"}, ContentType: aws.String("text/x")})

			_, err := tryGet(t.Context(), c, "big")
			requireFailure(t, err, 404, "NoSuchKey")
			listed, err := c.ListParts(t.Context(), &s3.ListPartsInput{Bucket: aws.String("bucket"), Key: aws.String("big"), UploadId: id, MaxParts: aws.Int32(2)})
			require.NoError(t, err)
			require.Len(t, listed.Parts, 2)
			require.True(t, *listed.IsTruncated)
			require.Equal(t, "2", *listed.NextPartNumberMarker)
			ups, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket"), Prefix: aws.String("b")})
			require.NoError(t, err)
			require.Len(t, ups.Uploads, 1)
			require.Equal(t, *id, *ups.Uploads[0].UploadId)

			out, err := complete(c, t, "big", id, parts, nil)
			require.NoError(t, err)
			var sums []byte
			for b := body; len(b) > 0; b = b[min(partSize, len(b)):] {
				s := md5.Sum(b[:min(partSize, len(b))])
				sums = append(sums, s[:]...)
			}
			require.Equal(t, fmt.Sprintf(`"%x-3"`, md5.Sum(sums)), *out.ETag)
			require.Equal(t, body, get(t, c, "big"))

			again, err := complete(c, t, "big", id, parts, nil)
			require.NoError(t, err, "a repeated Complete finds its object")
			require.Equal(t, *out.ETag, *again.ETag)

			head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("big")})
			require.NoError(t, err)
			require.Equal(t, "blue", head.Metadata["colour"])
			require.Equal(t, "text/x", *head.ContentType)
			part, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("big"), PartNumber: aws.Int32(2)})
			require.NoError(t, err)
			got, err := io.ReadAll(part.Body)
			require.NoError(t, err)
			require.Equal(t, body[partSize:2*partSize], got)
			require.EqualValues(t, 3, *part.PartsCount)
			_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("big"), PartNumber: aws.Int32(4)})
			requireFailure(t, err, 416, "InvalidPartNumber")
			// A range over the border of two parts.
			r, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("big"), Range: aws.String(fmt.Sprintf("bytes=%d-%d", partSize-10, partSize+9))})
			require.NoError(t, err)
			got, err = io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, body[partSize-10:partSize+10], got)
		})
	}
}

func TestCompleteRefuses(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	old := put(t, c, "k", []byte("old")).ETag
	id, parts := multipart(t, c, "k", noise(4, partSize+10), s3.CreateMultipartUploadInput{})
	small, smallParts := multipart(t, c, "k", noise(5, 10), s3.CreateMultipartUploadInput{})
	two, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: small, PartNumber: aws.Int32(2), Body: bytes.NewReader([]byte("x"))})
	require.NoError(t, err)
	smallParts = append(smallParts, types.CompletedPart{PartNumber: aws.Int32(2), ETag: two.ETag})
	for _, tc := range []struct {
		name   string
		id     *string
		parts  []types.CompletedPart
		edit   func(*s3.CompleteMultipartUploadInput)
		status int
		code   string
	}{
		{"wrong order", id, []types.CompletedPart{parts[1], parts[0]}, nil, 400, "InvalidPartOrder"},
		{"missing part", id, append(parts[:2:2], types.CompletedPart{PartNumber: aws.Int32(7), ETag: parts[0].ETag}), nil, 400, "InvalidPart"},
		{"wrong etag", id, []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: parts[1].ETag}}, nil, 400, "InvalidPart"},
		{"no parts", id, nil, nil, 400, "MalformedXML"},
		{"unknown upload", aws.String("nope"), parts, nil, 404, "NoSuchUpload"},
		{"small part", small, smallParts, nil, 400, "EntityTooSmall"},
		{"absent wanted", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = aws.String("*") }, 412, "PreconditionFailed"},
		{"other etag wanted", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.IfMatch = aws.String(`"x"`) }, 412, "PreconditionFailed"},
		{"other size", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.MpuObjectSize = aws.Int64(5) }, 400, "InvalidRequest"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := complete(c, t, "k", tc.id, tc.parts, tc.edit)
			requireFailure(t, err, tc.status, tc.code)
			require.Equal(t, "old", string(get(t, c, "k")))
		})
	}
	_, err = complete(c, t, "k", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.IfMatch = old })
	require.NoError(t, err, "the upload outlives refused completions")
	_, err = c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: small})
	require.NoError(t, err)
	_, err = c.AbortMultipartUpload(t.Context(), &s3.AbortMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: small})
	requireFailure(t, err, 404, "NoSuchUpload")
	_, err = c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: small, PartNumber: aws.Int32(1), Body: bytes.NewReader(nil)})
	requireFailure(t, err, 404, "NoSuchUpload")
	_, err = c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: small, PartNumber: aws.Int32(10001), Body: bytes.NewReader(nil)})
	requireFailure(t, err, 400, "InvalidArgument")
}

// TestCompleteRaces completes one upload many times at once, and two uploads
// of one key under If-None-Match: one object comes out, whole.
func TestCompleteRaces(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	body := noise(6, partSize+1)
	id, parts := multipart(t, c, "same", body, s3.CreateMultipartUploadInput{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := complete(c, t, "same", id, parts, nil); err != nil {
				t.Errorf("Complete: %v", err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, body, get(t, c, "same"))

	var won [4]bool
	bodies := make([][]byte, len(won))
	for i := range won {
		bodies[i] = noise(uint64(10+i), 1000)
		id, parts := multipart(t, c, "exclusive", bodies[i], s3.CreateMultipartUploadInput{})
		wg.Go(func() {
			_, err := complete(c, t, "exclusive", id, parts, func(in *s3.CompleteMultipartUploadInput) { in.IfNoneMatch = aws.String("*") })
			won[i] = err == nil
		})
	}
	wg.Wait()
	winner := -1
	for i, w := range won {
		if w {
			require.Equal(t, -1, winner, "two winners")
			winner = i
		}
	}
	require.NotEqual(t, -1, winner)
	require.Equal(t, bodies[winner], get(t, c, "exclusive"))
}

func TestPartIsReplaced(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	id, _ := multipart(t, c, "k", []byte("first"), s3.CreateMultipartUploadInput{})
	out, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("k"), UploadId: id, PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte("second"))})
	require.NoError(t, err)
	_, err = complete(c, t, "k", id, []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: out.ETag}}, nil)
	require.NoError(t, err)
	require.Equal(t, "second", string(get(t, c, "k")))
}

func TestUploadPartCopy(t *testing.T) {
	for _, dialect := range plainDialects {
		t.Run(dialect, func(t *testing.T) {
			s, c := bucketOn(t, emulator.Config{Dialect: dialect})
			body := noise(8, partSize+5000)
			etag := put(t, c, "src", body).ETag
			up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("dst")})
			require.NoError(t, err)
			in := func(n int32, r string) *s3.UploadPartCopyInput {
				return &s3.UploadPartCopyInput{Bucket: aws.String("bucket"), Key: aws.String("dst"), UploadId: up.UploadId, PartNumber: &n, CopySource: aws.String("bucket/src"), CopySourceRange: &r, CopySourceIfMatch: etag}
			}
			one, err := c.UploadPartCopy(t.Context(), in(1, fmt.Sprintf("bytes=100-%d", 100+partSize-1)))
			require.NoError(t, err)
			two, err := c.UploadPartCopy(t.Context(), in(2, "bytes=0-9"))
			require.NoError(t, err)
			_, err = c.UploadPartCopy(t.Context(), in(3, fmt.Sprintf("bytes=0-%d", len(body))))
			requireFailure(t, err, 400, "InvalidArgument")
			bad := in(3, "bytes=0-9")
			bad.CopySourceIfMatch = aws.String(`"other"`)
			_, err = c.UploadPartCopy(t.Context(), bad)
			requireFailure(t, err, 412, "PreconditionFailed")
			_, err = complete(c, t, "dst", up.UploadId, []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: one.CopyPartResult.ETag}, {PartNumber: aws.Int32(2), ETag: two.CopyPartResult.ETag}}, nil)
			require.NoError(t, err)
			require.Equal(t, append(bytes.Clone(body[100:100+partSize]), body[:10]...), get(t, c, "dst"))

			// minio-go composes on its own.
			m := mc(t, s)
			_, err = m.ComposeObject(t.Context(), minio.CopyDestOptions{Bucket: "bucket", Object: "composed"},
				minio.CopySrcOptions{Bucket: "bucket", Object: "src"}, minio.CopySrcOptions{Bucket: "bucket", Object: "dst"})
			require.NoError(t, err)
			require.Equal(t, append(bytes.Clone(body), get(t, c, "dst")...), get(t, c, "composed"))
		})
	}
}

func TestMultipartByMinio(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	body := noise(7, 12<<20+5)
	m := mc(t, s)
	for _, tc := range []struct {
		name    string
		opts    minio.PutObjectOptions
		size    int64
		payload string
	}{
		{"known size", minio.PutObjectOptions{PartSize: partSize}, int64(len(body)), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"},
		{"unknown size", minio.PutObjectOptions{PartSize: partSize}, -1, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
		{"one signed stream", minio.PutObjectOptions{DisableMultipart: true, DisableContentSha256: false}, int64(len(body)), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
		{"content md5", minio.PutObjectOptions{SendContentMd5: true, PartSize: partSize}, int64(len(body)), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
		{"crc64nvme trailer", minio.PutObjectOptions{Checksum: minio.ChecksumCRC64NVME, PartSize: partSize}, int64(len(body)), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"},
		{"parallel parts", minio.PutObjectOptions{ConcurrentStreamParts: true, NumThreads: 3, PartSize: partSize}, -1, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.ResetRequests()
			info, err := m.PutObject(t.Context(), "bucket", "m", bytes.NewReader(body), tc.size, tc.opts)
			require.NoError(t, err)
			require.EqualValues(t, len(body), info.Size)
			require.Equal(t, body, get(t, c, "m"))
			o, err := m.GetObject(t.Context(), "bucket", "m", minio.GetObjectOptions{})
			require.NoError(t, err)
			got, err := io.ReadAll(o)
			require.NoError(t, err)
			require.Equal(t, body, got)
			payloads := map[string]bool{}
			for _, r := range s.Requests() {
				payloads[r.Header.Get("X-Amz-Content-Sha256")] = true
			}
			require.Contains(t, payloads, tc.payload)
		})
	}
}
