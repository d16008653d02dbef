package emulator_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func TestRestart(t *testing.T) {
	for _, dialect := range plainDialects {
		t.Run(dialect, func(t *testing.T) {
			cfg := emulator.Config{Dir: t.TempDir(), Dialect: dialect, AccessKeyID: accessKey, SecretAccessKey: secretKey}
			s, err := emulator.New(cfg)
			require.NoError(t, err)
			require.NoError(t, s.Listen("127.0.0.1:0"))
			c := sdk(t, s)
			_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
			require.NoError(t, err)
			_, err = c.PutObject(t.Context(), described("described"))
			require.NoError(t, err)
			setVersioning(t, c, types.BucketVersioningStatusEnabled)
			v1 := put(t, c, "versions", []byte("one")).VersionId
			put(t, c, "versions", []byte("two"))
			_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("versions")})
			require.NoError(t, err)
			body := noise(9, partSize+99)
			id, parts := multipart(t, c, "big", body, s3.CreateMultipartUploadInput{ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
			doneID, doneParts := multipart(t, c, "done", body, s3.CreateMultipartUploadInput{})
			_, err = complete(c, t, "done", doneID, doneParts, nil)
			require.NoError(t, err)
			for _, key := range oddKeys {
				put(t, c, key, []byte(key))
			}
			before, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("described"), ChecksumMode: types.ChecksumModeEnabled})
			require.NoError(t, err)
			_, err = emulator.New(cfg)
			require.ErrorContains(t, err, "another server uses it")
			require.NoError(t, s.Close())
			require.NoError(t, s.Close(), "closing twice is fine")

			// What a killed process may leave behind.
			data := filepath.Join(cfg.Dir, "buckets", "bucket", "data", "00")
			require.NoError(t, os.MkdirAll(data, 0o700))
			orphan, tmp := filepath.Join(data, "00orphan"), filepath.Join(cfg.Dir, "tmp", "half")
			require.NoError(t, os.WriteFile(orphan, []byte("x"), 0o600))
			require.NoError(t, os.WriteFile(tmp, []byte("x"), 0o600))
			require.NoError(t, os.Mkdir(filepath.Join(cfg.Dir, "buckets", "bucket", "uploads", "half"), 0o700))

			s = start(t, cfg)
			c = sdk(t, s)
			require.NoFileExists(t, orphan)
			require.NoFileExists(t, tmp)
			after, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("described"), ChecksumMode: types.ChecksumModeEnabled})
			require.NoError(t, err)
			after.ResultMetadata = before.ResultMetadata // holds times and request ids
			require.Equal(t, before, after)
			require.Equal(t, "content", string(get(t, c, "described")))
			for _, key := range oddKeys {
				require.Equal(t, key, string(get(t, c, key)))
			}
			_, err = tryGet(t.Context(), c, "versions")
			requireFailure(t, err, 404, "NoSuchKey")
			old, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("versions"), VersionId: v1})
			require.NoError(t, err)
			got, err := io.ReadAll(old.Body)
			require.NoError(t, err)
			require.Equal(t, "one", string(got))
			ups, err := c.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String("bucket")})
			require.NoError(t, err)
			require.Len(t, ups.Uploads, 1)
			_, err = complete(c, t, "big", id, parts, nil)
			require.NoError(t, err)
			require.Equal(t, body, get(t, c, "big"))
			_, err = complete(c, t, "done", doneID, doneParts, nil)
			require.NoError(t, err, "a repeated Complete is known after a restart")
		})
	}
}

// TestKilled runs a server in a process of its own, kills it while objects are
// replaced, and finds each object whole: the old one or a newer one.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("EMULATOR_TEST_DIR"); dir != "" {
		serveUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "EMULATOR_TEST_DIR="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line := make([]byte, 200)
		n, err := out.Read(line)
		require.NoError(t, err)
		endpoint := strings.TrimSpace(strings.SplitN(string(line[:n]), "\n", 2)[0])
		c := s3.New(s3.Options{BaseEndpoint: &endpoint, Region: "us-east-1", UsePathStyle: true, RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")})
		_, err = c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")})
		require.NoError(t, err)
		acked := make([]int, 4)
		var wg sync.WaitGroup
		for w := range acked {
			acked[w] = -1
			wg.Go(func() {
				for i := 0; ; i++ {
					body := bytes.Repeat(fmt.Appendf(nil, "%d %d %06d\n", round, w, i), 5000)
					_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String(fmt.Sprintf("k%d", w)), Body: bytes.NewReader(body)})
					if err != nil {
						return
					}
					acked[w] = i
				}
			})
		}
		time.Sleep(150 * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		wg.Wait()

		s, err := emulator.New(emulator.Config{Dir: dir, AccessKeyID: accessKey, SecretAccessKey: secretKey})
		require.NoError(t, err)
		require.NoError(t, s.Listen("127.0.0.1:0"))
		c = sdk(t, s)
		for w, last := range acked {
			require.GreaterOrEqual(t, last, 0, "writer %d never wrote", w)
			got := get(t, c, fmt.Sprintf("k%d", w))
			line, _, _ := bytes.Cut(got, []byte("\n"))
			require.Equal(t, bytes.Repeat(append(line, '\n'), 5000), got)
			var r, by, i int
			_, err := fmt.Sscanf(string(line), "%d %d %d", &r, &by, &i)
			require.NoError(t, err)
			require.Equal(t, []int{round, w}, []int{r, by})
			require.GreaterOrEqual(t, i, last, "what was acknowledged is there")
		}
		require.NoError(t, s.Close())
	}
}

func serveUntilKilled(t *testing.T, dir string) {
	s, err := emulator.New(emulator.Config{Dir: dir, AccessKeyID: accessKey, SecretAccessKey: secretKey})
	require.NoError(t, err)
	require.NoError(t, s.Listen("127.0.0.1:0"))
	fmt.Println(s.Endpoint())
	time.Sleep(time.Minute) // killed long before
	t.Fatal("was not killed")
}

// TestReplacedWhileRead overwrites and deletes an object under a reader.
func TestReplacedWhileRead(t *testing.T) {
	for _, dialect := range []string{"aws", "nosse"} {
		t.Run(dialect, func(t *testing.T) {
			dir := t.TempDir()
			_, c := bucketOn(t, emulator.Config{Dir: dir, Dialect: dialect})
			body := noise(1, 30<<20) // more than the sockets' buffers hold
			id, parts := multipart(t, c, "k", body, s3.CreateMultipartUploadInput{})
			_, err := complete(c, t, "k", id, parts, nil)
			require.NoError(t, err)
			out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
			require.NoError(t, err)
			defer out.Body.Close()
			first := make([]byte, 1000)
			_, err = io.ReadFull(out.Body, first)
			require.NoError(t, err)
			put(t, c, "k", []byte("new"))
			_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
			require.NoError(t, err)
			rest, err := io.ReadAll(out.Body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(body, append(first, rest...)))
			require.Eventually(t, func() bool { return countFiles(t, filepath.Join(dir, "buckets", "bucket", "data")) == 0 }, 5*time.Second, 10*time.Millisecond)
			require.Zero(t, countFiles(t, filepath.Join(dir, "tmp")))
		})
	}
}

func countFiles(t *testing.T, dir string) int {
	t.Helper()
	return len(found(t, dir, nil))
}
