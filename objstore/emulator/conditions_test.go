package emulator_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func TestConditionalWrites(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	etag := put(t, c, "there", []byte("x")).ETag
	wrong := aws.String(`"00000000000000000000000000000000"`)
	for _, tc := range []struct {
		name, key   string
		noneMatch   *string
		match       *string
		status      int
		code        string
		wantContent string
	}{
		{name: "absent wanted and absent", key: "new", noneMatch: aws.String("*"), wantContent: "y"},
		{name: "absent wanted and there", key: "there", noneMatch: aws.String("*"), status: 412, code: "PreconditionFailed", wantContent: "x"},
		{name: "wrong etag", key: "there", match: wrong, status: 412, code: "PreconditionFailed", wantContent: "x"},
		{name: "etag of what is absent", key: "missing", match: wrong, status: 404, code: "NoSuchKey"},
		{name: "another etag in If-None-Match", key: "there", noneMatch: wrong, status: 501, code: "NotImplemented", wantContent: "x"},
		{name: "right etag", key: "there", match: etag, wantContent: "y"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &tc.key, Body: bytes.NewReader([]byte("y")), IfNoneMatch: tc.noneMatch, IfMatch: tc.match})
			if tc.status == 0 {
				require.NoError(t, err)
			} else {
				requireFailure(t, err, tc.status, tc.code)
			}
			got, err := tryGet(t.Context(), c, tc.key)
			if tc.wantContent == "" {
				requireFailure(t, err, 404, "NoSuchKey")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.wantContent, string(got))
		})
	}
}

// TestConditionalRaces lets many writers race: exactly one may win, and the
// object must be the winner's.
func TestConditionalRaces(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	race := func(t *testing.T, key, round string, match, noneMatch *string) {
		const writers = 16
		won := make([]bool, writers)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				_, err := c.PutObject(t.Context(), &s3.PutObjectInput{
					Bucket: aws.String("bucket"), Key: &key, Body: bytes.NewReader(fmt.Appendf(nil, "%s %d", round, i)), IfMatch: match, IfNoneMatch: noneMatch,
				})
				won[i] = err == nil
			})
		}
		wg.Wait()
		winners := 0
		for i, w := range won {
			if w {
				winners++
				require.Equal(t, fmt.Sprintf("%s %d", round, i), string(get(t, c, key)))
			}
		}
		require.Equal(t, 1, winners)
	}
	for i := range 5 {
		key := fmt.Sprintf("race %d", i)
		race(t, key, "create", nil, aws.String("*"))
		head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: &key})
		require.NoError(t, err)
		race(t, key, "replace", head.ETag, nil)
	}
}

func TestConditionalReads(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	etag := put(t, c, "k", []byte("x")).ETag
	wrong := aws.String(`"bad"`)
	past, future := aws.Time(time.Now().Add(-time.Hour)), aws.Time(time.Now().Add(time.Hour))
	for _, tc := range []struct {
		name   string
		in     s3.GetObjectInput
		status int
	}{
		{"match", s3.GetObjectInput{IfMatch: etag}, 200},
		{"match fails", s3.GetObjectInput{IfMatch: wrong}, 412},
		{"none match", s3.GetObjectInput{IfNoneMatch: wrong}, 200},
		{"none match fails", s3.GetObjectInput{IfNoneMatch: etag}, 304},
		{"modified since", s3.GetObjectInput{IfModifiedSince: past}, 200},
		{"not modified since", s3.GetObjectInput{IfModifiedSince: future}, 304},
		{"unmodified since", s3.GetObjectInput{IfUnmodifiedSince: future}, 200},
		{"modified after all", s3.GetObjectInput{IfUnmodifiedSince: past}, 412},
		{"match wins over unmodified since", s3.GetObjectInput{IfMatch: etag, IfUnmodifiedSince: past}, 200},
		{"none match wins over modified since", s3.GetObjectInput{IfNoneMatch: etag, IfModifiedSince: past}, 304},
		{"star", s3.GetObjectInput{IfNoneMatch: aws.String("*")}, 304},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := tc.in
			in.Bucket, in.Key = aws.String("bucket"), aws.String("k")
			_, err := c.GetObject(t.Context(), &in)
			_, herr := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: in.Bucket, Key: in.Key, IfMatch: in.IfMatch, IfNoneMatch: in.IfNoneMatch, IfModifiedSince: in.IfModifiedSince, IfUnmodifiedSince: in.IfUnmodifiedSince})
			if tc.status == 200 {
				require.NoError(t, err)
				require.NoError(t, herr)
				return
			}
			status, _ := failure(t, err)
			require.Equal(t, tc.status, status)
			status, _ = failure(t, herr)
			require.Equal(t, tc.status, status)
		})
	}
}

func TestConditionalDelete(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	etag := put(t, c, "k", []byte("x")).ETag
	_, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), IfMatch: aws.String(`"bad"`)})
	requireFailure(t, err, 412, "PreconditionFailed")
	out, err := c.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("bucket"), Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("k"), ETag: aws.String(`"bad"`)}, {Key: aws.String("absent")},
	}}})
	require.NoError(t, err)
	require.Len(t, out.Errors, 1)
	require.Equal(t, "PreconditionFailed", *out.Errors[0].Code)
	require.Len(t, out.Deleted, 1)
	_, err = c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), IfMatch: etag})
	require.NoError(t, err)
	_, err = tryGet(t.Context(), c, "k")
	requireFailure(t, err, 404, "NoSuchKey")
}
