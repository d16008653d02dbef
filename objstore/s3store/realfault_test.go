package s3store

import (
	"sync/atomic"
	"testing"

	"coffer/objstore"
	"coffer/objstore/emulator"
	"coffer/objstore/storetest"

	"github.com/stretchr/testify/require"
)

// Real servers forget an upload that was completed, each in its own way, so
// replies that get lost are tried on them too.
func TestLostRepliesOfRealServers(t *testing.T) {
	big, small := random(6<<20), random(1000)
	for _, srv := range realServers {
		t.Run(srv.name, func(t *testing.T) {
			p := storetest.StartProxy(t, srv.start(t))
			s := testStore(t, p.Server().Env(), Config{PartSize: minPartSize, AllowUnencrypted: !srv.encrypts})
			_, err := s.CreateBucket(t.Context(), "lost", objstore.CreateBucketOptions{})
			require.NoError(t, err)
			b, err := s.Open(t.Context(), "lost")
			require.NoError(t, err)
			for _, verb := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
				for name, cond := range map[string]objstore.Condition{"": {}, " exclusive": {IfAbsent: true}} {
					t.Run(verb+name, func(t *testing.T) {
						var hit atomic.Int32
						p.Inject(func(r storetest.ProxyRequest) storetest.ProxyEffect {
							return storetest.ProxyEffect{LoseReply: r.Verb == verb && hit.Add(1) == 1}
						})
						defer p.Inject(nil)
						data := big
						if verb == "PutObject" {
							data = small
						}
						o := put(t, b, verb+name, data, objstore.CreateOptions{Cond: cond, Meta: map[string]string{"a": "ü"}})
						require.Equal(t, srv.encrypts, o.Encryption.Encrypted())
						require.Greater(t, hit.Load(), int32(1))
						require.Equal(t, data, get(t, b, o.Ref(""), objstore.Range{}))
					})
				}
			}
			t.Run("copy onto itself", func(t *testing.T) {
				var hit atomic.Int32
				p.Inject(func(r storetest.ProxyRequest) storetest.ProxyEffect {
					return storetest.ProxyEffect{LoseReply: r.Verb == "CopyObject" && hit.Add(1) == 1}
				})
				defer p.Inject(nil)
				_, err := b.Copy(t.Context(), "UploadPart", objstore.Ref{Key: "UploadPart"}, objstore.CopyOptions{Meta: map[string]string{"c": "d"}})
				require.NoError(t, err)
				require.Greater(t, hit.Load(), int32(1))
				require.Equal(t, big, get(t, b, objstore.Ref{Key: "UploadPart"}, objstore.Range{}))
			})
		})
	}
}

func TestWritesSurvive(t *testing.T) {
	big := random(6 << 20)
	srv, s, b := emulated(t, "aws", Config{PartSize: minPartSize})
	for _, verb := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
		for name, f := range map[string]emulator.Fault{
			"reset": {Reset: true, Count: 2}, "500": {Status: 500, Count: 2}, "no reply": {Stall: true, Count: 1}, "slow down": {Status: 503, Count: 1},
			"damaged on the way": {Status: 400, Code: "BadDigest", Count: 1},
		} {
			if f.Stall && verb != "PutObject" {
				continue // a part may take a second for each MiB
			}
			t.Run(verb+" "+name, func(t *testing.T) {
				defer srv.ClearFaults()
				f.Verb = verb
				srv.ResetRequests()
				srv.Inject(f)
				data := big
				if verb == "PutObject" {
					data = big[:1000]
				}
				o := put(t, b, "key", data, objstore.CreateOptions{})
				require.Greater(t, count(srv, verb), 1)
				require.Equal(t, data, get(t, b, o.Ref(""), objstore.Range{}))
			})
		}
	}
	for u := range s.ListUploads(t.Context(), "bucket", "") {
		t.Errorf("left behind: %+v", u)
	}
}
