package cse

import (
	"bytes"
	"context"
	"errors"
	"io"

	"coffer/objstore"
	"coffer/objstore/cse/message"
	"coffer/objstore/cse/s3ec"
)

// getTries bounds how often a Get of no particular version starts again, because the
// object changed between its requests.
const getTries = 10

// Get implements objstore.Bucket. What the reader yields is authentic, frame by frame;
// that it was all of an object, io.EOF proves, which comes when the final frame did.
func (b *bucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	if isMarker(ref.Key) {
		body, o, err := b.Bucket.Get(ctx, ref, opts)
		if err == nil && o.StoredSize > 0 && b.s.cfg.Policy == Require {
			return nil, o, errors.Join(b.refused(ref, b.notMessage("get", ref.Key)), body.Close())
		}
		return body, o, err
	}
	for try := 1; ; try++ {
		body, o, err := b.get(ctx, ref, opts)
		if err != nil && ref.ETag == "" && try < getTries && errors.Is(err, objstore.Stale) {
			continue
		}
		return body, o, b.refused(ref, err)
	}
}

func (b *bucket) get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	whole := opts.Range == objstore.Range{}
	if whole && !b.isOpened(ref) {
		return b.getWhole(ctx, ref, opts)
	}
	o, err := b.openToRead(ctx, "get", ref)
	if err != nil {
		return nil, objstore.Object{}, err
	}
	return b.getOpened(ctx, ref, opts, o)
}

// getOpened gets what the range holds of an object that was opened.
func (b *bucket) getOpened(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions, o *opened) (io.ReadCloser, objstore.Object, error) {
	visible, err := o.show(o.object)
	if err != nil {
		return nil, visible, b.fail("get", ref.Key, err)
	}
	ref.ETag = o.object.ETag
	if o.plain {
		if b.s.cfg.Policy == Require {
			return nil, visible, b.notMessage("get", ref.Key)
		}
		body, raw, err := b.Bucket.Get(ctx, ref, opts)
		if err != nil {
			return nil, raw, err
		}
		return body, visible, nil
	}
	r := opts.Range
	if r != (objstore.Range{}) && r.Offset >= visible.Size {
		return nil, visible, b.failf("get", ref.Key, objstore.InvalidRange, "offset %d of %d bytes", r.Offset, visible.Size)
	}
	end := visible.Size
	if r.Length > 0 && r.Length < end-r.Offset {
		end = r.Offset + r.Length
	}
	if end == r.Offset {
		return io.NopCloser(bytes.NewReader(nil)), visible, nil
	}
	first, last := o.cover(r.Offset, end-r.Offset)
	begin, _ := o.piece(first)
	at, length := o.piece(last - 1)
	opts.Range = objstore.Range{Offset: begin, Length: at + length - begin}
	body, _, err := b.Bucket.Get(ctx, ref, opts)
	if err != nil {
		return nil, visible, err
	}
	return &reader{
		b: b, o: o, key: ref.Key, body: body, from: body, next: first, end: last,
		skip: r.Offset - first*o.unit(), want: end - r.Offset,
	}, visible, nil
}

