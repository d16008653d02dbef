package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"iter"
	"maps"

	"coffer/objstore"
)

// Resize wraps a store so that what it keeps is not what a reader sees: each
// object is stored as a header and checked frames, a little longer than its
// content. It does to sizes, ranges, metadata and writers what client-side
// encryption does, without the cryptography, and exists to run the suite over:
// an interface that cannot be decorated shows here first.
//
//	header   16 bytes: "coffer-r" and 8 random bytes
//	frame    up to 64 KiB of content, then 8 bytes of CRC-64 over the random
//	         bytes, the frame's number and the content; the last frame may be
//	         shorter, and an empty object has none
//
// The result is an [objstore.Uploads] where inner is one.
func Resize(inner objstore.Store) objstore.Store {
	s := &resizeStore{inner}
	if u, ok := inner.(objstore.Uploads); ok {
		return struct {
			*resizeStore
			objstore.Uploads
		}{s, u}
	}
	return s
}

const (
	resizeMagic  = "coffer-r"
	resizeHeader = 16
	resizeFrame  = 64 << 10
	resizeCheck  = 8
	// resizeMark is in the metadata of every object in this form. Metadata is
	// fixed when an upload begins, so the mark can only say what is known then.
	resizeMark, resizeMarkValue = "resize-form", "1"
)

var crcTable = crc64.MakeTable(crc64.ECMA)

// frameCheck is the check value of one frame.
func frameCheck(salt []byte, index int64, content []byte) uint64 {
	sum := crc64.Update(0, crcTable, binary.LittleEndian.AppendUint64(bytes.Clone(salt), uint64(index)))
	return crc64.Update(sum, crcTable, content)
}

// storedSize is the length of the stored form of n visible bytes.
func storedSize(n int64) int64 {
	frames := (n + resizeFrame - 1) / resizeFrame
	return resizeHeader + n + frames*resizeCheck
}

// visibleSize is the inverse of storedSize; ok is false for a length that no
// object in this form has.
func visibleSize(stored int64) (n int64, ok bool) {
	body := stored - resizeHeader
	if body < 0 {
		return 0, false
	}
	full, rest := body/(resizeFrame+resizeCheck), body%(resizeFrame+resizeCheck)
	if rest == 0 {
		return full * resizeFrame, true
	}
	return full*resizeFrame + rest - resizeCheck, rest > resizeCheck
}

// storedRange maps visible bytes [off, end) of an object of size bytes to the
// frames that hold them: the first frame's number and the span to read.
func storedRange(off, end, size int64) (first int64, r objstore.Range) {
	first = off / resizeFrame
	last := (end - 1) / resizeFrame
	start := resizeHeader + first*(resizeFrame+resizeCheck)
	stop := min(resizeHeader+(last+1)*(resizeFrame+resizeCheck), storedSize(size))
	return first, objstore.Range{Offset: start, Length: stop - start}
}

type resizeStore struct{ objstore.Store }

// Identity differs from the inner store's: blocks of the two forms of one
// object must not share cache keys.
func (s *resizeStore) Identity() string { return s.Store.Identity() + "+resized" }

// Open returns the bucket with visible sizes.
func (s *resizeStore) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	b, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &resizeBucket{b}, nil
}

// resizeBucket passes Name, Delete and Protection to the bucket inside.
type resizeBucket struct{ objstore.Bucket }

func (b *resizeBucket) fail(op, key string, kind objstore.Kind, cause error) error {
	return &objstore.Error{Op: op, Key: b.Name() + "/" + key, Kind: kind, Err: cause}
}

// visible turns what the inner bucket tells of an object into what a reader
// of this one gets.
func (b *resizeBucket) visible(op string, o objstore.Object) (objstore.Object, error) {
	size, ok := visibleSize(o.StoredSize)
	if !ok {
		return o, b.fail(op, o.Key, objstore.Integrity, fmt.Errorf("no object in this form has %d bytes", o.StoredSize))
	}
	o.Size, o.SizeKnown = size, true
	o.ChecksumOfWhole = false // it is of the stored bytes
	o.Meta = maps.Clone(o.Meta)
	delete(o.Meta, resizeMark)
	if len(o.Meta) == 0 {
		o.Meta = nil
	}
	return o, nil
}

