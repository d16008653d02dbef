package s3store

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"coffer/objstore"
)

// writerBudget bounds the bytes that one writer buffers, unless two of its
// parts are more.
const writerBudget = 64 << 20

// writer streams one object version: a single PUT when everything fits into
// the first part, a multipart upload otherwise. One goroutine calls it; the
// goroutines that send parts report through results and own nothing else.
type writer struct {
	b      *bucket
	key    string
	opts   objstore.CreateOptions
	tags   string // as in a query string
	prot   protection
	plan   partPlan
	ctx    context.Context // of every background transfer
	cancel context.CancelCauseFunc

	cur      *partBuffer
	upload   *upload         // nil until the first part is full
	results  chan partResult // nil as long as upload is
	inFlight int             // parts being sent
	copying  int             // parts being copied by the store
	ended    bool
	// kept tells that all parts are in the store and only the last step of
	// Commit has failed.
	kept bool
	// sources are what the store copies from, or has copied from since Copied
	// was called last.
	sources map[objstore.Ref]struct{}
	err     error // sticky
}

var (
	_ objstore.Writer      = (*writer)(nil)
	_ objstore.RangeCopier = (*writer)(nil)
)

var errEnded = errors.New("the writer was ended before")

// Create starts a new version of key. Nothing of it leaves before the bucket
// is proved to protect it.
func (b *bucket) Create(ctx context.Context, key string, opts objstore.CreateOptions) (objstore.Writer, error) {
	if err := b.checkNew("put", key, opts.Meta); err != nil {
		return nil, err
	}
	prot, err := b.protect(ctx, key, opts.Encryption)
	if err != nil {
		if errors.Is(err, objstore.Unencrypted) && !b.refused.Swap(true) {
			b.s.log.Warn("nothing is written to this bucket because it would not be encrypted as demanded; "+
				"use a bucket that encrypts so, or allow unencrypted objects by name", "bucket", b.name, "key", key, "error", err)
		}
		return nil, err
	}
	return b.newWriter(ctx, key, opts, prot), nil
}

// newWriter returns a writer whose object is protected as prot says.
func (b *bucket) newWriter(ctx context.Context, key string, opts objstore.CreateOptions, prot protection) *writer {
	w := &writer{
		b: b, key: key, opts: opts, prot: prot, plan: newPartPlan(b.s.cfg.PartSize, opts.SizeHint),
		cur: &partBuffer{pool: &b.s.chunks},
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w
}

// checkNew refuses what no request could carry.
func (b *bucket) checkNew(verb, key string, meta map[string]string) error {
	if key == "" {
		return newError(verb, b.name, objstore.InvalidName, "the key is empty")
	}
	for name := range meta {
		if !validMetaName(name) {
			return newError(verb, b.name+"/"+key, objstore.InvalidName, "metadata name %q cannot be part of a header", name)
		}
	}
	return b.s.writable(verb, b.name+"/"+key)
}

// op names what the writer does, for errors.
func (w *writer) op() operation { return w.b.s.op("put", w.b.name, w.key) }

// partSize is the length of the part that is being filled.
func (w *writer) partSize() int64 {
	if w.upload == nil {
		return w.plan.size(1)
	}
	return w.plan.size(w.upload.next)
}

// Write appends p. It blocks while the parts in flight take all the memory
// that a writer may have.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.usable(); err != nil {
		return 0, err
	}
	done := 0
	for done < len(p) {
		if w.cur.size == w.partSize() {
			// More is to come, so this part is not the last.
			if err := w.flush(); err != nil {
				return done, w.stop(err)
			}
		}
		n := min(w.partSize()-w.cur.size, int64(len(p)-done))
		_, _ = w.cur.Write(p[done : done+int(n)]) // never fails
		done += int(n)
	}
	return done, nil
}

// usable returns why nothing can be written any more.
func (w *writer) usable() error {
	if w.ended && w.err == nil {
		return newError("put", w.op().name(), objstore.Unknown, "%w", errEnded)
	}
	w.collect()
	return w.err
}

