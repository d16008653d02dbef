package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

// faulty starts a server that holds a body under "k", with one rule.
func faulty(t *testing.T, f emulator.Fault) (*emulator.Server, *s3.Client, []byte) {
	t.Helper()
	s, c := bucketOn(t, emulator.Config{})
	body := noise(1, 1<<20)
	put(t, c, "k", body)
	s.ResetRequests()
	s.Inject(f)
	return s, c, body
}

func TestFaultStatus(t *testing.T) {
	s, c, body := faulty(t, emulator.Fault{Verb: "PutObject", Status: 503, Count: 1})
	in := func() *s3.PutObjectInput {
		return &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: bytes.NewReader(noise(2, 8<<20))}
	}
	_, err := c.PutObject(t.Context(), in())
	requireFailure(t, err, 503, "SlowDown")
	require.Equal(t, body, get(t, c, "k"), "nothing was done")
	_, err = c.PutObject(t.Context(), in())
	require.NoError(t, err)
	requests := s.Requests()
	require.Equal(t, "SlowDown", requests[0].Code)
	require.Equal(t, 503, requests[0].Status)

	s.Inject(emulator.Fault{Verb: "GetObject", Code: "ExpiredToken"})
	_, err = tryGet(t.Context(), c, "k")
	requireFailure(t, err, 400, "ExpiredToken")
	s.ClearFaults()
	get(t, c, "k")
}

func TestFaultDelay(t *testing.T) {
	_, c, body := faulty(t, emulator.Fault{Verb: "GetObject", Delay: 100 * time.Millisecond})
	start := time.Now()
	require.Equal(t, body, get(t, c, "k"))
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond)
}

func TestFaultLoseReply(t *testing.T) {
	s, c, _ := faulty(t, emulator.Fault{Verb: "PutObject", LoseReply: true, Count: 1})
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: bytes.NewReader([]byte("new"))})
	require.Error(t, err)
	require.Equal(t, "new", string(get(t, c, "k")), "it was committed")
	r := s.Requests()[0]
	require.Zero(t, r.Status)
	require.Equal(t, 200, r.Processed)
}

func TestFaultTruncateBody(t *testing.T) {
	_, c, body := faulty(t, emulator.Fault{Verb: "GetObject", TruncateBody: true})
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k")})
	require.NoError(t, err)
	require.EqualValues(t, len(body), *out.ContentLength)
	got, err := io.ReadAll(out.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, body[:len(body)/2], got)
}

func TestFaultFlipBit(t *testing.T) {
	_, c, body := faulty(t, emulator.Fault{Verb: "GetObject", FlipBit: true})
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Range: aws.String("bytes=0-999")})
	require.NoError(t, err)
	got, err := io.ReadAll(out.Body)
	require.NoError(t, err)
	want := bytes.Clone(body[:1000])
	want[500] ^= 1
	require.Equal(t, want, got)
	_, err = tryGet(t.Context(), c, "k")
	require.ErrorContains(t, err, "checksum", "the SDK notices by the checksum of the whole")
}

func TestFaultStall(t *testing.T) {
	for _, f := range []emulator.Fault{{Verb: "GetObject", Stall: true}, {Verb: "GetObject", StallBody: true}} {
		s, c, _ := faulty(t, f)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := tryGet(ctx, c, "k")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
		// Close ends a stall, too.
		done := make(chan error, 1)
		go func() {
			_, err := tryGet(context.Background(), c, "k")
			done <- err
		}()
		require.Eventually(t, func() bool { return len(s.Requests()) >= 2 }, 5*time.Second, time.Millisecond)
		require.NoError(t, s.Close())
		require.Error(t, <-done)
	}
}

func TestFaultReset(t *testing.T) {
	s, c, body := faulty(t, emulator.Fault{Verb: "PutObject", Reset: true, Count: 1})
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Body: bytes.NewReader([]byte("new"))})
	require.Error(t, err)
	// Whoever of the client's reader and writer meets the reset second finds
	// the pipe broken, or the connection closed by the first.
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed), "%v", err)
	require.Equal(t, body, get(t, c, "k"), "nothing was done")
	require.Zero(t, s.Requests()[0].BodyBytes)
}

func TestFaultsOnMultipart(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	body := noise(3, partSize+5)
	id, parts := multipart(t, c, "k", body, s3.CreateMultipartUploadInput{})
	s.Inject(emulator.Fault{Verb: "CompleteMultipartUpload", LoseReply: true, Count: 1})
	_, err := complete(c, t, "k", id, parts, nil)
	require.Error(t, err)
	_, err = complete(c, t, "k", id, parts, nil)
	require.NoError(t, err)
	require.Equal(t, body, get(t, c, "k"))
}

func TestInjectRefusesNonsense(t *testing.T) {
	s := start(t, emulator.Config{})
	require.Panics(t, func() { s.Inject(emulator.Fault{Status: 200}) })
}
