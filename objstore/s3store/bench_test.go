package s3store

import (
	"io"
	"log/slog"
	"testing"

	"coffer/objstore"
	"coffer/objstore/storetest"
)

// benchBucket is a bucket of a real server without encryption, so that the
// client's costs show.
func benchBucket(b *testing.B) objstore.Bucket {
	b.Helper()
	srv := storetest.StartVersityGW(b)
	for _, kv := range srv.Env() {
		for i := range kv {
			if kv[i] == '=' {
				b.Setenv(kv[:i], kv[i+1:])
				break
			}
		}
	}
	s, err := New(b.Context(), Config{AllowUnencrypted: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.CreateBucket(b.Context(), "bench", objstore.CreateBucketOptions{}); err != nil {
		b.Fatal(err)
	}
	bk, err := s.Open(b.Context(), "bench")
	if err != nil {
		b.Fatal(err)
	}
	return bk
}

func BenchmarkWrite(b *testing.B) {
	bk := benchBucket(b)
	for name, size := range map[string]int{"4KiB": 4 << 10, "1MiB": 1 << 20, "256MiB": 256 << 20} {
		data := random(min(size, 1<<20))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				w, err := bk.Create(b.Context(), "object", objstore.CreateOptions{})
				if err != nil {
					b.Fatal(err)
				}
				for n := 0; n < size; n += len(data) {
					if _, err := w.Write(data); err != nil {
						b.Fatal(err)
					}
				}
				if _, err := w.Commit(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	bk := benchBucket(b)
	w, err := bk.Create(b.Context(), "object", objstore.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	data := random(1 << 20)
	for range 64 {
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	o, err := w.Commit(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for name, size := range map[string]int64{"4KiB": 4 << 10, "8MiB": 8 << 20, "64MiB": 64 << 20} {
		buf := make([]byte, 1<<20)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, _, err := bk.Get(b.Context(), o.Ref(""), objstore.GetOptions{Range: objstore.Range{Length: size}})
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf)
				if err != nil || n != size {
					b.Fatal(n, err)
				}
				_ = r.Close()
			}
		})
	}
}
