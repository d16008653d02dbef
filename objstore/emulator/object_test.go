package emulator_test

import (
	"io"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func TestObjectRoundTrip(t *testing.T) {
	for _, dialect := range plainDialects {
		t.Run(dialect, func(t *testing.T) {
			_, c := bucketOn(t, emulator.Config{Dialect: dialect})
			for _, size := range []int{0, 1, 65535, 65536, 65537, 3<<20 + 17} {
				body := noise(uint64(size), size)
				put(t, c, "dir/key", body)
				require.Equal(t, body, get(t, c, "dir/key"))
				head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("dir/key"), ChecksumMode: types.ChecksumModeEnabled})
				require.NoError(t, err)
				require.EqualValues(t, size, *head.ContentLength)
				require.NotEmpty(t, aws.ToString(head.ChecksumCRC32))
			}
		})
	}
}

func TestRanges(t *testing.T) {
	_, c := bucketOn(t, emulator.Config{})
	body := noise(1, 200_000)
	put(t, c, "k", body)
	for _, tc := range []struct {
		name, header string
		want         []byte
		status       int
	}{
		{"first byte", "bytes=0-0", body[:1], 0},
		{"across a frame", "bytes=65530-65541", body[65530:65542], 0},
		{"open end", "bytes=199990-", body[199990:], 0},
		{"cut at the end", "bytes=199999-300000", body[199999:], 0},
		{"suffix", "bytes=-5", body[199995:], 0},
		{"suffix beyond the start", "bytes=-500000", body, 0},
		{"backwards is ignored", "bytes=9-3", body, 0},
		{"several are ignored", "bytes=0-1,4-5", body, 0},
		{"beyond the end", "bytes=200000-", nil, 416},
		{"empty suffix", "bytes=-0", nil, 416},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Range: &tc.header})
			if tc.status != 0 {
				requireFailure(t, err, tc.status, "InvalidRange")
				return
			}
			require.NoError(t, err)
			got, err := io.ReadAll(out.Body)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}