// Head reports the visible size.
func (b *resizeBucket) Head(ctx context.Context, ref objstore.Ref) (objstore.Object, error) {
	o, err := b.Bucket.Head(ctx, ref)
	if err != nil {
		return o, err
	}
	if o.Meta[resizeMark] != resizeMarkValue {
		return o, b.fail("head", ref.Key, objstore.Integrity, errors.New("the object is not in this form"))
	}
	return b.visible("head", o)
}

// List leaves visible sizes unknown: a listing tells nothing of an object's
// form, and a caller has to bear that.
func (b *resizeBucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		for e, err := range b.Bucket.List(ctx, q) {
			e.Size, e.SizeKnown = 0, false
			if !yield(e, err) {
				return
			}
		}
	}
}

// getTries bounds how often an unpinned Get starts again because the object
// changed between its requests.
const getTries = 10

// Get maps the range to frames and checks each. It needs several requests, all
// pinned to the version that the first one met.
func (b *resizeBucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	for try := 1; ; try++ {
		body, o, err := b.get(ctx, ref, opts)
		if err != nil && ref.ETag == "" && try < getTries && errors.Is(err, objstore.Stale) {
			continue
		}
		return body, o, err
	}
}

func (b *resizeBucket) get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	o, err := b.Head(ctx, ref)
	if err != nil {
		return nil, o, err
	}
	r := opts.Range
	if r != (objstore.Range{}) && r.Offset >= o.Size {
		return nil, o, b.fail("get", ref.Key, objstore.InvalidRange, nil)
	}
	end := o.Size
	if r.Length > 0 && r.Length < end-r.Offset {
		end = r.Offset + r.Length
	}
	pinned := ref
	pinned.ETag = o.ETag
	salt, err := b.salt(ctx, pinned, opts)
	if err != nil {
		return nil, o, err
	}
	if end == r.Offset {
		return io.NopCloser(bytes.NewReader(nil)), o, nil
	}
	first, inner := storedRange(r.Offset, end, o.Size)
	opts.Range = inner
	body, _, err := b.Bucket.Get(ctx, pinned, opts)
	if err != nil {
		return nil, o, err
	}
	return &resizeReader{
		body: body, salt: salt, index: first, left: inner.Length,
		skip: r.Offset - first*resizeFrame, want: end - r.Offset,
		fail: func(cause error) error { return b.fail("get", ref.Key, objstore.Integrity, cause) },
	}, o, nil
}

// salt reads the header of the stored form.
func (b *resizeBucket) salt(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) ([]byte, error) {
	opts.Range = objstore.Range{Length: resizeHeader}
	body, _, err := b.Bucket.Get(ctx, ref, opts)
	if err != nil {
		return nil, err
	}
	header, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	if len(header) != resizeHeader || string(header[:len(resizeMagic)]) != resizeMagic {
		return nil, b.fail("get", ref.Key, objstore.Integrity, errors.New("not the header of this form"))
	}
	return header[len(resizeMagic):], nil
}

// resizeReader yields the content of frames, each only after its check.
type resizeReader struct {
	body    io.ReadCloser
	salt    []byte
	index   int64 // of the next frame
	left    int64 // stored bytes that are still to come
	skip    int64 // content before the range, in the first frame
	want    int64 // content that the caller still gets
	pending []byte
	err     error
	fail    func(error) error
}

// Read returns checked bytes, then io.EOF.
func (r *resizeReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.pending) == 0 && r.err == nil {
		r.err = r.next()
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	if n > 0 {
		return n, nil
	}
	return 0, r.err
}