// getWhole gets an object that was not opened before by one request: the header comes
// first, and how long the message is follows from it and from the length of the body,
// which the final frame proves when it has come. What is verified as a whole takes a
// second one.
func (b *bucket) getWhole(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (_ io.ReadCloser, visible objstore.Object, err error) {
	body, raw, err := b.Bucket.Get(ctx, ref, opts)
	if err != nil {
		return nil, raw, err
	}
	defer func() {
		if err != nil {
			_ = body.Close()
		}
	}()
	begin := prefixFrom(body)
	o, err := b.identify(ctx, "get", raw, begin)
	if err != nil {
		return nil, raw, err
	}
	first, err := begin(0)
	if err != nil {
		return nil, raw, err
	}
	if o.plain {
		if b.s.cfg.Policy == Require {
			return nil, raw, b.notMessage("get", ref.Key)
		}
		b.remember(o)
		visible, err = o.show(raw)
		return joined{io.MultiReader(bytes.NewReader(first), body), body}, visible, err
	}
	if o.unverified() { // all of it has to be read before any of it is handed out
		ref.ETag = raw.ETag
		if o.whole != nil {
			if err = b.verifyBody("get", o, io.MultiReader(bytes.NewReader(first[o.begin():]), body)); err != nil {
				return nil, raw, err
			}
			b.remember(o)
			_ = body.Close()
		} else {
			_ = body.Close()
			if o, err = b.openToRead(ctx, "get", ref); err != nil {
				return nil, raw, err
			}
		}
		return b.getOpened(ctx, ref, opts, o)
	}
	if o.layout, err = o.profile.ForStored(raw.StoredSize); err != nil {
		return nil, raw, b.fail("get", ref.Key, err)
	}
	if visible, err = o.show(raw); err != nil {
		return nil, raw, b.fail("get", ref.Key, err)
	}
	return &reader{
		b: b, o: o, key: ref.Key, body: body, from: io.MultiReader(bytes.NewReader(first[o.profile.Header:]), body),
		end: o.layout.Full + 1, want: visible.Size, proves: true,
	}, visible, nil
}

// isOpened reports whether a version is known already.
func (b *bucket) isOpened(ref objstore.Ref) bool {
	ref.Bucket = b.Name()
	return ref.ETag != "" && b.s.opened.Contains(ref)
}

// unit is how many bytes of plaintext are opened at once.
func (o *opened) unit() int64 {
	if o.whole != nil {
		return s3ec.BlockBytes
	}
	return o.profile.Frame
}

// cover returns the frames or blocks [first, end) that hold the plaintext [off, off+n).
func (o *opened) cover(off, n int64) (first, end int64) {
	if o.whole != nil {
		return off / s3ec.BlockBytes, (off+n-1)/s3ec.BlockBytes + 1
	}
	return o.layout.Cover(off, n)
}

// piece is where frame or block i begins in what is stored, and how long it is.
func (o *opened) piece(i int64) (off, n int64) {
	if o.whole != nil {
		off, n = o.whole.blocks.Range(i)
		return o.begin() + off, n
	}
	return o.layout.Offset(i), o.layout.Bytes(i)
}

// opener is what opens frame or block i, and what that takes beyond the plaintext, in
// all and before it.
func (o *opened) opener(i int64) (overhead int64, prefix int, open func(dst []byte, i int64, sealed []byte) ([]byte, error)) {
	switch {
	case o.whole != nil:
		return 0, 0, o.whole.blocks.Open
	case i == o.layout.Full:
		return message.FinalOverhead, message.FinalPrefix, o.OpenFinal
	}
	return message.FrameOverhead, message.FramePrefix, o.Open
}

// joined reads what was read before and then the rest.
type joined struct {
	io.Reader
	io.Closer
}

// reader opens frames, or blocks, as they come.
type reader struct {
	b    *bucket
	o    *opened
	key  string
	body io.ReadCloser
	from io.Reader // what begins with the next frame and ends with body

	next, end int64 // frames, or blocks
	skip      int64 // bytes of the next frame before the range
	want      int64 // bytes that the caller still gets
	// proves tells that the final frame is the proof of the object's size.
	proves  bool
	frame   []byte
	pending []byte // of frame, opened in place
	err     error
}

// Read opens a frame into p itself where there is room for all of it.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.pending) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.next == r.end {
			r.err = r.b.refused(r.o.object.Ref(r.b.Name()), r.ended())
			continue
		}
		n, err := r.open(p)
		if err != nil {
			r.err = r.b.refused(r.o.object.Ref(r.b.Name()), err)
			continue
		}
		if n > 0 {
			return n, nil
		}
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

// open reads the next frame or block, and opens it into p, or else to pending.
func (r *reader) open(p []byte) (n int, err error) {
	i := r.next
	_, stored := r.o.piece(i)
	if int64(cap(r.frame)) < stored {
		_, most := r.o.piece(0)
		r.frame = make([]byte, max(stored, most))
	}
	frame := r.frame[:stored]
	if _, err := io.ReadFull(r.from, frame); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = r.b.failf("get", r.key, objstore.Integrity, "the body ended within frame %d", i)
		}
		return 0, err
	}
	r.next++
	overhead, prefix, open := r.o.opener(i)
	length := stored - overhead
	if r.skip == 0 && length <= min(r.want, int64(len(p))) {
		if _, err := open(p[:0:length], i, frame); err != nil {
			return 0, r.b.fail("get", r.key, err)
		}
		r.want -= length
		return int(length), nil
	}
	plain, err := open(frame[prefix:prefix], i, frame)
	if err != nil {
		return 0, r.b.fail("get", r.key, err)
	}
	plain = plain[r.skip:]
	r.skip = 0
	r.pending = plain[:min(r.want, int64(len(plain)))]
	r.want -= int64(len(r.pending))
	return 0, nil
}

// ended returns io.EOF when the body ends where it has to, which also leaves its
// connection to others.
func (r *reader) ended() error {
	var one [1]byte
	n, err := io.ReadFull(r.from, one[:])
	if n > 0 {
		return r.b.failf("get", r.key, objstore.Integrity, "the body goes on after its last frame")
	}
	if err == io.EOF && r.proves {
		r.b.remember(r.o)
	}
	return err
}

// Close closes the body below.
func (r *reader) Close() error { return r.body.Close() }
