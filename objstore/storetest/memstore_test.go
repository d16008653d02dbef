package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"coffer/objstore"
)

// memStore is the smallest store that keeps every promise: what the suite
// itself is tested on.
type memStore struct {
	partSize int64

	mu      sync.Mutex
	buckets map[string]*memBucket
	next    int // number of the next ETag and upload
	uploads map[string]objstore.Upload
}

func newMemStore(partSize int64) *memStore {
	return &memStore{partSize: partSize, buckets: map[string]*memBucket{}, uploads: map[string]objstore.Upload{}}
}

type memBucket struct {
	s       *memStore
	name    string
	created time.Time
	objects map[string]memObject
}

type memObject struct {
	objstore.Object
	data []byte
}

var bucketNames = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func memErr(op, key string, kind objstore.Kind) error {
	return &objstore.Error{Op: op, Key: key, Kind: kind}
}

// alive turns an ended context into the error that every method gives.
func alive(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return &objstore.Error{Op: op, Kind: objstore.Canceled, Err: err}
	}
	return nil
}

func (s *memStore) Identity() string { return "memory" }

func (s *memStore) Buckets(ctx context.Context) ([]objstore.BucketInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []objstore.BucketInfo
	for _, name := range slices.Sorted(maps.Keys(s.buckets)) {
		out = append(out, objstore.BucketInfo{Name: name, Created: s.buckets[name].created})
	}
	return out, alive(ctx, "buckets")
}

func (s *memStore) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[name]; b != nil {
		return b, alive(ctx, "open")
	}
	return nil, memErr("open", name, objstore.NotExist)
}

func (s *memStore) CreateBucket(ctx context.Context, name string, _ objstore.CreateBucketOptions) (objstore.Encryption, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	enc := objstore.Encryption{Mode: objstore.ModeSSES3}
	digits := strings.Trim(name, "0123456789.") == ""
	if !bucketNames.MatchString(name) || strings.Contains(name, "..") || digits {
		return enc, memErr("create bucket", name, objstore.InvalidName)
	}
	if s.buckets[name] != nil {
		return enc, memErr("create bucket", name, objstore.Exist)
	}
	s.buckets[name] = &memBucket{s: s, name: name, created: time.Now(), objects: map[string]memObject{}}
	return enc, alive(ctx, "create bucket")
}

func (s *memStore) DeleteBucket(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[name]
	switch {
	case b == nil:
		return memErr("delete bucket", name, objstore.NotExist)
	case len(b.objects) > 0:
		return memErr("delete bucket", name, objstore.NotEmpty)
	}
	delete(s.buckets, name)
	return nil
}

func (s *memStore) ListUploads(_ context.Context, bucket, prefix string) iter.Seq2[objstore.Upload, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []objstore.Upload
	for _, u := range s.uploads {
		if u.Bucket == bucket && strings.HasPrefix(u.Key, prefix) {
			found = append(found, u)
		}
	}
	return func(yield func(objstore.Upload, error) bool) {
		for _, u := range found {
			if !yield(u, nil) {
				return
			}
		}
	}
}

func (s *memStore) AbortUpload(_ context.Context, u objstore.Upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, u.ID)
	return nil
}

func (b *memBucket) Name() string { return b.name }

// get returns the object of ref; s.mu is held.
func (b *memBucket) get(op string, ref objstore.Ref) (memObject, error) {
	name := ref.Bucket
	if name == "" {
		name = b.name
	}
	from := b.s.buckets[name]
	if from == nil {
		return memObject{}, memErr(op, name, objstore.NotExist)
	}
	o, ok := from.objects[ref.Key]
	if !ok {
		return o, memErr(op, ref.Key, objstore.NotExist)
	}
	if ref.ETag != "" && ref.ETag != o.ETag {
		return o, memErr(op, ref.Key, objstore.Stale)
	}
	o.Meta = maps.Clone(o.Meta)
	return o, nil
}

func (b *memBucket) Head(ctx context.Context, ref objstore.Ref) (objstore.Object, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if err := alive(ctx, "head"); err != nil {
		return objstore.Object{}, err
	}
	o, err := b.get("head", ref)
	return o.Object, err
}

func (b *memBucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if err := alive(ctx, "get"); err != nil {
		return nil, objstore.Object{}, err
	}
	o, err := b.get("get", ref)
	if err != nil {
		return nil, o.Object, err
	}
	data, r := o.data, opts.Range
	if r != (objstore.Range{}) {
		if r.Offset >= int64(len(data)) {
			return nil, o.Object, memErr("get", ref.Key, objstore.InvalidRange)
		}
		if data = data[r.Offset:]; r.Length > 0 && r.Length < int64(len(data)) {
			data = data[:r.Length]
		}
	}
	return io.NopCloser(bytes.NewReader(data)), o.Object, nil
}

func (b *memBucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		entries, err := b.snapshot(ctx, q)
		if err != nil {
			yield(objstore.Entry{}, err)
			return
		}
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (b *memBucket) snapshot(ctx context.Context, q objstore.Query) ([]objstore.Entry, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if err := alive(ctx, "list"); err != nil {
		return nil, err
	}
	if b.s.buckets[b.name] != b {
		return nil, memErr("list", b.name, objstore.NotExist)
	}
	var out []objstore.Entry
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if !strings.HasPrefix(key, q.Prefix) {
			continue
		}
		e := b.objects[key].Entry
		if i := strings.Index(key[len(q.Prefix):], q.Delimiter); q.Delimiter != "" && i >= 0 {
			e = objstore.Entry{Key: key[:len(q.Prefix)+i+len(q.Delimiter)], IsPrefix: true}
		}
		if e.Key <= q.StartAfter || len(out) > 0 && out[len(out)-1].Key == e.Key {
			continue
		}
		if out = append(out, e); len(out) == q.Limit {
			break
		}
	}
	return out, nil
}

