package emulator_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

var algorithms = []types.ChecksumAlgorithm{
	types.ChecksumAlgorithmCrc32, types.ChecksumAlgorithmCrc32c, types.ChecksumAlgorithmCrc64nvme, types.ChecksumAlgorithmSha1, types.ChecksumAlgorithmSha256,
}

// sumOf picks the one checksum of a reply.
func sumOf(t *testing.T, a types.ChecksumAlgorithm, crc32, crc32c, crc64, sha1, sha256 *string) string {
	t.Helper()
	all := map[types.ChecksumAlgorithm]*string{
		types.ChecksumAlgorithmCrc32: crc32, types.ChecksumAlgorithmCrc32c: crc32c, types.ChecksumAlgorithmCrc64nvme: crc64,
		types.ChecksumAlgorithmSha1: sha1, types.ChecksumAlgorithmSha256: sha256,
	}
	for other, v := range all {
		if other != a {
			require.Nil(t, v, "%s in a reply of %s", other, a)
		}
	}
	require.NotNil(t, all[a])
	return *all[a]
}

func TestChecksumsOfPut(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	body := noise(1, 100_000)
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			out, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: bytes.NewReader(body), ChecksumAlgorithm: a})
			require.NoError(t, err)
			sum := sumOf(t, a, out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME, out.ChecksumSHA1, out.ChecksumSHA256)
			head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), ChecksumMode: types.ChecksumModeEnabled})
			require.NoError(t, err)
			require.Equal(t, sum, sumOf(t, a, head.ChecksumCRC32, head.ChecksumCRC32C, head.ChecksumCRC64NVME, head.ChecksumSHA1, head.ChecksumSHA256))
			require.Equal(t, types.ChecksumTypeFullObject, head.ChecksumType)
			require.Equal(t, body, get(t, c, "k"), "the SDK validates what it reads")

			quiet, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
			require.NoError(t, err)
			require.Empty(t, quiet.ChecksumType)

			copied, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("copy"), CopySource: aws.String("bucket/k")})
			require.NoError(t, err)
			r := copied.CopyObjectResult
			require.Equal(t, sum, sumOf(t, a, r.ChecksumCRC32, r.ChecksumCRC32C, r.ChecksumCRC64NVME, r.ChecksumSHA1, r.ChecksumSHA256))
		})
	}
}

func TestWrongChecksums(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	bad := base64.StdEncoding.EncodeToString([]byte{1, 2, 3, 4})
	badMD5 := base64.StdEncoding.EncodeToString(make([]byte, 16))
	goodMD5 := md5.Sum([]byte("x"))
	for _, tc := range []struct {
		name   string
		in     s3.PutObjectInput
		status int
		code   string
	}{
		{"crc32", s3.PutObjectInput{ChecksumCRC32: &bad}, 400, "BadDigest"},
		{"crc32 of the wrong length", s3.PutObjectInput{ChecksumCRC32: aws.String("AAAA")}, 400, "InvalidRequest"},
		{"md5", s3.PutObjectInput{ContentMD5: &badMD5}, 400, "BadDigest"},
		{"md5 that is none", s3.PutObjectInput{ContentMD5: aws.String("xyz")}, 400, "InvalidDigest"},
		{"right md5", s3.PutObjectInput{ContentMD5: aws.String(base64.StdEncoding.EncodeToString(goodMD5[:]))}, 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := tc.in
			in.Bucket, in.Key, in.Body = aws.String("bucket"), aws.String("k"), bytes.NewReader([]byte("x"))
			_, err := c.PutObject(t.Context(), &in)
			if tc.status == 200 {
				require.NoError(t, err)
				return
			}
			requireFailure(t, err, tc.status, tc.code)
			require.Empty(t, listKeys(t, c))
		})
	}
}

func TestWrongPayloadHash(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: bytes.NewReader([]byte("x"))},
		s3.WithAPIOptions(smithyhttp.SetHeaderValue("X-Other", "y"), swapHash))
	requireFailure(t, err, 400, "XAmzContentSHA256Mismatch")
	require.Empty(t, listKeys(t, c))
	_ = s
}

