package fs

import (
	"bytes"
	"context"
	"log/slog"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

// commits is a bucket that protects everything and keeps what is committed.
type commits struct {
	objstore.Bucket // nil: nothing else is asked
	bodies          []string
}

func (b *commits) Name() string { return "bucket" }

func (b *commits) Protection(context.Context, string) (objstore.Encryption, error) {
	return objstore.Encryption{}, nil
}

func (b *commits) Create(context.Context, string, objstore.CreateOptions) (objstore.Writer, error) {
	return &commitsWriter{bucket: b}, nil
}

type commitsWriter struct {
	bytes.Buffer
	bucket *commits
}

func (w *commitsWriter) Commit(context.Context) (objstore.Object, error) {
	w.bucket.bodies = append(w.bucket.bodies, w.String())
	o := objstore.Object{}
	o.ETag, o.LastModified = objstore.ETag(w.String()), time.Now()
	return o, nil
}

func (w *commitsWriter) Abort() error { return nil }

// newTestFilesystem returns one that no kernel knows.
func newTestFilesystem(t *testing.T) *filesystem {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := cache.New(cache.Config{MemoryBytes: 64 << 20, ScratchDir: t.TempDir(), StoreID: "test", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	f := newFilesystem(Config{Cache: c, MetadataTTL: time.Minute, Logger: log}.withDefaults())
	t.Cleanup(func() {
		f.close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// The kernel tells of the last close of a file after close has returned; the
// file may be open again by then, and what the new handle has done to it is
// not the old one's to commit.
func TestLateReleaseLeavesNextHandleAlone(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		name  string
		after func(release, open func())
	}{
		{"release waits behind the open", func(release, open func()) { go open(); synctest.Wait(); go release() }},
		{"open waits behind the release", func(release, open func()) { go release(); synctest.Wait(); go open() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newTestFilesystem(t)
				b := &commits{}
				n := f.newFile(b, place{f.newDir(b, place{}, ""), "f"})
				n.beginNew(map[string]string{})
				first := n.newHandle(ctx, syscall.O_WRONLY)
				if _, errno := first.Write(ctx, []byte("old"), 0); errno != 0 {
					t.Fatal(errno)
				}
				if errno := first.Flush(ctx); errno != 0 {
					t.Fatal(errno)
				}

				// Both are on their way when the file's turn is given back.
				if err := n.turn.take(ctx); err != nil {
					t.Fatal(err)
				}
				var second *handle
				tt.after(
					func() { first.Release(ctx) },
					func() {
						h, _, err := n.open(ctx, syscall.O_WRONLY|syscall.O_TRUNC)
						if err != nil {
							t.Error(err)
						}
						second = h
					})
				synctest.Wait()
				n.turn.release()
				synctest.Wait()
				if len(b.bodies) != 1 {
					t.Errorf("commits: %q, want the first version alone", b.bodies)
				}
				if second == nil {
					t.FailNow()
				}
				if _, errno := second.Write(ctx, []byte("new"), 0); errno != 0 {
					t.Error(errno)
				}
				second.Flush(ctx)
				second.Release(ctx)
				if len(b.bodies) != 2 || b.bodies[1] != "new" {
					t.Errorf("commits: %q, want the two versions", b.bodies)
				}
			})
		})
	}
}
