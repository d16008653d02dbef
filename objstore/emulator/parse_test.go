package emulator

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func FuzzParseRange(f *testing.F) {
	for _, text := range []string{"bytes=0-0", "bytes=-5", "bytes=9-", "bytes=3-1", "bytes=1-2,3-4", "lines=1-2", "bytes=99999999999999999999-"} {
		f.Add(text, int64(10))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		if size < 0 {
			t.Skip("objects have no negative size")
		}
		off, n, given, ok := parseRange(text, size)
		switch {
		case !ok:
			require.True(t, given)
		case !given:
			require.Equal(t, [2]int64{0, size}, [2]int64{off, n})
		default:
			require.Positive(t, n)
			require.GreaterOrEqual(t, off, int64(0))
			require.LessOrEqual(t, n, size-off)
		}
	})
}

func FuzzParseSource(f *testing.F) {
	f.Add("bucket/key")
	f.Add("/bucket/a%20b?versionId=x")
	f.Add("?")
	f.Fuzz(func(t *testing.T, text string) {
		bucket, key, _, err := parseSource(text)
		if err == nil {
			require.NotEmpty(t, bucket)
			require.NotEmpty(t, key)
			require.NotContains(t, bucket, "/")
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add("plain")
	f.Add("ä 日本語")
	f.Add("=?UTF-8?b?w6Q=?=")
	f.Fuzz(func(t *testing.T, v string) {
		// What was decoded once survives every further round.
		stored := decodeMeta(v)
		shown := encodeMeta(stored)
		for _, c := range []byte(shown) {
			require.True(t, c < 0x80, "%q", shown)
		}
		if shown != stored {
			require.Equal(t, stored, decodeMeta(shown))
		}
	})
}

func TestTarget(t *testing.T) {
	for _, tc := range []struct {
		host, path, bucket, key string
		level                   level
	}{
		{"127.0.0.1:9", "/", "", "", onService},
		{"127.0.0.1:9", "/b", "b", "", onBucket},
		{"127.0.0.1:9", "/b/", "b", "", onBucket},
		{"127.0.0.1:9", "/b//k", "b", "/k", onObject},
		{"localhost:9", "/b/k", "b", "k", onObject},
		{"b.localhost", "/k/l", "b", "k/l", onObject},
		{"b.s3.localhost:1", "/", "b", "", onBucket},
		{"s3.localhost", "/b/k", "b", "k", onObject},
	} {
		bucket, key, lv := target(tc.host, tc.path)
		require.Equal(t, []any{tc.bucket, tc.key, tc.level}, []any{bucket, key, lv}, "%s %s", tc.host, tc.path)
	}
}

func TestNotModifiedHasNoBody(t *testing.T) {
	v := &version{Seq: time.Now().UnixNano(), ETag: "e"}
	err := readCondition(http.Header{"If-None-Match": {`W/"x", "e"`}}, "", v)
	requireCode(t, err, "NotModified")
	require.NoError(t, readCondition(http.Header{"If-None-Match": {`"x"`}}, "", v))
	require.NoError(t, readCondition(http.Header{"If-Modified-Since": {"garbage"}}, "", v))
}

func TestClockNeverRepeats(t *testing.T) {
	still := time.Unix(1000, 0)
	c := &clock{now: func() time.Time { return still }}
	first := c.next()
	require.Equal(t, still.UnixNano(), first)
	require.Equal(t, first+1, c.next())
	c.atLeast(first + 100)
	require.Equal(t, first+101, c.next())
}