func TestDeleteObjectsDemandsChecksum(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	put(t, c, "k", nil)
	in := &s3.DeleteObjectsInput{Bucket: aws.String("bucket"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("k")}}}}
	out, err := c.DeleteObjects(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Deleted, 1)
	_, err = c.DeleteObjects(t.Context(), in, s3.WithAPIOptions(dropChecksums))
	requireFailure(t, err, 400, "InvalidRequest")
	in.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
	_, err = c.DeleteObjects(t.Context(), in)
	require.NoError(t, err)
	for range 1001 {
		in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: aws.String("k")})
	}
	_, err = c.DeleteObjects(t.Context(), in)
	requireFailure(t, err, 400, "MalformedXML")
}

// TestChecksumsOfMultipart compares full-object checksums, which the server
// joins of those of the parts, with ones over the whole body, and reads
// everything back through the SDK's own validation.
func TestChecksumsOfMultipart(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	body := noise(2, 2*partSize+4321)
	be := func(n int, v uint64) string {
		b := binary.BigEndian.AppendUint64(nil, v)
		return base64.StdEncoding.EncodeToString(b[8-n:])
	}
	full := map[types.ChecksumAlgorithm]string{
		types.ChecksumAlgorithmCrc32:     be(4, uint64(crc32.ChecksumIEEE(body))),
		types.ChecksumAlgorithmCrc32c:    be(4, uint64(crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))),
		types.ChecksumAlgorithmCrc64nvme: be(8, crc64.Checksum(body, crc64.MakeTable(0x9a6c9329ac4bc9b5))),
	}
	for _, a := range algorithms {
		for _, kind := range types.ChecksumType("").Values() {
			t.Run(fmt.Sprintf("%s %s", a, kind), func(t *testing.T) {
				create := s3.CreateMultipartUploadInput{ChecksumAlgorithm: a, ChecksumType: kind}
				allowed := kind == types.ChecksumTypeFullObject && full[a] != "" || kind == types.ChecksumTypeComposite && a != types.ChecksumAlgorithmCrc64nvme
				if !allowed {
					create.Bucket, create.Key = aws.String("bucket"), aws.String("k")
					_, err := c.CreateMultipartUpload(t.Context(), &create)
					requireFailure(t, err, 400, "InvalidRequest")
					return
				}
				id, parts := multipart(t, c, "k", body, create)
				if kind == types.ChecksumTypeComposite {
					bare := []types.CompletedPart{{PartNumber: parts[0].PartNumber, ETag: parts[0].ETag}}
					_, err := complete(c, t, "k", id, bare, nil)
					requireFailure(t, err, 400, "InvalidRequest")
				}
				out, err := complete(c, t, "k", id, parts, nil)
				require.NoError(t, err)
				sum := sumOf(t, a, out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME, out.ChecksumSHA1, out.ChecksumSHA256)
				require.Equal(t, kind, out.ChecksumType)
				if kind == types.ChecksumTypeFullObject {
					require.Equal(t, full[a], sum)
				} else {
					require.Contains(t, sum, "-3")
				}
				require.Equal(t, body, get(t, c, "k"))
			})
		}
	}
}

func TestAttributes(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	id, parts := multipart(t, c, "k", noise(2, partSize+1), s3.CreateMultipartUploadInput{ChecksumAlgorithm: types.ChecksumAlgorithmSha256, StorageClass: types.StorageClassStandardIa})
	out, err := complete(c, t, "k", id, parts, nil)
	require.NoError(t, err)
	got, err := c.GetObjectAttributes(t.Context(), &s3.GetObjectAttributesInput{Bucket: aws.String("bucket"), Key: aws.String("k"), ObjectAttributes: types.ObjectAttributes("").Values()})
	require.NoError(t, err)
	require.Equal(t, *out.ETag, `"`+*got.ETag+`"`)
	require.EqualValues(t, partSize+1, *got.ObjectSize)
	require.EqualValues(t, 2, *got.ObjectParts.TotalPartsCount)
	require.Equal(t, *parts[1].ChecksumSHA256, *got.ObjectParts.Parts[1].ChecksumSHA256)
	require.Equal(t, *out.ChecksumSHA256, *got.Checksum.ChecksumSHA256)
	require.Equal(t, types.StorageClassStandardIa, got.StorageClass)
}
