package emulator_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// TestConcurrentUse lets workers write, read, copy, tag, list and delete the
// same few keys. Every body read is one that was written whole, nothing
// answers 500, and in the end no file is left that no object owns.
func TestConcurrentUse(t *testing.T) {
	for _, dialect := range []string{"aws", "nosse"} {
		t.Run(dialect, func(t *testing.T) {
			dir := t.TempDir()
			s, c := bucketOn(t, emulator.Config{Dir: dir, Dialect: dialect})
			bucket := aws.String("bucket")
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(w), 1))
					for i := range 60 {
						key, other := aws.String(fmt.Sprintf("k%d", rng.IntN(4))), aws.String(fmt.Sprintf("k%d", rng.IntN(4)))
						switch rng.IntN(7) {
						case 0, 1:
							body := bytes.Repeat(fmt.Appendf(nil, "%d-%d;", w, i), 1+rng.IntN(30_000))
							if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: bytes.NewReader(body)}); err != nil {
								t.Errorf("put: %v", err)
							}
						case 2, 3:
							b, err := tryGet(t.Context(), c, *key)
							if err != nil {
								if !strings.Contains(err.Error(), "NoSuchKey") {
									t.Errorf("get: %v", err)
								}
								continue
							}
							first, _, _ := bytes.Cut(b, []byte(";"))
							unit := append(bytes.Clone(first), ';')
							if !bytes.Equal(b, bytes.Repeat(unit, len(b)/len(unit))) {
								t.Errorf("get %s: a mix of bodies", *key)
							}
						case 4:
							_, _ = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: key, CopySource: aws.String("bucket/" + *other), MetadataDirective: types.MetadataDirectiveReplace})
						case 5:
							_, _ = c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: bucket, Key: key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("w"), Value: aws.String("x")}}}})
							if _, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket}); err != nil {
								t.Errorf("list: %v", err)
							}
						case 6:
							if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: key}); err != nil {
								t.Errorf("delete: %v", err)
							}
						}
					}
				})
			}
			wg.Wait()
			for _, r := range s.Requests() {
				require.Less(t, r.Status, 500, "%s %s", r.Verb, r.Code)
			}
			keys := listKeys(t, c)
			for _, key := range keys {
				get(t, c, key)
			}
			// The last reader of a replaced version may still be closing it.
			require.Eventually(t, func() bool { return countFiles(t, dir+"/buckets/bucket/data") == len(keys) }, 5*time.Second, 10*time.Millisecond)
			require.Equal(t, len(keys), countFiles(t, dir+"/buckets/bucket/meta"))
			require.Zero(t, countFiles(t, dir+"/tmp"))
			for _, key := range keys {
				_, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: &key})
				require.NoError(t, err)
			}
			_, err := c.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: bucket})
			require.NoError(t, err)
			require.NoDirExists(t, dir+"/buckets/bucket")
		})
	}
}
