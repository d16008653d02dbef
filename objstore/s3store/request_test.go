package s3store

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coffer/objstore"

	"github.com/stretchr/testify/require"
)

func TestRequestsCarryWhatWasChosen(t *testing.T) {
	var seen []http.Header
	handler := func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		w.Header().Set("ETag", `"tag"`)
	}
	b := against(t, Config{Anonymous: true, RequesterPays: true, UserAgent: "coffer/test"}, handler)
	_, err := b.Head(t.Context(), objstore.Ref{Key: "key"})
	require.NoError(t, err)
	require.Empty(t, seen[0].Get("Authorization"))
	require.Equal(t, "requester", seen[0].Get("X-Amz-Request-Payer"))
	require.Contains(t, seen[0].Get("User-Agent"), "coffer/test")

	seen = nil
	b = against(t, Config{}, handler)
	_, err = b.Head(t.Context(), objstore.Ref{Key: "key"})
	require.NoError(t, err)
	require.Contains(t, seen[0].Get("Authorization"), "Credential=k/")
	require.Empty(t, seen[0].Get("X-Amz-Request-Payer"))
}

// partServer takes multipart uploads slowly and notes how it was used.
type partServer struct {
	t         *testing.T
	now, most atomic.Int32
	three     chan struct{} // closed once three parts are on their way
	once      sync.Once
	mu        sync.Mutex
	wrong     int
	total     int64
}

func (s *partServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPut && q.Has("partNumber"):
		n := s.now.Add(1)
		for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
		}
		if n == 3 {
			s.once.Do(func() { close(s.three) })
		}
		h := crc32.NewIEEE()
		size, _ := io.Copy(h, r.Body)
		time.Sleep(20 * time.Millisecond)
		select { // however slowly they are made
		case <-s.three:
		case <-time.After(3 * time.Second):
		}
		s.mu.Lock()
		s.total += size
		if r.Header.Get("X-Amz-Checksum-Crc32") != crcText(h.Sum32()) || r.Header.Get("Content-Md5") == "" {
			s.wrong++ // both are due while nobody knows what the endpoint honours
		}
		s.mu.Unlock()
		s.now.Add(-1)
		w.Header().Set("ETag", `"part"`)
	case r.Method == http.MethodPost:
		fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"whole-1"</ETag></CompleteMultipartUploadResult>`)
	}
}

func TestPartsInFlightAreBounded(t *testing.T) {
	srv := &partServer{t: t, three: make(chan struct{})}
	b := against(t, Config{PartSize: minPartSize, Concurrency: 3, OperationTimeout: 20 * time.Second,
		Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeNone}}}}, srv.ServeHTTP)
	// The proof is not what this is about.
	done := &proof{done: make(chan struct{}), res: proved{enc: objstore.Encryption{Mode: objstore.ModeNone}}}
	close(done.done)
	b.proofs[question{ask: ask{Encryption: done.res.enc}}] = done
	w, err := b.Create(t.Context(), "key", objstore.CreateOptions{})
	require.NoError(t, err)
	chunk := random(1 << 20)
	for range 63 {
		_, err := w.Write(chunk)
		require.NoError(t, err)
		require.LessOrEqual(t, w.(*writer).inFlight, 3)
	}
	o, err := w.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(63<<20), o.Size)
	require.Equal(t, int64(63<<20), srv.total)
	require.Equal(t, int32(3), srv.most.Load())
	require.Zero(t, srv.wrong)
}

func TestWriterEndsOnce(t *testing.T) {
	_, _, b := emulated(t, "aws", Config{})
	w, err := b.Create(t.Context(), "key", objstore.CreateOptions{})
	require.NoError(t, err)
	_, err = w.Commit(t.Context())
	require.NoError(t, err)
	_, err = w.Commit(t.Context())
	require.ErrorIs(t, err, errEnded)
	_, err = w.Write([]byte("x"))
	require.ErrorIs(t, err, errEnded)
	require.NoError(t, w.Abort())
	require.Equal(t, []string{"key"}, list(t, b, objstore.Query{}))
}

// TestSmallFileIsOneWrite: a body that is sent apart from its headers costs both
// sides another system call.
func TestSmallFileIsOneWrite(t *testing.T) {
	_, s, b := emulated(t, "aws", Config{})
	put(t, b, "first", random(10), objstore.CreateOptions{}) // what the bucket is asked at first is over
	var writes atomic.Int32
	dial := s.transport.DialContext
	s.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return countedConn{c.(*conn), &writes}, err
	}
	s.conns.close()
	data := random(4 << 10)
	o := put(t, b, "small", data, objstore.CreateOptions{})
	require.Equal(t, int32(1), writes.Load())
	require.Equal(t, data, get(t, b, o.Ref(""), objstore.Range{}))
}

type countedConn struct {
	*conn
	writes *atomic.Int32
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.conn.Write(p)
}

// TestListingsThatAreNone: some servers put a refusal behind the status 200.
func TestListingsThatAreNone(t *testing.T) {
	const good = `<ListBucketResult><Contents><Key>key</Key></Contents></ListBucketResult>`
	for name, c := range map[string]struct {
		first string
		kind  objstore.Kind // 0 where a repetition helps
	}{
		"busy":    {`<?xml version="1.0"?><Error><Code>SlowDown</Code></Error>`, 0},
		"refused": {`<Error><Code>AccessDenied</Code><Message>no</Message></Error>`, objstore.Permission},
		"other":   {`<html><body>Welcome</body></html>`, objstore.Integrity},
		"empty":   {``, 0},
		"cut":     {good[:40], objstore.Integrity},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) == 1 {
					fmt.Fprint(w, c.first)
				} else {
					fmt.Fprint(w, good)
				}
			})
			var keys []string
			for e, err := range b.List(t.Context(), objstore.Query{}) {
				if c.kind != 0 {
					require.ErrorIs(t, err, c.kind)
					return
				}
				require.NoError(t, err)
				keys = append(keys, e.Key)
			}
			require.Equal(t, []string{"key"}, keys)
		})
	}
}
