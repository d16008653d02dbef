package emulator_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// found tells in which files below dir a needle lies.
func found(t testing.TB, dir string, needle []byte) []string {
	t.Helper()
	var hits []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, needle) {
			hits = append(hits, path)
		}
		return err
	})
	require.NoError(t, err)
	return hits
}

// TestAtRest stores by every way there is and looks for the plaintext on disk:
// never where the server encrypts, whole and in one file where it does not.
func TestAtRest(t *testing.T) {
	for _, tc := range []struct {
		dialect   string
		plaintext bool
	}{{"aws", false}, {"liar", true}, {"nosse", true}} {
		t.Run(tc.dialect, func(t *testing.T) {
			dir := t.TempDir()
			s, c := bucketOn(t, emulator.Config{Dir: dir, Dialect: tc.dialect})
			small := []byte("a small secret, as small ones leak too")
			body := noise(1, 2*partSize+100)
			copy(body[partSize-20:], small)
			copy(body[10:], small)
			check := func(what string, whole []byte) {
				t.Helper()
				hits := found(t, dir, whole)
				if tc.plaintext {
					require.NotEmpty(t, hits, what)
				} else {
					require.Empty(t, hits, what)
					require.Empty(t, found(t, dir, small), what)
				}
			}
			put(t, c, "small", small)
			check("put", small)
			_, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("copy"), CopySource: aws.String("bucket/small")})
			require.NoError(t, err)
			check("copy", small)
			id, parts := multipart(t, c, "big", body, s3.CreateMultipartUploadInput{})
			check("parts", body[10:10+len(small)])
			_, err = complete(c, t, "big", id, parts, nil)
			require.NoError(t, err)
			check("complete", body)

			// An upload that stops in the middle leaves its bytes in a
			// temporary file while it lasts.
			s.Inject(emulator.Fault{Verb: "PutObject", LoseReply: true})
			_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("lost"), Body: bytes.NewReader(small)})
			require.Error(t, err)
			check("lost reply", small)
		})
	}
}

func TestEncryptionHeaders(t *testing.T) {
	for _, tc := range []struct {
		dialect            string
		plain, asked, head types.ServerSideEncryption
	}{
		{"aws", "AES256", "AES256", "AES256"},
		{"liar", "", "AES256", ""},
		{"nosse", "", "", ""},
	} {
		t.Run(tc.dialect, func(t *testing.T) {
			_, c := bucketOn(t, emulator.Config{Dialect: tc.dialect})
			require.Equal(t, tc.plain, put(t, c, "k", nil).ServerSideEncryption)
			out, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), ServerSideEncryption: types.ServerSideEncryptionAes256})
			require.NoError(t, err)
			require.Equal(t, tc.asked, out.ServerSideEncryption)
			head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
			require.NoError(t, err)
			require.Equal(t, tc.head, head.ServerSideEncryption)
			got, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
			require.NoError(t, err)
			require.Equal(t, tc.head, got.ServerSideEncryption)
			copied, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("c"), CopySource: aws.String("bucket/k"), ServerSideEncryption: types.ServerSideEncryptionAes256})
			require.NoError(t, err)
			require.Equal(t, tc.asked, copied.ServerSideEncryption)
			up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("m"), ServerSideEncryption: types.ServerSideEncryptionAes256})
			require.NoError(t, err)
			require.Equal(t, tc.asked, up.ServerSideEncryption)
			part, err := c.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: aws.String("bucket"), Key: aws.String("m"), UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
			require.NoError(t, err)
			require.Equal(t, tc.plain, part.ServerSideEncryption)
			done, err := complete(c, t, "m", up.UploadId, []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag}}, nil)
			require.NoError(t, err)
			require.Equal(t, tc.plain, done.ServerSideEncryption)

			for _, mode := range []types.ServerSideEncryption{"aws:kms", "aws:kms:dsse", "garbage"} {
				_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), ServerSideEncryption: mode})
				if tc.dialect != "aws" || mode != "garbage" {
					require.NoError(t, err)
					continue
				}
				status, _ := failure(t, err)
				require.Equal(t, 400, status)
			}
			customer := func(o *s3.PutObjectInput) *s3.PutObjectInput {
				o.SSECustomerAlgorithm, o.SSECustomerKey, o.SSECustomerKeyMD5 = aws.String("AES256"), aws.String(strings.Repeat("A", 43)+"="), aws.String("1B2M2Y8AsgTpgAmY7PhCfg==")
				return o
			}
			_, err = c.PutObject(t.Context(), customer(&s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("c")}))
			if tc.dialect == "aws" {
				requireFailure(t, err, 400, "InvalidRequest")
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestBucketEncryption(t *testing.T) {
	rule := func(a types.ServerSideEncryption) *types.ServerSideEncryptionConfiguration {
		return &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: a}}}}
	}
	for _, tc := range []struct {
		dialect                       string
		fresh, afterPut, afterDelete  int
		putAES, putKMS, putBad, erase int
	}{
		{"aws", 200, 200, 200, 200, 200, 400, 204},
		{"liar", 404, 200, 404, 200, 200, 200, 204},
		{"nosse", 501, 501, 501, 501, 501, 501, 501},
	} {
		t.Run(tc.dialect, func(t *testing.T) {
			_, c := bucketOn(t, emulator.Config{Dialect: tc.dialect})
			status := func(err error, good int) int {
				if err == nil {
					return good
				}
				n, _ := failure(t, err)
				return n
			}
			getRule := func() int {
				out, err := c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: aws.String("bucket")})
				if err == nil {
					require.Equal(t, types.ServerSideEncryptionAes256, out.ServerSideEncryptionConfiguration.Rules[0].ApplyServerSideEncryptionByDefault.SSEAlgorithm)
				}
				return status(err, 200)
			}
			putRule := func(a types.ServerSideEncryption) int {
				_, err := c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: aws.String("bucket"), ServerSideEncryptionConfiguration: rule(a)})
				return status(err, 200)
			}
			require.Equal(t, tc.fresh, getRule())
			require.Equal(t, tc.putKMS, putRule("aws:kms"))
			require.Equal(t, tc.putBad, putRule("bogus"))
			require.Equal(t, tc.putAES, putRule("AES256"))
			require.Equal(t, tc.afterPut, getRule())
			_, err := c.DeleteBucketEncryption(t.Context(), &s3.DeleteBucketEncryptionInput{Bucket: aws.String("bucket")})
			require.Equal(t, tc.erase, status(err, 204))
			require.Equal(t, tc.afterDelete, getRule())
			_, err = c.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("bucket")})
			require.NoError(t, err, "the bucket itself is never touched")
		})
	}
}