// check applies a condition; s.mu is held.
func (b *memBucket) check(op, key string, c objstore.Condition) error {
	if b.s.buckets[b.name] != b {
		return memErr(op, b.name, objstore.NotExist)
	}
	o, ok := b.objects[key]
	if c.IfAbsent && ok {
		return memErr(op, key, objstore.Exist)
	}
	if c.IfMatch != "" && (!ok || o.ETag != c.IfMatch) {
		return memErr(op, key, objstore.Stale)
	}
	return nil
}

// store makes an object visible; s.mu is held.
func (b *memBucket) store(key string, data []byte, o objstore.Object) objstore.Object {
	b.s.next++
	n := int64(len(data))
	o.Entry = objstore.Entry{Key: key, Size: n, SizeKnown: true, StoredSize: n,
		ETag: objstore.ETag(fmt.Sprintf("%032x", b.s.next)), LastModified: time.Now()}
	o.Encryption = objstore.Encryption{Mode: objstore.ModeSSES3}
	if len(o.Meta) == 0 {
		o.Meta = nil
	}
	b.objects[key] = memObject{o, data}
	return o
}

func (b *memBucket) Copy(ctx context.Context, dstKey string, src objstore.Ref, opts objstore.CopyOptions) (objstore.Object, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if err := alive(ctx, "copy"); err != nil {
		return objstore.Object{}, err
	}
	o, err := b.get("copy", src)
	if err != nil {
		return objstore.Object{}, err
	}
	if err := b.check("copy", dstKey, opts.Cond); err != nil {
		return objstore.Object{}, err
	}
	meta, _ := opts.MetaOf(o.Meta)
	o.Meta = maps.Clone(meta)
	if opts.Headers != nil {
		o.Headers = *opts.Headers
	}
	return b.store(dstKey, o.data, o.Object), nil
}

func (b *memBucket) Delete(ctx context.Context, refs ...objstore.Ref) []error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	errs := make([]error, len(refs))
	for i, ref := range refs {
		if errs[i] = alive(ctx, "delete"); errs[i] == nil {
			delete(b.objects, ref.Key)
		}
	}
	return errs
}

func (b *memBucket) Protection(ctx context.Context, _ string) (objstore.Encryption, error) {
	return objstore.Encryption{Mode: objstore.ModeSSES3}, alive(ctx, "protection")
}

func (b *memBucket) Create(ctx context.Context, key string, opts objstore.CreateOptions) (objstore.Writer, error) {
	if err := alive(ctx, "create"); err != nil {
		return nil, err
	}
	opts.Meta = maps.Clone(opts.Meta)
	return &memWriter{b: b, ctx: ctx, key: key, opts: opts}, nil
}

type memWriter struct {
	b      *memBucket
	ctx    context.Context
	key    string
	opts   objstore.CreateOptions
	data   []byte
	upload string
	ended  bool
}

var errEnded = errors.New("the writer has ended")

func (w *memWriter) Write(p []byte) (int, error) {
	if w.ended {
		return 0, &objstore.Error{Op: "write", Key: w.key, Err: errEnded}
	}
	w.data = append(w.data, p...)
	if int64(len(w.data)) > w.b.s.partSize && w.upload == "" {
		w.b.s.mu.Lock()
		defer w.b.s.mu.Unlock()
		w.b.s.next++
		w.upload = fmt.Sprint("upload-", w.b.s.next)
		w.b.s.uploads[w.upload] = objstore.Upload{Bucket: w.b.name, Key: w.key, ID: w.upload, Initiated: time.Now()}
	}
	return len(p), nil
}

func (w *memWriter) CopyRange(ctx context.Context, src objstore.Ref, off, n int64) error {
	if n == 0 {
		return nil
	}
	body, _, err := w.b.Get(ctx, src, objstore.GetOptions{Range: objstore.Range{Offset: off, Length: n}})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return err
}

func (w *memWriter) Copied(context.Context) error { return nil }

func (w *memWriter) Commit(ctx context.Context) (objstore.Object, error) {
	if w.ended {
		return objstore.Object{}, &objstore.Error{Op: "commit", Key: w.key, Err: errEnded}
	}
	w.ended = true
	if err := errors.Join(alive(w.ctx, "commit"), alive(ctx, "commit")); err != nil {
		w.forget()
		return objstore.Object{}, err
	}
	w.b.s.mu.Lock()
	defer w.b.s.mu.Unlock()
	if _, open := w.b.s.uploads[w.upload]; w.upload != "" && !open {
		return objstore.Object{}, memErr("commit", w.key, objstore.NotExist)
	}
	delete(w.b.s.uploads, w.upload)
	if err := w.b.check("commit", w.key, w.opts.Cond); err != nil {
		return objstore.Object{}, err
	}
	return w.b.store(w.key, w.data, objstore.Object{Meta: w.opts.Meta, Headers: w.opts.Headers}), nil
}

func (w *memWriter) forget() {
	w.b.s.mu.Lock()
	defer w.b.s.mu.Unlock()
	delete(w.b.s.uploads, w.upload)
}

func (w *memWriter) Abort() error {
	if !w.ended {
		w.ended = true
		w.forget()
	}
	return nil
}
