package fs

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"coffer/objstore"
)

// belowBucket lists what is below a prefix, and not what is called so; and "x" is to it
// what "x/" is. S3Proxy is such over directories of files.
type belowBucket struct{ keysBucket }

func (b *belowBucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		for e, err := range b.keysBucket.List(ctx, q) {
			if e.Key != q.Prefix && !yield(e, err) {
				return
			}
		}
	}
}

func (b *belowBucket) Head(ctx context.Context, r objstore.Ref) (objstore.Object, error) {
	key := r.Key
	if !b.keys[key] && b.keys[key+"/"] {
		key += "/"
	}
	o, err := b.keysBucket.Head(ctx, objstore.Ref{Key: key})
	if strings.HasSuffix(key, "/") {
		o.Headers.ContentType = directoryType
	}
	return o, err
}

func (b *belowBucket) Delete(_ context.Context, refs ...objstore.Ref) []error {
	for _, r := range refs {
		delete(b.keys, r.Key)
	}
	return make([]error, len(refs))
}

func (b *belowBucket) Copy(ctx context.Context, key string, src objstore.Ref, _ objstore.CopyOptions) (objstore.Object, error) {
	o, err := b.Head(ctx, src)
	if err == nil {
		b.keys[key] = true
	}
	return o, err
}

// TestUnlistedMarkers: a directory whose marker no listing of it shows is one, and goes.
func TestUnlistedMarkers(t *testing.T) {
	b := &belowBucket{keysBucket{keys: map[string]bool{"empty/": true, "full/": true, "full/f": true, "file": true}}}
	d := knownDir(t, b, Config{Attributes: AttributesFull, Logger: slog.New(slog.DiscardHandler)})
	d.complete = true
	for nm, isDir := range map[string]bool{"empty": true, "full": true, "file": false} {
		if f, err := d.find(t.Context(), nm); err != nil || f.isDir != isDir {
			t.Errorf("%s is %+v, %v", nm, f, err)
		}
	}
	if marker, err := d.emptied(t.Context(), "empty"); err != nil || !marker {
		t.Errorf("the marker of an empty directory: %v, %v", marker, err)
	}
	m := move{fsys: d.fsys, bucket: b, from: "full/", dest: "moved/"}
	if err := m.copyAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.deleteAll(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"empty/": true, "moved/": true, "moved/f": true, "file": true}
	if !maps.Equal(b.keys, want) {
		t.Errorf("after the rename there is %v", b.keys)
	}
}
