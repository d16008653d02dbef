package cse

import (
	"context"
	"errors"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// Create implements objstore.Bucket. Every object is a new message. The result is no
// [objstore.RangeCopier]: frames of one message mean nothing in another.
func (b *bucket) Create(ctx context.Context, key string, opts objstore.CreateOptions) (objstore.Writer, error) {
	if isMarker(key) {
		w, err := b.Bucket.Create(ctx, key, opts)
		if err != nil {
			return nil, err
		}
		return &markerWriter{Writer: w, b: b, key: key}, nil
	}
	m, err := b.s.keys.Wrap(ctx, b.s.cfg.Context)
	if err != nil {
		return nil, b.unwrapping("create", key, err)
	}
	sealer, err := message.NewSealer(m.Key, m.Context, m.EDKs, message.Own.Frame)
	if err != nil {
		return nil, b.fail("create", key, err)
	}
	profile, binding := sealer.Profile(), ""
	if b.s.cfg.Binding != BindOff {
		binding = sealer.Binding(b.Name(), key)
	}
	opts.Meta = withMessage(opts.Meta, profile, binding)
	if opts.SizeHint > 0 {
		if l, err := profile.ForSize(opts.SizeHint); err == nil {
			opts.SizeHint = l.Stored()
		}
	}
	opts.Ranges = false
	inner, err := b.Bucket.Create(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	w := &writer{b: b, inner: inner, sealer: sealer, buf: make([]byte, message.FramePrefix)}
	if _, err := inner.Write(sealer.Header()); err != nil {
		return nil, errors.Join(err, inner.Abort())
	}
	if k, ok := inner.(objstore.Keeper); ok {
		return &keeper{writer: w, inner: k}, nil
	}
	return w, nil
}

// writer seals what is written, frame by frame.
type writer struct {
	b      *bucket
	inner  objstore.Writer
	sealer *message.Sealer
	// buf is room for a frame's prefix, and the plaintext of the one under way. It
	// grows with what comes: most files are smaller than a frame.
	buf    []byte
	frames int64 // sealed
	ended  bool  // the final frame was sealed
}

// begun is how many bytes of the frame under way there are.
func (w *writer) begun() int { return len(w.buf) - message.FramePrefix }

// size is how many bytes were written.
func (w *writer) size() int64 { return w.frames*message.Own.Frame + int64(w.begun()) }

// Write passes on every frame that is full.
func (w *writer) Write(p []byte) (int, error) {
	n := 0
	for {
		m := min(int(message.Own.Frame)-w.begun(), len(p)-n)
		w.buf = append(w.buf, p[n:n+m]...)
		n += m
		if w.begun() < int(message.Own.Frame) {
			break
		}
		if err := w.seal(); err != nil {
			return n, err
		}
	}
	// A short write, which only fills the frame, fails as any other does after the
	// writer has ended.
	_, err := w.inner.Write(nil)
	return n, err
}

// seal passes on the frame under way, sealed in its place.
func (w *writer) seal() error {
	sealed, err := w.sealer.Seal(w.buf[:0], w.frames, w.buf[message.FramePrefix:])
	if err != nil {
		return err
	}
	w.frames++
	w.buf = sealed[:message.FramePrefix] // another array, where there was no room for the tag
	_, err = w.inner.Write(sealed)
	return err
}

// finish passes on the final frame, once.
func (w *writer) finish() error {
	if w.ended {
		return nil
	}
	sealed, err := w.sealer.SealFinal(nil, w.buf[message.FramePrefix:])
	if err != nil {
		return err
	}
	w.ended = true
	_, err = w.inner.Write(sealed)
	return err
}

// Commit implements objstore.Writer.
func (w *writer) Commit(ctx context.Context) (objstore.Object, error) {
	if err := w.finish(); err != nil {
		return objstore.Object{}, err
	}
	o, err := w.inner.Commit(ctx)
	return w.committed(o, err)
}

// committed is what the commit inside came to, as a reader sees it.
func (w *writer) committed(o objstore.Object, err error) (objstore.Object, error) {
	if err != nil {
		return o, err
	}
	l, err := w.sealer.Profile().ForSize(w.size())
	if err != nil {
		return o, err
	}
	o.StoredSize = l.Stored()
	f := form{profile: l.Profile, suite: message.Committed, mode: w.b.s.mode}
	if o.ETag != "" {
		w.b.noteProved(o, f)
	}
	return f.show(o)
}

// Abort implements objstore.Writer.
func (w *writer) Abort() error { return w.inner.Abort() }

// keeper is a writer whose bytes can wait in the store.
type keeper struct {
	*writer
	inner objstore.Keeper
}

func (k *keeper) Kept() bool { return k.inner.Kept() }

func (k *keeper) Recommit(ctx context.Context, cond objstore.Condition) (objstore.Object, error) {
	o, err := k.inner.Recommit(ctx, cond)
	return k.committed(o, err)
}

func (k *keeper) Token() ([]byte, error) { return k.inner.Token() }

func (k *keeper) Entrust() { k.inner.Entrust() }

// markerWriter refuses bytes: they would be stored as they are.
type markerWriter struct {
	objstore.Writer
	b   *bucket
	key string
}

func (w *markerWriter) Write(p []byte) (int, error) {
	if len(p) > 0 {
		return 0, w.b.failf("write", w.key, objstore.Unsupported, "a key that ends in a slash is a directory's, whose objects are empty and not encrypted")
	}
	return w.Writer.Write(p)
}

// Resume implements objstore.Resumer.
func (b *bucket) Resume(ctx context.Context, token []byte) (objstore.Keeper, error) {
	r, ok := b.Bucket.(objstore.Resumer)
	if !ok {
		return nil, b.failf("resume", "", objstore.Unsupported, "the store keeps nothing")
	}
	k, err := r.Resume(ctx, token)
	if err != nil {
		return nil, err
	}
	return &resumed{Keeper: k, b: b}, nil
}

// resumed is what another process has sealed, header and final frame included.
type resumed struct {
	objstore.Keeper
	b *bucket
}

func (r *resumed) Commit(ctx context.Context) (objstore.Object, error) {
	o, err := r.Keeper.Commit(ctx)
	return r.committed(ctx, o, err)
}

func (r *resumed) Recommit(ctx context.Context, cond objstore.Condition) (objstore.Object, error) {
	o, err := r.Keeper.Recommit(ctx, cond)
	return r.committed(ctx, o, err)
}

func (r *resumed) committed(ctx context.Context, o objstore.Object, err error) (objstore.Object, error) {
	if err != nil {
		return o, err
	}
	return r.b.Head(ctx, objstore.Ref{Key: o.Key, ETag: o.ETag})
}
