package s3store

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/emulator"

	"github.com/stretchr/testify/require"
)

// TestRangeCopyTrial has the first piece that shows whether a store copies, and
// those that are under way beside it, end in all orders.
func TestRangeCopyTrial(t *testing.T) {
	const slow = 100 * time.Millisecond
	for name, tc := range map[string]struct {
		faults []emulator.Fault
		want   error
	}{
		"copied":         {nil, nil},
		"first is slow":  {[]emulator.Fault{{Nth: 1, Delay: slow}}, nil},
		"second is slow": {[]emulator.Fault{{Nth: 2, Delay: slow}}, nil},
		"501":            {[]emulator.Fault{{Code: "NotImplemented"}}, nil},
		"400":            {[]emulator.Fault{{Code: "InvalidRequest"}}, nil},
		"501, slow":      {[]emulator.Fault{{Nth: 1, Delay: slow}, {Code: "NotImplemented"}}, nil},
		"501, others":    {[]emulator.Fault{{Nth: 2, Delay: slow}, {Code: "NotImplemented"}}, nil},
		"refused":        {[]emulator.Fault{{Code: "AccessDenied"}}, objstore.Permission},
		"one refused":    {[]emulator.Fault{{Nth: 2, Code: "AccessDenied"}}, objstore.Permission},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
			data, own := random(16<<20+7), random(minPartSize+100)
			src := put(t, b, "src", data, objstore.CreateOptions{})
			for _, f := range tc.faults {
				f.Verb = "UploadPartCopy"
				srv.Inject(f)
			}
			w, err := b.Create(t.Context(), "dst", objstore.CreateOptions{Ranges: true})
			require.NoError(t, err)
			_, err = w.Write(own)
			require.NoError(t, err)
			err = w.(objstore.RangeCopier).CopyRange(t.Context(), src.Ref("bucket"), 0, src.Size)
			if err == nil {
				_, err = w.Write(own)
			}
			if err == nil {
				_, err = w.Commit(t.Context())
			}
			if tc.want != nil {
				require.ErrorIs(t, err, tc.want)
				_ = w.Abort()
				return
			}
			require.NoError(t, err)
			require.GreaterOrEqual(t, count(srv, "UploadPartCopy"), 2, "two pieces were tried")
			require.Equal(t, string(own)+string(data)+string(own), string(get(t, b, objstore.Ref{Key: "dst"}, objstore.Range{})))
		})
	}
}

// copyServer answers the first copy of a part when all the others that may be
// in flight have come in, and notes how many those were.
type copyServer struct {
	want int

	mu        sync.Mutex
	now, most int
	full      chan struct{}
}

func (s *copyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodHead:
		w.Header().Set("ETag", `"source"`)
	case r.Method == http.MethodPost && q.Has("uploads"):
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPost:
		fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"whole-1"</ETag></CompleteMultipartUploadResult>`)
	case r.Header.Get("X-Amz-Copy-Source") != "":
		s.mu.Lock()
		s.now++
		if s.most = max(s.most, s.now); s.now == s.want {
			close(s.full)
		}
		s.mu.Unlock()
		select {
		case <-s.full:
		case <-time.After(5 * time.Second):
		}
		time.Sleep(20 * time.Millisecond)
		s.mu.Lock()
		s.now--
		s.want = -1
		s.mu.Unlock()
		fmt.Fprint(w, `<CopyPartResult><ETag>"part"</ETag></CopyPartResult>`)
	default:
		w.Header().Set("ETag", `"part"`)
	}
}

// TestRangeCopiesInFlight: the store copies pieces at the same time, more than
// parts are sent at a time but not all; the first, by which shows whether it
// copies, is not waited for before the others begin, and neither holds up what
// is sent.
func TestRangeCopiesInFlight(t *testing.T) {
	const concurrency = 2
	srv := &copyServer{want: concurrency * copiesPerPart, full: make(chan struct{})}
	b := against(t, Config{Concurrency: concurrency, Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeNone}}}}, srv.ServeHTTP)
	done := &proof{done: make(chan struct{}), res: proved{enc: objstore.Encryption{Mode: objstore.ModeNone}}}
	close(done.done)
	b.proofs[question{ask: ask{Encryption: done.res.enc}}] = done
	w, err := b.Create(t.Context(), "key", objstore.CreateOptions{Ranges: true})
	require.NoError(t, err)
	begun := time.Now()
	require.NoError(t, w.(objstore.RangeCopier).CopyRange(t.Context(), objstore.Ref{Key: "src", ETag: "source"}, 0, 2<<30))
	_, err = w.Write([]byte(strings.Repeat("x", 100)))
	require.NoError(t, err)
	_, err = w.Commit(t.Context())
	require.NoError(t, err)
	require.Less(t, time.Since(begun), 4*time.Second, "the first piece was waited for")
	require.Equal(t, concurrency*copiesPerPart, srv.most)
}
