package emulator_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// BenchmarkPut and BenchmarkGet include the client, which hashes and copies on
// the same processors.
func BenchmarkPut(b *testing.B) {
	for _, dialect := range []string{"aws", "nosse"} {
		for _, size := range []int{4 << 10, 16 << 20} {
			b.Run(fmt.Sprintf("%s/%d", dialect, size), func(b *testing.B) {
				_, c := bucketOn(b, emulator.Config{Dialect: dialect})
				body := noise(1, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					put(b, c, "k", body)
				}
			})
		}
	}
}

func BenchmarkGet(b *testing.B) {
	for _, dialect := range []string{"aws", "nosse"} {
		for _, size := range []int{4 << 10, 16 << 20} {
			b.Run(fmt.Sprintf("%s/%d", dialect, size), func(b *testing.B) {
				_, c := bucketOn(b, emulator.Config{Dialect: dialect})
				put(b, c, "k", noise(1, size))
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					out, err := c.GetObject(b.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
					require.NoError(b, err)
					_, err = io.Copy(io.Discard, out.Body)
					require.NoError(b, err)
					out.Body.Close()
				}
			})
		}
	}
}

// BenchmarkManyObjects shows what a bucket of 100,000 objects costs: to open
// and to list.
func BenchmarkManyObjects(b *testing.B) {
	const objects = 100_000
	dir := b.TempDir()
	cfg := emulator.Config{Dir: dir, AccessKeyID: accessKey, SecretAccessKey: secretKey, LogSize: 1}
	s, err := emulator.New(cfg)
	require.NoError(b, err)
	require.NoError(b, s.Listen("127.0.0.1:0"))
	c := sdk(b, s)
	_, err = c.CreateBucket(b.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
	require.NoError(b, err)
	for i := range objects {
		_, err := c.PutObject(b.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String(fmt.Sprintf("dir%03d/file%06d", i%100, i)), Body: bytes.NewReader(nil)})
		require.NoError(b, err)
	}
	b.Run("list page", func(b *testing.B) {
		for b.Loop() {
			out, err := c.ListObjectsV2(b.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), StartAfter: aws.String("dir050")})
			require.NoError(b, err)
			require.Len(b, out.Contents, 1000)
		}
	})
	b.Run("list with delimiter", func(b *testing.B) {
		for b.Loop() {
			out, err := c.ListObjectsV2(b.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket"), Delimiter: aws.String("/")})
			require.NoError(b, err)
			require.Len(b, out.CommonPrefixes, 100)
		}
	})
	require.NoError(b, s.Close())
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			s, err := emulator.New(cfg)
			require.NoError(b, err)
			require.NoError(b, s.Close())
		}
	})
}
