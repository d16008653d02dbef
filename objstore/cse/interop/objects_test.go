package interop

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/emulator"
	"coffer/objstore/s3store"
	"coffer/objstore/storetest"
)

// ringOf is a keyring of one AES key.
func ringOf(t *testing.T, k rawKey) *keyring.Ring {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), []byte(k.Key), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(fmt.Sprintf("- {type: raw-aes, namespace: %s, name: %q, key_file: key}", k.Namespace, k.Name)), 0o600))
	r, _, err := keyring.Load(t.Context(), filepath.Join(dir, "ring"), nil)
	require.NoError(t, err)
	return r
}

// Objects that the libraries have written, signed or not, are read in ranges and as a
// whole; policies on signatures hold, and a changed signature is noticed.
func TestObjectsOfTheLibraries(t *testing.T) {
	srv, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), Dialect: "nosse"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	require.NoError(t, srv.Listen("127.0.0.1:0"))
	storetest.SetEnv(t, srv.Env())
	inner, err := s3store.New(t.Context(), s3store.Config{AllowUnencrypted: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, inner.Close()) })
	_, err = inner.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{AllowUnencrypted: true})
	require.NoError(t, err)
	inside, err := inner.Open(t.Context(), "bucket")
	require.NoError(t, err)
	put := func(key string, data []byte) {
		w, err := inside.Create(context.Background(), key, objstore.CreateOptions{})
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
		_, err = w.Commit(context.Background())
		require.NoError(t, err)
	}
	key := rawAES(256)
	open := func(t *testing.T, policy cse.Signed) objstore.Bucket {
		s, err := cse.Wrap(inner, cse.Config{Keyring: ringOf(t, key), Signed: policy})
		require.NoError(t, err)
		b, err := s.Open(t.Context(), "bucket")
		require.NoError(t, err)
		return b
	}
	read := func(b objstore.Bucket, key string, r objstore.Range) ([]byte, error) {
		body, _, err := b.Get(context.Background(), objstore.Ref{Key: key}, objstore.GetOptions{Range: r})
		if err != nil {
			return nil, err
		}
		defer body.Close()
		return io.ReadAll(body)
	}
	const block = 1 << 40 // and more: of a message without frames
	for _, o := range oracles {
		t.Run(o.name, func(t *testing.T) {
			o.start(t)
			for _, suite := range []message.Suite{message.Committed, message.CommittedSigned} {
				for _, size := range []int64{0, 1, 4096, 3 * 4096, 50_001, block, block + 1_100_000} {
					name := fmt.Sprintf("%s/%v-%d", o.name, suite, size)
					q := request{Suite: suite.String(), Frame: 4096, Keyrings: []rawKey{key}}
					verified := map[bool]string{true: "signature"}[suite.Signed()]
					if size >= block {
						if size -= block; !o.blocks {
							continue
						}
						q.Frame, q.Block = 0, true
						if verified == "" {
							verified = "object"
						}
					}
					plain := pattern(size)
					msg := o.encrypt(t, q, plain)
					put(name, msg)
					for _, policy := range []cse.Signed{cse.SignedAuto, cse.SignedStrict, cse.SignedReject} {
						b := open(t, policy)
						h, err := b.Head(t.Context(), objstore.Ref{Key: name})
						require.NoError(t, err, name)
						require.Equal(t, size, h.Size, name)
						got, err := read(b, name, objstore.Range{})
						if policy == cse.SignedReject && suite.Signed() {
							require.ErrorIs(t, err, objstore.Unsupported, name)
							continue
						}
						require.NoError(t, err, name)
						require.True(t, bytes.Equal(plain, got), name)
						if size > 4000 {
							got, err = read(b, name, objstore.Range{Offset: 3999, Length: 100})
							require.NoError(t, err, name)
							require.True(t, bytes.Equal(plain[3999:min(4099, size)], got), name)
						}
						h, err = b.Head(t.Context(), objstore.Ref{Key: name})
						require.NoError(t, err)
						require.Equal(t, verified, h.Encryption.Verified, name)
					}
					if !suite.Signed() {
						continue
					}
					// A copy keeps its true size, and is read by another path.
					b := open(t, cse.SignedAuto)
					_, err := b.Copy(t.Context(), name+"-copy", objstore.Ref{Key: name}, objstore.CopyOptions{})
					require.NoError(t, err)
					h, err := open(t, cse.SignedAuto).Head(t.Context(), objstore.Ref{Key: name + "-copy"})
					require.NoError(t, err)
					require.Equal(t, size, h.Size, name)
					msg[len(msg)-1] ^= 1
					put(name+"-changed", msg)
					_, err = read(open(t, cse.SignedAuto), name+"-changed", objstore.Range{})
					require.ErrorIs(t, err, objstore.Integrity, name)
				}
			}
		})
	}
}