// collect takes the results that have come in, without waiting.
func (w *writer) collect() {
	for len(w.results) > 0 {
		w.take(<-w.results)
	}
}

// take books one result.
func (w *writer) take(r partResult) {
	if r.copied {
		w.copying--
	} else {
		w.inFlight--
	}
	if r.err != nil {
		if w.err == nil {
			w.err = r.err
		}
		return
	}
	w.upload.parts[r.number-1] = r.part
}

// flush sends the current part in the background.
func (w *writer) flush() error {
	if w.upload == nil {
		if err := w.begin(!w.opts.Ranges); err != nil {
			return err
		}
	}
	n, err := w.upload.reserve()
	if err != nil {
		return err
	}
	buf := w.cur
	w.cur = &partBuffer{pool: &w.b.s.chunks}
	for most := slots(max(buf.size, w.partSize()), writerBudget, w.b.s.cfg.Concurrency); w.inFlight >= most && w.err == nil; {
		w.take(<-w.results)
	}
	if w.err != nil {
		buf.release()
		return w.err
	}
	w.inFlight++
	go func() {
		p, err := w.upload.put(w.ctx, n, buf)
		buf.release()
		w.results <- partResult{number: n, part: p, err: err}
	}()
	return nil
}

// begin starts the multipart upload.
func (w *writer) begin(checksums bool) error {
	u, err := w.b.beginUpload(w.ctx, w.key, uploadOptions{
		meta: w.opts.Meta, headers: w.opts.Headers, class: w.opts.StorageClass, tagging: w.tags, send: w.prot.send, checksums: checksums,
	})
	if err != nil {
		return err
	}
	w.upload = u
	w.results = make(chan partResult, (1+copiesPerPart)*maxConcurrency) // nobody waits to put one in
	return nil
}

// stop remembers err as the answer of every later call.
func (w *writer) stop(err error) error {
	if w.err == nil {
		w.err = err
	}
	return w.err
}

// drain waits for every part in flight.
func (w *writer) drain() {
	for w.inFlight+w.copying > 0 {
		w.take(<-w.results)
	}
}

// Commit makes the object visible, whole, and verifies its encryption.
func (w *writer) Commit(ctx context.Context) (objstore.Object, error) {
	if w.ended {
		return objstore.Object{}, newError("put", w.op().name(), objstore.Unknown, "%w", errEnded)
	}
	// The transfers end with whichever context ends first.
	unlink := context.AfterFunc(ctx, func() { w.cancel(context.Cause(ctx)) })
	defer unlink()
	obj, said, err := w.commit(ctx)
	if err != nil {
		if !w.kept {
			w.end(err)
		}
		return objstore.Object{}, err
	}
	w.ended = true
	w.cur.release()
	w.cancel(nil)
	obj, err = w.b.confirm(ctx, "put", w.prot, obj, said)
	if err != nil {
		w.err = err
		return objstore.Object{}, err
	}
	return obj, nil
}

// commit sends what is left and ends the upload. said tells whether the reply
// told the object's encryption.
func (w *writer) commit(ctx context.Context) (obj objstore.Object, said bool, err error) {
	if w.err != nil {
		return obj, false, w.err
	}
	if w.upload == nil {
		if err := w.b.lookBefore(ctx, w.op(), w.opts.Cond); err != nil {
			return obj, false, err
		}
		return w.putWhole(ctx)
	}
	if w.cur.size > 0 {
		if err := w.flush(); err != nil {
			return obj, false, err
		}
	}
	// Where the file is made of the version that it replaces, one HEAD tells both.
	_, looked := w.sources[objstore.Ref{Bucket: w.b.name, Key: w.key, ETag: w.opts.Cond.IfMatch}]
	if err := w.Copied(ctx); err != nil {
		return obj, false, err
	}
	// Servers exist that honour conditions on a PUT and not on Complete.
	if !looked {
		err = w.b.checkCondition(ctx, w.op(), w.opts.Cond)
	}
	if err == nil {
		obj, said, err = w.upload.complete(ctx, w.opts.Cond)
	}
	// An upload that is gone took its parts along. One whose caller has given
	// up in the middle of this is not.
	w.kept = err != nil && w.opts.Keep && !w.upload.gone
	if err == nil {
		fill(&obj, w.opts)
	}
	return obj, said, err
}

