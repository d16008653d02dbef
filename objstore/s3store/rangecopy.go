package s3store

import (
	"context"
	"errors"
	"io"
	"net/http"

	"coffer/objstore"
)

// CopyRange appends n bytes from off of src without moving them through this
// machine, except where parts would be too short: then the missing bytes are
// read. src.ETag must be set.
func (w *writer) CopyRange(ctx context.Context, src objstore.Ref, off, n int64) error {
	if err := w.usable(); err != nil {
		return err
	}
	name := w.b.bucketOf(src) + "/" + src.Key
	if src.ETag == "" || off < 0 || n < 0 {
		return newError("copy", name, objstore.Unknown, "a range copy needs the source's ETag and a range")
	}
	if n == 0 {
		return nil
	}
	if err := w.copyRange(ctx, src, off, n); err != nil {
		return w.stop(err)
	}
	return nil
}

func (w *writer) copyRange(ctx context.Context, src objstore.Ref, off, n int64) error {
	// What is buffered must become a part of its own first, so it is filled
	// up to the least length of one; and what follows must be one as well.
	head := int64(0)
	if w.cur.size > 0 {
		head = max(0, minPartSize-w.cur.size)
	}
	if n-head < minPartSize || w.upload != nil && w.upload.checksums {
		return w.readRange(ctx, src, off, n)
	}
	if head > 0 {
		if err := w.readRange(ctx, src, off, head); err != nil {
			return err
		}
		off, n = off+head, n-head
	}
	if w.upload == nil {
		if err := w.begin(false); err != nil {
			return err
		}
	}
	if w.cur.size > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if _, known := w.sources[src]; !known {
		// Whether the store copies from there shows with a short piece.
		size := n
		if n >= 2*minPartSize {
			size = minPartSize
		}
		err := w.copyFirst(ctx, src, off, size)
		if objstore.KindOf(err) == objstore.Unsupported || statusOf(err) == http.StatusBadRequest {
			// RGW says 400 where the source is under a customer key.
			return w.readRange(ctx, src, off, n)
		}
		if err != nil {
			return err
		}
		if w.sources == nil {
			w.sources = map[objstore.Ref]struct{}{}
		}
		w.sources[src] = struct{}{}
		if off, n = off+size, n-size; n == 0 {
			return nil
		}
	}
	for _, size := range pieces(n, w.opts.SizeHint) {
		if err := w.copyPiece(src, off, size); err != nil {
			return err
		}
		off += size
	}
	return nil
}

// Copied implements [objstore.RangeCopier]. Servers exist that ignore the
// condition on the source of a copy: if it is still this version now, it was all
// the time.
func (w *writer) Copied(ctx context.Context) error {
	if err := w.usable(); err != nil {
		return err
	}
	if w.drain(); w.err != nil {
		return w.err
	}
	for src := range w.sources {
		_, err := w.b.Head(ctx, src)
		if errors.Is(err, objstore.NotExist) {
			err = withKind(err, objstore.Stale)
		}
		if err != nil {
			return w.stop(err)
		}
	}
	clear(w.sources)
	return nil
}

// copyFirst copies one piece and waits for it.
func (w *writer) copyFirst(ctx context.Context, src objstore.Ref, off, size int64) error {
	n, err := w.upload.reserve()
	if err != nil {
		return err
	}
	p, err := w.upload.copyPart(ctx, n, src, off, size)
	if err != nil {
		w.upload.next--
		w.upload.parts = w.upload.parts[:n-1]
		return err
	}
	w.upload.parts[n-1] = p
	return nil
}

// copyPiece copies one piece in the background.
func (w *writer) copyPiece(src objstore.Ref, off, size int64) error {
	n, err := w.upload.reserve()
	if err != nil {
		return err
	}
	for w.inFlight >= w.b.s.cfg.Concurrency && w.err == nil {
		w.take(<-w.results)
	}
	if w.err != nil {
		return w.err
	}
	w.inFlight++
	go func() {
		p, err := w.upload.copyPart(w.ctx, n, src, off, size)
		w.results <- partResult{number: n, part: p, err: err}
	}()
	return nil
}

// readRange appends a range by reading it.
func (w *writer) readRange(ctx context.Context, src objstore.Ref, off, n int64) error {
	return w.read(ctx, src, objstore.Range{Offset: off, Length: n}, n)
}

// read appends what a Get yields, which must be n bytes.
func (w *writer) read(ctx context.Context, src objstore.Ref, rng objstore.Range, n int64) error {
	r, _, err := w.b.Get(ctx, src, objstore.GetOptions{Range: rng})
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 256<<10))
	if err == nil && got != n {
		err = newError("copy", w.b.bucketOf(src)+"/"+src.Key, objstore.InvalidRange, "the source ends %d bytes early", n-got)
	}
	return err
}
