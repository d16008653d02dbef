package storetest

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// client returns an independent client for s.
func client(t *testing.T, s *Server) *minio.Client {
	t.Helper()
	scheme, addr, _ := strings.Cut(s.Endpoint, "://")
	c, err := minio.New(addr, &minio.Options{
		Creds:     credentials.NewStaticV4(s.AccessKeyID, s.SecretAccessKey, ""),
		Region:    s.Region,
		Secure:    scheme == "https",
		Transport: readyTransport(t, s.CAFile),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServersServeAndEnd(t *testing.T) {
	for name, startServer := range map[string]func(testing.TB) *Server{
		"minio": StartMinIO, "minio-tls": StartMinIOTLS, "versitygw": StartVersityGW,
	} {
		t.Run(name, func(t *testing.T) {
			var pid int
			var dir string
			t.Run("serve", func(t *testing.T) {
				s := startServer(t)
				pid, dir = s.PID(), s.Dir
				roundTrip(t, s)
			})
			if pid == 0 {
				t.Skip("the server is not installed")
			}
			if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
				t.Errorf("process %d after the test: %v, want it gone", pid, err)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("data directory after the test: %v, want it gone", err)
			}
		})
	}
}

// roundTrip puts an object through s and reads it back.
func roundTrip(t *testing.T, s *Server) {
	t.Helper()
	c, ctx := client(t, s), t.Context()
	if err := c.MakeBucket(ctx, "conf-round", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	if _, err := c.PutObject(ctx, "conf-round", "dir/key", bytes.NewReader(want), int64(len(want)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	o, err := c.GetObject(ctx, "conf-round", "dir/key", minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, err %v; want the %d that were put", len(got), err, len(want))
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var o tail
	for range 5 {
		o.Write(bytes.Repeat([]byte{'x'}, tailBytes/2))
	}
	o.Write([]byte("end"))
	if got := o.String(); len(got) != tailBytes || !strings.HasSuffix(got, "xend") {
		t.Errorf("kept %d bytes ending in %q", len(got), got[len(got)-4:])
	}
}
