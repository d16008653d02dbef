package s3store

import (
	"context"
	"encoding/json"

	"coffer/objstore"
)

// An upload whose Complete has failed keeps its parts, if the caller asks for
// that, until it is completed after all, by this process or a later one.

var (
	_ objstore.Keeper  = (*writer)(nil)
	_ objstore.Resumer = (*bucket)(nil)
)

// keptUpload is the token of an upload.
type keptUpload struct {
	Key       string            `json:"key"`
	ID        string            `json:"id"`
	Checksums bool              `json:"checksums"`
	Meta      map[string]string `json:"meta"`
	Headers   objstore.Headers  `json:"headers"`
	Class     string            `json:"class,omitempty"`
	// Encryption is the wish of the writer.
	Encryption objstore.Encryption `json:"encryption"`
	Parts      []keptPart          `json:"parts"`
}

type keptPart struct {
	ETag objstore.ETag `json:"etag"`
	CRC  string        `json:"crc,omitempty"`
	Size int64         `json:"size"`
}

// Kept implements [objstore.Keeper].
func (w *writer) Kept() bool { return w.kept }

// Recommit implements [objstore.Keeper].
func (w *writer) Recommit(ctx context.Context, cond objstore.Condition) (objstore.Object, error) {
	w.opts.Cond = cond
	return w.Commit(ctx)
}

// Token implements [objstore.Keeper].
func (w *writer) Token() ([]byte, error) {
	if !w.kept {
		return nil, newError("put", w.op().name(), objstore.Unknown, "nothing is kept")
	}
	u := w.upload
	k := keptUpload{
		Key: w.key, ID: u.id, Checksums: u.checksums, Meta: w.opts.Meta, Headers: w.opts.Headers, Class: w.opts.StorageClass,
		Encryption: w.opts.Encryption,
	}
	for _, p := range u.parts {
		k.Parts = append(k.Parts, keptPart{p.etag, p.crc, p.size})
	}
	return json.Marshal(k)
}

// Entrust implements [objstore.Keeper].
func (w *writer) Entrust() {
	w.ended, w.kept = true, false
	w.cancel(nil)
	w.b.s.journal.ended(w.upload.id)
	w.b.s.journal.sync()
}

// Resume implements [objstore.Resumer].
func (b *bucket) Resume(ctx context.Context, token []byte) (objstore.Keeper, error) {
	var k keptUpload
	if err := json.Unmarshal(token, &k); err != nil || k.Key == "" || k.ID == "" || len(k.Parts) == 0 {
		return nil, newError("put", b.name, objstore.Integrity, "the token of an upload is damaged")
	}
	prot, err := b.protect(ctx, k.Key, k.Encryption)
	if err != nil {
		return nil, err
	}
	opts := objstore.CreateOptions{Meta: k.Meta, Headers: k.Headers, StorageClass: k.Class, Encryption: k.Encryption, Keep: true}
	w := b.newWriter(context.WithoutCancel(ctx), k.Key, opts, prot)
	w.kept = true
	// Whether Complete was done after all, in its last moment, is looked at
	// when the upload turns out to be gone.
	w.upload = &upload{b: b, key: k.Key, id: k.ID, checksums: k.Checksums, send: prot.send, meta: k.Meta, next: len(k.Parts) + 1, tried: true}
	for _, p := range k.Parts {
		w.upload.parts = append(w.upload.parts, uploadedPart{p.ETag, p.CRC, p.Size})
	}
	return w, nil
}
