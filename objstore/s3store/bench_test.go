package s3store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"

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

// clientCPU reports the CPU time of this process for each operation: the server
// is another one.
func clientCPU(b *testing.B) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	b.Cleanup(func() {
		b.ReportMetric(float64((used()-before).Microseconds())/float64(b.N), "cpu-us/op")
	})
	b.ReportAllocs()
	b.ResetTimer()
}

// BenchmarkSmall is what a request costs that moves next to nothing.
func BenchmarkSmall(b *testing.B) {
	bk := benchBucket(b)
	data := random(4 << 10)
	put := func(b *testing.B, key string) objstore.Object {
		w, err := bk.Create(b.Context(), key, objstore.CreateOptions{Meta: map[string]string{"mode": "33188", "uid": "0", "gid": "0", "mtime": "1764000000"}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			b.Fatal(err)
		}
		o, err := w.Commit(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		return o
	}
	o := put(b, "object")
	for _, bench := range []struct {
		name string
		op   func(b *testing.B) error
	}{
		{"put", func(b *testing.B) error { put(b, "another"); return nil }},
		{"head", func(b *testing.B) error { _, err := bk.Head(b.Context(), objstore.Ref{Key: "object"}); return err }},
		{"absent", func(b *testing.B) error {
			if _, err := bk.Head(b.Context(), objstore.Ref{Key: "absent"}); !errors.Is(err, objstore.NotExist) {
				return fmt.Errorf("%v where it is absent", err)
			}
			return nil
		}},
		{"get", func(b *testing.B) error {
			r, _, err := bk.Get(b.Context(), o.Ref(""), objstore.GetOptions{})
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		}},
		{"list", func(b *testing.B) error {
			for _, err := range bk.List(b.Context(), objstore.Query{Prefix: "absent/", Limit: 1}) {
				return err
			}
			return nil
		}},
		{"delete", func(b *testing.B) error { return bk.Delete(b.Context(), objstore.Ref{Key: "absent"})[0] }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			clientCPU(b)
			for b.Loop() {
				if err := bench.op(b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
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
