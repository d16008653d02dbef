package cse

import (
	"context"
	"errors"
	"io"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// getTries bounds how often a Get of no particular version starts again, because the
// object changed between its requests.
const getTries = 10

// Get implements objstore.Bucket. What the reader yields is authentic, frame by frame;
// the last bytes come when the final frame has proved that they are.
func (b *bucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	if isMarker(ref.Key) {
		return b.Bucket.Get(ctx, ref, opts)
	}
	for try := 1; ; try++ {
		body, o, err := b.get(ctx, ref, opts)
		if err != nil && ref.ETag == "" && try < getTries && errors.Is(err, objstore.Stale) {
			continue
		}
		return body, o, err
	}
}

func (b *bucket) get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	o, err := b.open(ctx, "get", ref)
	if err != nil {
		return nil, objstore.Object{}, err
	}
	visible, err := o.show(o.object)
	if err != nil {
		return nil, visible, b.fail("get", ref.Key, err)
	}
	pinned := ref
	pinned.ETag = o.object.ETag
	if o.plain {
		if b.s.cfg.Policy == Require {
			return nil, visible, b.notMessage("get", ref.Key)
		}
		body, raw, err := b.Bucket.Get(ctx, pinned, opts)
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
		return io.NopCloser(eof{}), visible, nil
	}
	first, last := o.layout.Cover(r.Offset, end-r.Offset)
	begin := o.layout.Offset(first)
	opts.Range = objstore.Range{Offset: begin, Length: o.layout.Offset(last-1) + o.layout.Bytes(last-1) - begin}
	body, _, err := b.Bucket.Get(ctx, pinned, opts)
	if err != nil {
		return nil, visible, err
	}
	return &reader{
		b: b, o: o, key: ref.Key, body: body, next: first,
		skip: r.Offset - first*o.layout.Frame, want: end - r.Offset,
	}, visible, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// reader opens frames as they come.
type reader struct {
	b    *bucket
	o    *opened
	key  string
	body io.ReadCloser

	next    int64 // frame
	skip    int64 // bytes of it before the range
	want    int64 // bytes that the caller still gets
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
		if r.want == 0 {
			r.err = r.ended()
			continue
		}
		n, err := r.open(p)
		if err != nil {
			r.err = err
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

// open reads the next frame, and opens it into p, or else to pending.
func (r *reader) open(p []byte) (n int, err error) {
	i, l := r.next, &r.o.layout
	stored := l.Bytes(i)
	if int64(cap(r.frame)) < stored {
		r.frame = make([]byte, max(stored, l.Bytes(0)))
	}
	frame := r.frame[:stored]
	if _, err := io.ReadFull(r.body, frame); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = r.b.failf("get", r.key, objstore.Integrity, "the body ended within frame %d", i)
		}
		return 0, err
	}
	r.next++
	overhead, prefix, open := int64(message.FrameOverhead), message.FramePrefix, r.o.Open
	if i == l.Full {
		overhead, prefix, open = message.FinalOverhead, message.FinalPrefix, r.o.OpenFinal
	}
	length := stored - overhead
	if r.skip == 0 && length <= min(r.want, int64(len(p))) {
		if _, err := open(p[:0:length], i, frame); err != nil {
			return 0, r.b.damaged(r.key, r.o, err)
		}
		r.want -= length
		return int(length), nil
	}
	plain, err := open(frame[prefix:prefix], i, frame)
	if err != nil {
		return 0, r.b.damaged(r.key, r.o, err)
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
	switch n, err := io.ReadFull(r.body, one[:]); {
	case n > 0:
		return r.b.failf("get", r.key, objstore.Integrity, "the body goes on after its last frame")
	default:
		return err
	}
}

// Close closes the body below.
func (r *reader) Close() error { return r.body.Close() }

// damaged counts and logs what does not open, and returns the error.
func (b *bucket) damaged(key string, o *opened, err error) error {
	b.s.warnOnce(b.Name()+"/"+key+" "+string(o.object.ETag)+" damaged", "an encrypted object is damaged, or somebody changed it", "key", b.Name()+"/"+key, "err", err)
	return b.fail("get", key, err)
}