// next reads one frame into pending, io.EOF when there is none left.
func (r *resizeReader) next() error {
	if r.left == 0 || r.want == 0 {
		return io.EOF
	}
	frame := make([]byte, min(r.left, resizeFrame+resizeCheck))
	if _, err := io.ReadFull(r.body, frame); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return r.fail(io.ErrUnexpectedEOF)
		}
		return err
	}
	content := frame[:len(frame)-resizeCheck]
	if binary.LittleEndian.Uint64(frame[len(content):]) != frameCheck(r.salt, r.index, content) {
		return r.fail(fmt.Errorf("frame %d does not pass its check", r.index))
	}
	r.left -= int64(len(frame))
	r.index++
	content = content[r.skip:]
	r.skip = 0
	r.pending = content[:min(r.want, int64(len(content)))]
	r.want -= int64(len(r.pending))
	return nil
}

// Close closes the body below.
func (r *resizeReader) Close() error { return r.body.Close() }

// Create wraps the inner writer. The result is no [objstore.RangeCopier], even
// where the inner one is: stored bytes of one object mean nothing in another.
func (b *resizeBucket) Create(ctx context.Context, key string, opts objstore.CreateOptions) (objstore.Writer, error) {
	opts.Meta = objstore.CloneMeta(opts.Meta)
	opts.Meta[resizeMark] = resizeMarkValue
	if opts.SizeHint > 0 {
		opts.SizeHint = storedSize(opts.SizeHint)
	}
	salt := make([]byte, resizeHeader-len(resizeMagic))
	if _, err := rand.Read(salt); err != nil {
		return nil, b.fail("create", key, objstore.Unknown, err)
	}
	w, err := b.Bucket.Create(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	return &resizeWriter{b: b, inner: w, salt: salt, out: append([]byte(resizeMagic), salt...)}, nil
}

// resizeWriter gathers content into frames.
type resizeWriter struct {
	b     *resizeBucket
	inner objstore.Writer
	salt  []byte
	index int64
	out   []byte // stored form that has not been passed on: the header at first
	frame []byte // content of the frame under way
}

// Write passes on every frame that is full.
func (w *resizeWriter) Write(p []byte) (int, error) {
	n := 0
	for {
		m := min(resizeFrame-len(w.frame), len(p)-n)
		w.frame = append(w.frame, p[n:n+m]...)
		n += m
		if len(w.frame) < resizeFrame {
			break
		}
		if err := w.seal(); err != nil {
			return n, err
		}
	}
	if len(p) == 0 {
		return w.inner.Write(nil) // an ended writer says so
	}
	return n, w.ended()
}

// ended asks the inner writer whether it still takes bytes: a short Write that
// only fills the frame must fail after Abort or Commit as any other does.
func (w *resizeWriter) ended() error {
	_, err := w.inner.Write(nil)
	return err
}

// seal passes the frame under way on, with its check.
func (w *resizeWriter) seal() error {
	if len(w.frame) > 0 {
		w.out = append(w.out, w.frame...)
		w.out = binary.LittleEndian.AppendUint64(w.out, frameCheck(w.salt, w.index, w.frame))
		w.index++
		w.frame = w.frame[:0]
	}
	_, err := w.inner.Write(w.out)
	w.out = w.out[:0]
	return err
}

// Commit passes on the last frame, which may be short, and ends the writer.
func (w *resizeWriter) Commit(ctx context.Context) (objstore.Object, error) {
	if err := w.seal(); err != nil {
		return objstore.Object{}, err
	}
	o, err := w.inner.Commit(ctx)
	if err != nil {
		return o, err
	}
	return w.b.visible("commit", o)
}

// Abort ends the inner writer.
func (w *resizeWriter) Abort() error { return w.inner.Abort() }

// Copy copies the stored form as it is. Metadata that is replaced keeps the
// mark, or the copy could not be read.
func (b *resizeBucket) Copy(ctx context.Context, dstKey string, src objstore.Ref, opts objstore.CopyOptions) (objstore.Object, error) {
	if opts.Meta != nil {
		opts.Meta = maps.Clone(opts.Meta)
		opts.Meta[resizeMark] = resizeMarkValue
	}
	o, err := b.Bucket.Copy(ctx, dstKey, src, opts)
	if err != nil || !o.SizeKnown {
		return o, err
	}
	return b.visible("copy", o)
}
