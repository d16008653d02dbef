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
		done, copies, err := w.tryCopies(src, off, n)
		if err != nil {
			return err
		}
		if !copies {
			return w.readRange(ctx, src, off, n)
		}
		if w.sources == nil {
			w.sources = map[objstore.Ref]struct{}{}
		}
		w.sources[src] = struct{}{}
		off, n = off+done, n-done
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

// tryCopies begins to copy a range of a source that nothing was copied from yet,
// and waits for the first piece: a short one, for by it shows whether the store
// copies from there. As many others as may be are under way meanwhile, so that
// this costs no time. It returns how many bytes are seen to, which are none
// where the store does not copy.
func (w *writer) tryCopies(src objstore.Ref, off, n int64) (done int64, copies bool, err error) {
	cuts := []int64{n}
	if n >= 2*minPartSize {
		cuts = append([]int64{minPartSize}, pieces(n-minPartSize, w.opts.SizeHint)...)
	}
	first := w.upload.next
	for i, size := range cuts {
		if i > 0 && w.copying >= w.mostCopying() {
			break
		}
		if err := w.copyPiece(src, off+done, size); err != nil {
			return 0, false, err
		}
		done += size
	}
	var trial partResult
	var others []partResult // in flight until their results are taken
	for trial.number == 0 {
		switch r := <-w.results; {
		case r.number == first:
			trial = r
		case r.number > first:
			others = append(others, r)
		default:
			w.take(r)
		}
	}
	if !isNotCopied(trial.err) {
		for _, r := range append(others, trial) {
			w.take(r)
		}
		return done, true, w.err
	}
	// The others end the same way. They are waited for and not cancelled: their
	// numbers go to parts that are sent.
	for len(others) < w.upload.next-first-1 {
		if r := <-w.results; r.number > first {
			others = append(others, r)
		} else {
			w.take(r)
		}
	}
	w.copying -= len(others) + 1
	w.upload.giveBack(first)
	return 0, false, nil
}

// isNotCopied reports whether err says that the store does not copy from a
// source. RGW says 400 where that is under a customer key.
func isNotCopied(err error) bool {
	return objstore.KindOf(err) == objstore.Unsupported || statusOf(err) == http.StatusBadRequest
}

// mostCopying is how many pieces are copied at a time. They cost this machine a
// request each and the store its work, which many disks do best together: a
// copy is about as fast as one stream of an upload and as one disk, so there are
// more of them than of parts that are sent, which fill this machine's network.
func (w *writer) mostCopying() int { return copiesPerPart * w.b.s.cfg.Concurrency }

// copyPiece copies one piece in the background.
func (w *writer) copyPiece(src objstore.Ref, off, size int64) error {
	for w.copying >= w.mostCopying() && w.err == nil {
		w.take(<-w.results)
	}
	if w.err != nil {
		return w.err
	}
	n, err := w.upload.reserve()
	if err != nil {
		return err
	}
	w.copying++
	go func() {
		p, err := w.upload.copyPart(w.ctx, n, src, off, size)
		w.results <- partResult{number: n, part: p, copied: true, err: err}
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