// Abort gives up and removes stored parts.
func (w *writer) Abort() error {
	if w.ended {
		return nil
	}
	return w.end(newError("put", w.op().name(), objstore.Canceled, "aborted"))
}

// end stops every transfer, waits for them and removes the parts.
func (w *writer) end(cause error) error {
	w.ended, w.kept = true, false
	w.stop(cause)
	w.cancel(cause)
	w.drain()
	w.cur.release()
	if w.upload == nil {
		return nil
	}
	return w.upload.abort(w.ctx)
}

// defaultType is the Content-Type of what nobody has given one.
const defaultType = "application/octet-stream"

// putWhole sends everything in one PUT.
func (w *writer) putWhole(ctx context.Context) (obj objstore.Object, said bool, err error) {
	b, buf := w.b, w.cur
	o := w.op().sending(buf.size)
	resp, st, err := doState(withSSE(ctx, w.prot.send), o, func(ctx context.Context) (*http.Response, error) {
		h := w.opts.Headers
		r := newRequest("PutObject", http.MethodPut, w.key)
		for name, value := range encodeMeta(w.opts.Meta) {
			r.header[http.CanonicalHeaderKey(metaPrefix+name)] = []string{value}
		}
		r.set("X-Amz-Storage-Class", w.opts.StorageClass)
		r.set("X-Amz-Tagging", w.tags)
		r.set("Content-Type", cmp.Or(h.ContentType, defaultType))
		r.set("Content-Encoding", h.ContentEncoding)
		r.set("Content-Language", h.ContentLanguage)
		r.set("Content-Disposition", h.ContentDisposition)
		r.set("Cache-Control", h.CacheControl)
		r.set("Expires", h.Expires)
		ifMatch, ifNoneMatch := b.conditions(w.opts.Cond)
		r.set("If-Match", ifMatch)
		r.set("If-None-Match", ifNoneMatch)
		b.setBody(r, buf, false)
		return b.wire.send(ctx, r)
	})
	obj = objstore.Object{Entry: objstore.Entry{Key: w.key, Size: buf.size, StoredSize: buf.size, SizeKnown: true}}
	fill(&obj, w.opts)
	sent := func() written {
		return written{buf.size, buf.etag(), []string{"CRC32:" + crcText(buf.crc)}, w.opts.Meta}
	}
	if err != nil {
		if st.unsure && (isPrecondition(err) || objstore.KindOf(err) == objstore.NotExist) || uncertain(err) && ctx.Err() == nil {
			// An earlier attempt may have succeeded and its reply got lost.
			if found, ok := b.ours(ctx, o, sent()); ok {
				return found, true, nil
			}
		}
		return obj, false, w.refused(err)
	}
	if etagOf(resp.Header.Get("Etag")) == "" {
		obj, err = b.unnamed(ctx, o, sent())
		return obj, true, err
	}
	// No reply tells LastModified; the Date header can be a second off.
	obj.ETag, obj.VersionID = etagOf(resp.Header.Get("Etag")), resp.Header.Get("X-Amz-Version-Id")
	obj.Encryption = encryptionIn(resp.Header)
	checksumsIn(resp.Header).note(&obj)
	return obj, obj.Encryption.Encrypted(), nil
}

// refused gives a failed condition its kind.
func (w *writer) refused(err error) error {
	switch {
	case isPrecondition(err):
		return withKind(err, preconditionKind(w.opts.Cond))
	case w.opts.Cond.IfMatch != "" && codeOf(err) == "NoSuchKey":
		return withKind(err, objstore.Stale) // the answer of S3 to If-Match on what is gone
	}
	return err
}

// fill adds what we know of an object because we chose it.
func fill(obj *objstore.Object, opts objstore.CreateOptions) {
	obj.Meta = decodeMeta(encodeMeta(opts.Meta))
	obj.Headers = opts.Headers
	obj.StorageClass = storageClass(opts.StorageClass)
}
