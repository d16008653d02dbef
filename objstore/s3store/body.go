package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"coffer/objstore"
)

// firstPause doubles with each resumption that brought no byte.
const firstPause = 50 * time.Millisecond

// body is the reader that Get returns. One goroutine uses it.
type body struct {
	b      *bucket
	ref    objstore.Ref // after start with the ETag of the first reply
	name   string
	ctx    context.Context
	pos    int64  // offset in the object of the next byte
	length int64  // as asked for; 0 is to the end
	key    string // MD5 of the customer key to try first

	left  int64 // bytes still to deliver
	total int64
	cur   *fetched
	sum   *verifier // nil when the stored checksum does not cover this read
	err   error     // sticky

	// failing is when the present series of failures without a byte began.
	failing time.Time
	pause   time.Duration
}

// start opens the first connection.
func (r *body) start() (objstore.Object, error) {
	o := r.b.s.op("get", r.b.bucketOf(r.ref), r.ref.Key)
	f, err := r.b.fetch(r.ctx, o, r.ref, r.key, r.pos, r.length)
	for try := 0; err != nil && objstore.KindOf(err) == objstore.Integrity && try < maxDigestRetries; try++ {
		f, err = r.b.fetch(r.ctx, o, r.ref, r.key, r.pos, r.length) // a damaged header
	}
	if err != nil {
		return objstore.Object{}, err
	}
	obj := objectOf(r.ref.Key, f.resp.Header)
	obj.Size, obj.StoredSize, obj.SizeKnown = f.total, f.total, true
	r.left, r.total = f.n, f.total
	r.ref.ETag = obj.ETag
	if r.pos == 0 && r.left == r.total {
		r.sum = newVerifier(obj)
	}
	if err := r.adopt(f); err != nil && !r.resumable(err) {
		return objstore.Object{}, r.fail(err)
	}
	return obj, nil
}

// adopt makes f the source of the bytes from r.pos on.
func (r *body) adopt(f *fetched) error {
	r.cur = f
	for f.skip > 0 {
		var scratch [32 << 10]byte
		n, err := r.readSome(scratch[:min(int64(len(scratch)), f.skip)])
		f.skip -= int64(n)
		if err != nil && f.skip > 0 {
			return err
		}
	}
	return nil
}

// readSome reads from the connection, which gives up when it stalls.
func (r *body) readSome(p []byte) (int, error) {
	n, err := r.cur.resp.Body.Read(p)
	if err != nil && err != io.EOF {
		if cause := context.Cause(r.cur.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// Read delivers the bytes asked for, resuming as often as it takes.
func (r *body) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for r.left > 0 {
		if r.cur == nil {
			if err := r.resume(); err != nil {
				return 0, r.fail(err)
			}
			continue
		}
		n, err := r.readSome(p[:min(int64(len(p)), r.left)])
		if n > 0 {
			r.pos += int64(n)
			r.left -= int64(n)
			r.failing, r.pause = time.Time{}, 0
			r.sum.add(p[:n])
			if r.left == 0 {
				// Looked at before the last bytes are handed out.
				if err := r.sum.check(); err != nil {
					return 0, r.fail(newError("get", r.name, objstore.Integrity, "%w", err))
				}
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		r.drop()
		if !r.resumable(err) {
			return 0, r.fail(r.broken(err))
		}
		if r.failing.IsZero() {
			r.failing = time.Now()
		}
		if time.Since(r.failing) > r.b.s.cfg.OperationTimeout {
			return 0, r.fail(r.broken(err))
		}
		r.b.s.log.Debug("body ended early, resuming", "object", r.name, "offset", r.pos, "error", err)
	}
	if r.total == 0 {
		if err := r.sum.check(); err != nil {
			return 0, r.fail(newError("get", r.name, objstore.Integrity, "%w", err))
		}
	}
	return 0, r.fail(io.EOF)
}

// resumable reports whether asking again can help.
func (r *body) resumable(err error) bool {
	return r.ctx.Err() == nil && (isTransient(err) || isBrokenBody(err))
}

// isBrokenBody reports whether err is a body that ended badly.
func isBrokenBody(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.As(err, &op) || errors.Is(err, net.ErrClosed) || err != nil && strings.HasPrefix(err.Error(), "http: ")
}

// resume asks for the rest, of the same version.
func (r *body) resume() error {
	if r.pause > 0 {
		t := time.NewTimer(r.pause/2 + rand.N(r.pause))
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.ctx.Done():
			return r.broken(r.ctx.Err())
		}
	}
	r.pause = min(max(2*r.pause, firstPause), maxBackoff)
	o := r.b.s.op("get", r.b.bucketOf(r.ref), r.ref.Key)
	if !r.failing.IsZero() {
		// One deadline for the whole series, however it is made up.
		o.timeout = max(o.timeout-time.Since(r.failing), time.Second)
	}
	f, err := r.b.fetch(r.ctx, o, r.ref, r.key, r.pos, r.left)
	if err != nil {
		return err
	}
	if f.total != r.total || f.n != r.left {
		f.cancel(nil)
		_ = f.resp.Body.Close()
		return newError("get", r.name, objstore.Integrity, "the object had %d bytes and has %d under the same ETag", r.total, f.total)
	}
	if err := r.adopt(f); err != nil {
		r.drop()
		if !r.resumable(err) || !r.failing.IsZero() && time.Since(r.failing) > r.b.s.cfg.OperationTimeout {
			return r.broken(err)
		}
	}
	return nil
}

// broken is the error of a body that cannot be had.
func (r *body) broken(err error) error {
	if errors.Is(r.ctx.Err(), context.Canceled) {
		return newError("get", r.name, objstore.Canceled, "%w", context.Cause(r.ctx))
	}
	var e *objstore.Error
	if errors.As(err, &e) {
		return err
	}
	return newError("get", r.name, objstore.Unavailable, "body broke off at offset %d: %w", r.pos, err)
}

// drop closes the connection in use.
func (r *body) drop() {
	if r.cur == nil {
		return
	}
	r.cur.cancel(nil)
	_ = r.cur.resp.Body.Close()
	r.cur = nil
}

// fail makes err the answer of every later Read and frees the connection.
func (r *body) fail(err error) error {
	if r.err == nil {
		r.err = err
	}
	if r.cur != nil && err == io.EOF {
		// Read to its end: closing it the gentle way keeps the connection.
		_ = r.cur.resp.Body.Close()
	}
	r.drop()
	return r.err
}

// Close frees the connection. It never fails.
func (r *body) Close() error {
	if r.err == nil {
		r.err = fmt.Errorf("get %q: read after Close: %w", r.name, net.ErrClosed)
	}
	r.drop()
	return nil
}
