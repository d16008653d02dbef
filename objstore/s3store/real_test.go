package s3store

import (
	"errors"
	"strings"
	"testing"

	"coffer/objstore"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRealServers(t *testing.T) {
	for _, srv := range realServers {
		t.Run(srv.name, func(t *testing.T) {
			s := testStore(t, srv.start(t).Env(), Config{AllowUnencrypted: !srv.encrypts, PartSize: minPartSize})
			ctx := t.Context()
			enc, err := s.CreateBucket(ctx, "real-bucket", objstore.CreateBucketOptions{})
			require.NoError(t, err)
			assert.Equal(t, srv.encrypts, enc.Mode == objstore.ModeSSES3)
			_, err = s.CreateBucket(ctx, "real-bucket", objstore.CreateBucketOptions{})
			require.ErrorIs(t, err, objstore.Exist)
			all, err := s.Buckets(ctx)
			require.NoError(t, err)
			require.Len(t, all, 1)
			_, err = s.Open(ctx, "absent-bucket")
			require.ErrorIs(t, err, objstore.NotExist)
			b, err := s.Open(ctx, "real-bucket")
			require.NoError(t, err)
			require.Empty(t, list(t, b, objstore.Query{}), "no scratch object stays")

			t.Run("small", func(t *testing.T) {
				data := random(100)
				opts := objstore.CreateOptions{
					Meta:    map[string]string{"mode": "33188", "name": "Grüße 😀", "space": " x  y ", "enc": "=?utf-8?q?x?="},
					Headers: objstore.Headers{ContentType: "text/x-test", CacheControl: "no-cache"},
				}
				o := put(t, b, "dir/small", data, opts)
				h, err := b.Head(t.Context(), objstore.Ref{Key: "dir/small", ETag: o.ETag})
				require.NoError(t, err)
				assert.Equal(t, opts.Meta, h.Meta)
				assert.Equal(t, "text/x-test", h.Headers.ContentType)
				assert.Equal(t, srv.encrypts, h.Encryption.Encrypted())
				assert.Equal(t, data, get(t, b, o.Ref(""), objstore.Range{}))
				assert.Equal(t, data[10:20], get(t, b, o.Ref(""), objstore.Range{Offset: 10, Length: 10}))
				assert.Equal(t, data[90:], get(t, b, o.Ref(""), objstore.Range{Offset: 90, Length: 100}))
				_, err = tryGet(t.Context(), b, o.Ref(""), objstore.Range{Offset: 100})
				assert.ErrorIs(t, err, objstore.InvalidRange)
				_, err = tryGet(t.Context(), b, objstore.Ref{Key: "dir/small", ETag: "x"}, objstore.Range{})
				assert.ErrorIs(t, err, objstore.Stale)
				_, err = b.Head(t.Context(), objstore.Ref{Key: "nothing"})
				assert.ErrorIs(t, err, objstore.NotExist)
			})
			t.Run("conditions", func(t *testing.T) {
				o := put(t, b, "cond", random(10), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
				_, err := tryPut(t.Context(), b, "cond", random(11), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
				require.ErrorIs(t, err, objstore.Exist)
				put(t, b, "cond", random(12), objstore.CreateOptions{Cond: objstore.Condition{IfMatch: o.ETag}})
				_, err = tryPut(t.Context(), b, "cond", random(13), objstore.CreateOptions{Cond: objstore.Condition{IfMatch: o.ETag}})
				require.ErrorIs(t, err, objstore.Stale)
				require.Equal(t, features{yes, yes, yes}, s.caps.get())
			})
			t.Run("empty", func(t *testing.T) {
				o := put(t, b, "empty", nil, objstore.CreateOptions{})
				assert.Empty(t, get(t, b, o.Ref(""), objstore.Range{}))
			})
			t.Run("parts", func(t *testing.T) {
				data := random(17<<20 + 5)
				o := put(t, b, "parts", data, objstore.CreateOptions{Meta: map[string]string{"a": "b"}})
				assert.True(t, strings.HasSuffix(string(o.ETag), "-4"))
				assert.Equal(t, int64(len(data)), o.Size)
				require.Equal(t, data, get(t, b, o.Ref(""), objstore.Range{}))
				// the first 12 MiB + 100 copied, with 100 own bytes before and after
				w, err := b.Create(t.Context(), "spliced", objstore.CreateOptions{})
				require.NoError(t, err)
				_, err = w.Write(data[:100])
				require.NoError(t, err)
				require.NoError(t, w.(objstore.RangeCopier).CopyRange(t.Context(), o.Ref("real-bucket"), 0, 12<<20+100))
				_, err = w.Write(data[:100])
				require.NoError(t, err)
				_, err = w.Commit(t.Context())
				require.NoError(t, err)
				want := append(append(append([]byte{}, data[:100]...), data[:12<<20+100]...), data[:100]...)
				require.Equal(t, want, get(t, b, objstore.Ref{Key: "spliced"}, objstore.Range{}))
				c, err := b.Copy(t.Context(), "parts2", o.Ref(""), objstore.CopyOptions{})
				require.NoError(t, err)
				assert.Equal(t, map[string]string{"a": "b"}, c.Meta)
				assert.Equal(t, srv.encrypts, c.Encryption.Encrypted())
				c, err = b.Copy(t.Context(), "parts2", c.Ref(""), objstore.CopyOptions{Meta: map[string]string{"x": "y"}})
				require.NoError(t, err)
				assert.Equal(t, map[string]string{"x": "y"}, c.Meta)
				w, err = b.Create(t.Context(), "aborted", objstore.CreateOptions{})
				require.NoError(t, err)
				_, err = w.Write(data)
				require.NoError(t, err)
				require.NoError(t, w.Abort())
				for u, err := range s.ListUploads(t.Context(), "real-bucket", "") {
					require.NoError(t, err)
					t.Errorf("upload left behind: %+v", u)
				}
			})
			t.Run("list", func(t *testing.T) {
				assert.Equal(t, []string{"cond", "dir/", "empty", "parts", "parts2", "spliced"}, list(t, b, objstore.Query{Delimiter: "/"}))
				assert.Equal(t, []string{"dir/small"}, list(t, b, objstore.Query{Prefix: "dir/"}))
				assert.Equal(t, []string{"parts"}, list(t, b, objstore.Query{StartAfter: "empty", Limit: 1}))
			})
			t.Run("delete", func(t *testing.T) {
				require.ErrorIs(t, s.DeleteBucket(t.Context(), "real-bucket"), objstore.NotEmpty)
				var refs []objstore.Ref
				for _, k := range list(t, b, objstore.Query{}) {
					refs = append(refs, objstore.Ref{Key: k})
				}
				refs = append(refs, objstore.Ref{Key: "absent"})
				require.NoError(t, errors.Join(b.Delete(t.Context(), refs...)...))
				require.NoError(t, errors.Join(b.Delete(t.Context(), objstore.Ref{Key: "absent"})...))
				require.Empty(t, list(t, b, objstore.Query{}))
				require.NoError(t, s.DeleteBucket(t.Context(), "real-bucket"))
			})
		})
	}
}
