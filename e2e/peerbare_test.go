package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	"github.com/minio/minio-go/v7"
)

// What the SDK does by itself, with no file system: the limit of a job.

// warm has the server take so many GiB and give them up again: memory that a
// virtual machine has not touched before, or not for a while, costs it more, and
// who comes first would pay for all.
func warm(t testing.TB, env []string, bucket string, gibs int) {
	t.Helper()
	c := client(t, env)
	for i := range gibs {
		must(t, bareUpload(env, bucket, fmt.Sprint("warm", i), gib))
	}
	for i := range gibs {
		must(t, c.c.RemoveObject(t.Context(), bucket, fmt.Sprint("warm", i), minio.RemoveObjectOptions{}))
	}
}

// bareUpload sends n bytes by the SDK, in parts of 8 MiB, four at a time, as
// many as Coffer does and each summed by CRC32 as there.
func bareUpload(env []string, bucket, key string, n int64) error {
	const part, workers = 8 << 20, 4
	ctx := context.Background()
	c := bareClient(env)
	u, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		return err
	}
	p := bytes.Repeat(pattern(), part>>20)
	done := make([]types.CompletedPart, n/part)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(done) && errs[w] == nil; i += workers {
				sum := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(p)))
				out, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: &bucket, Key: &key, UploadId: u.UploadId, PartNumber: aws.Int32(int32(i + 1)),
					Body: bytes.NewReader(p), ChecksumCRC32: &sum})
				if errs[w] = err; err == nil {
					done[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: out.ETag, ChecksumCRC32: &sum}
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = c.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: u.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: done}})
	return err
}

// bareClient is the SDK's client without its sums of bodies.
func bareClient(env []string) *s3.Client {
	client := awshttp.NewBuildableClient()
	if pem, err := os.ReadFile(envOf(env, "AWS_CA_BUNDLE")); err == nil {
		client = client.WithTransportOptions(func(tr *http.Transport) {
			tr.TLSClientConfig.RootCAs = x509.NewCertPool()
			tr.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
		})
	}
	return s3.New(s3.Options{
		HTTPClient: client,
		Region:     "us-east-1", BaseEndpoint: aws.String(envOf(env, "AWS_ENDPOINT_URL")), UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(envOf(env, "AWS_ACCESS_KEY_ID"), envOf(env, "AWS_SECRET_ACCESS_KEY"), ""),
		APIOptions:                 []func(*middleware.Stack) error{v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware},
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
}

// bareDownload reads the first n bytes of an object in ranges of 8 MiB, eight
// at a time, and drops them.
func bareDownload(env []string, bucket, key string, n int64) error {
	const part, workers = 8 << 20, 8
	c := bareClient(env)
	return inParallel(int((n+part-1)/part), workers, func(i int) error {
		first := int64(i) * part
		span := fmt.Sprintf("bytes=%d-%d", first, min(first+part, n)-1)
		return bareGet(c, &s3.GetObjectInput{Bucket: &bucket, Key: &key, Range: &span}, min(part, n-first))
	})
}

// bareGet reads one answer, which must have n bytes, and drops it.
func bareGet(c *s3.Client, in *s3.GetObjectInput, n int64) error {
	out, err := c.GetObject(context.Background(), in)
	if err != nil {
		return err
	}
	defer out.Body.Close()
	got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, out.Body, make([]byte, 256<<10))
	if err == nil && got != n {
		err = fmt.Errorf("%d bytes of %s, want %d", got, *in.Key, n)
	}
	return err
}

// bareList reads all names below a prefix, page by page.
func bareList(env []string, bucket, prefix string, want int) error {
	pages := s3.NewListObjectsV2Paginator(bareClient(env), &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	n := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			return err
		}
		n += len(page.Contents)
	}
	if n != want {
		return fmt.Errorf("%d names below %s, want %d", n, prefix, want)
	}
	return nil
}

// inParallel does work for 0 to n-1 with some workers, until one fails.
func inParallel(n, workers int, work func(i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[w] == nil; i = int(next.Add(1)) - 1 {
				errs[w] = work(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// barePuts puts n objects of one size, eight at a time.
func barePuts(env []string, bucket string, n, size int, name func(i int) string) error {
	c, data := bareClient(env), pattern()[:size]
	return inParallel(n, 8, func(i int) error {
		key := name(i)
		_, err := c.PutObject(context.Background(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(data)})
		return err
	})
}
