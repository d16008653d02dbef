package s3store

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strconv"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// upload is one multipart upload. Two recipes exist, and only these two work
// everywhere: uploads of our own bytes name CRC32 when they are begun, send it
// with each part and list it at the end; uploads that copy ranges of existing
// objects name nothing, send MD5s, and list ETags alone.
type upload struct {
	b         *bucket
	key, id   string
	checksums bool
	send      ask // its customer key goes with every part
	meta      map[string]string
	next      int // number of the next part, from 1
	parts     []uploadedPart
	// tried tells that Complete was sent before, and may have been done; gone
	// that the store has no such upload any more.
	tried, gone bool
}

// uploadedPart is what Complete must tell of a part.
type uploadedPart struct {
	etag objstore.ETag
	crc  string // base64, "" without
	size int64
}

// partResult is how the sending of one part ended.
type partResult struct {
	number int
	part   uploadedPart
	copied bool // by the store, not sent
	err    error
}

// uploadOptions are fixed when an upload is begun.
type uploadOptions struct {
	meta      map[string]string
	headers   objstore.Headers
	class     string
	tagging   string // as in a query string
	send      ask
	checksums bool
}

// beginUpload starts a multipart upload of key.
func (b *bucket) beginUpload(ctx context.Context, key string, opts uploadOptions) (*upload, error) {
	h := opts.headers
	in := &s3.CreateMultipartUploadInput{
		Bucket: aws.String(b.name), Key: aws.String(key), Metadata: encodeMeta(opts.meta), StorageClass: types.StorageClass(opts.class),
		Tagging: optional(opts.tagging), ContentType: optional(h.ContentType), ContentEncoding: optional(h.ContentEncoding),
		ContentLanguage: optional(h.ContentLanguage), ContentDisposition: optional(h.ContentDisposition), CacheControl: optional(h.CacheControl),
	}
	checksums := opts.checksums && b.s.caps.get().crc32 != no
	if checksums {
		// Of the whole, so that a reader can compare all ranges together; a
		// store that does not know the type keeps the composite one.
		in.ChecksumAlgorithm, in.ChecksumType = types.ChecksumAlgorithmCrc32, types.ChecksumTypeFullObject
	}
	ctx = withSSE(ctx, opts.send)
	if h.Expires != "" {
		ctx = withHeader(ctx, "Expires", h.Expires)
	}
	out, err := do(ctx, b.s.op("put", b.name, key), func(ctx context.Context) (*s3.CreateMultipartUploadOutput, error) {
		return b.client.CreateMultipartUpload(ctx, in)
	})
	if err != nil {
		return nil, err
	}
	if aws.ToString(out.UploadId) == "" {
		return nil, newError("put", b.name+"/"+key, objstore.Integrity, "the reply to CreateMultipartUpload names no upload")
	}
	b.s.journal.begun(b.s.Identity(), b.name, key, *out.UploadId)
	return &upload{b: b, key: key, id: *out.UploadId, checksums: checksums, send: opts.send, meta: opts.meta, next: 1}, nil
}

// reserve takes the next part number.
func (u *upload) reserve() (int, error) {
	if u.next > maxParts {
		return 0, newError("put", u.b.name+"/"+u.key, objstore.TooLarge, "more than %d parts", maxParts)
	}
	n := u.next
	u.next++
	u.parts = append(u.parts, uploadedPart{})
	return n, nil
}

// giveBack makes n the number of the next part again.
func (u *upload) giveBack(n int) {
	u.next = n
	u.parts = u.parts[:n-1]
}

// put sends part n.
func (u *upload) put(ctx context.Context, n int, buf *partBuffer) (uploadedPart, error) {
	var crc string
	resp, err := insisting(ctx, u, func(ctx context.Context) (*http.Response, error) {
		return do(ctx, u.b.s.op("put", u.b.name, u.key).sending(buf.size), func(ctx context.Context) (*http.Response, error) {
			r := newRequest("UploadPart", http.MethodPut, u.key)
			r.query = url.Values{"partNumber": {strconv.Itoa(n)}, "uploadId": {u.id}}
			u.b.setBody(r, buf, !u.checksums)
			crc = r.header.Get("X-Amz-Checksum-Crc32")
			return u.b.wire.send(ctx, r)
		})
	})
	if err != nil {
		return uploadedPart{}, err
	}
	p := uploadedPart{etag: etagOf(resp.Header.Get("Etag")), size: buf.size}
	if p.etag == "" {
		return uploadedPart{}, newError("put", u.b.name+"/"+u.key, objstore.Integrity, "the reply to part %d names no ETag", n)
	}
	if u.checksums {
		p.crc = crc
	}
	return p, nil
}

// copyPart makes part n of bytes off to off+size of src.
func (u *upload) copyPart(ctx context.Context, n int, src objstore.Ref, off, size int64) (uploadedPart, error) {
	in := &s3.UploadPartCopyInput{
		Bucket: aws.String(u.b.name), Key: aws.String(u.key), UploadId: aws.String(u.id), PartNumber: aws.Int32(int32(n)),
		CopySource:        aws.String(copySource(u.b.bucketOf(src), src)),
		CopySourceIfMatch: optional(quoted(src.ETag)),
		CopySourceRange:   aws.String(fmt.Sprintf("bytes=%d-%d", off, off+size-1)),
	}
	key, err := u.b.sourceKey(ctx, src)
	if err != nil {
		return uploadedPart{}, err
	}
	out, err := insisting(withSource(ctx, key), u, func(ctx context.Context) (*s3.UploadPartCopyOutput, error) {
		return do(ctx, u.b.s.op("copy", u.b.name, u.key).sending(size), func(ctx context.Context) (*s3.UploadPartCopyOutput, error) {
			return u.b.client.UploadPartCopy(ctx, in)
		})
	})
	switch {
	case isPrecondition(err), codeOf(err) == "NoSuchKey": // replaced, or removed
		return uploadedPart{}, withKind(err, objstore.Stale)
	case err != nil:
		return uploadedPart{}, err
	case out.CopyPartResult == nil || etagOf(aws.ToString(out.CopyPartResult.ETag)) == "":
		return uploadedPart{}, newError("copy", u.b.name+"/"+u.key, objstore.Integrity, "the reply to part %d names no ETag", n)
	}
	return uploadedPart{etag: etagOf(aws.ToString(out.CopyPartResult.ETag)), size: size}, nil
}

// insisting sends a request of an upload for which the encryption was chosen
// when the upload was begun. A policy that denies uploads without a header for
// it denies these requests too, as MinIO reads it; they are sent again with the
// header, and the later ones of the bucket as well.
func insisting[T any](ctx context.Context, u *upload, request func(context.Context) (T, error)) (T, error) {
	e := u.send
	e.everywhere = u.b.insists.Load()
	out, err := request(withSSE(ctx, e))
	if objstore.KindOf(err) != objstore.Permission || e.everywhere || e.SSEHeader() == "" {
		return out, err
	}
	e.everywhere = true
	again, aerr := request(withSSE(ctx, e))
	if objstore.KindOf(aerr) == objstore.Permission || statusOf(aerr) == http.StatusBadRequest {
		return out, err // that was not it
	}
	if aerr == nil {
		u.b.insists.Store(true)
	}
	return again, aerr
}

// size is the length of the whole object.
func (u *upload) size() int64 {
	var n int64
	for _, p := range u.parts {
		n += p.size
	}
	return n
}

// complete makes the object of the parts. said tells whether the reply told
// the object's encryption.
func (u *upload) complete(ctx context.Context, cond objstore.Condition) (obj objstore.Object, said bool, err error) {
	list := make([]types.CompletedPart, len(u.parts))
	for i, p := range u.parts {
		list[i] = types.CompletedPart{PartNumber: aws.Int32(int32(i + 1)), ETag: optional(quoted(p.etag)), ChecksumCRC32: optional(p.crc)}
	}
	in := &s3.CompleteMultipartUploadInput{
		Bucket: aws.String(u.b.name), Key: aws.String(u.key), UploadId: aws.String(u.id),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: list},
	}
	ifMatch, ifNoneMatch := u.b.conditions(cond)
	in.IfMatch, in.IfNoneMatch = optional(ifMatch), optional(ifNoneMatch)
	o := u.b.s.op("put", u.b.name, u.key)
	var st *opState
	out, err := insisting(ctx, u, func(ctx context.Context) (out *s3.CompleteMultipartUploadOutput, err error) {
		out, st, err = doState(ctx, o, func(ctx context.Context) (*s3.CompleteMultipartUploadOutput, error) {
			return u.b.client.CompleteMultipartUpload(ctx, in)
		})
		return out, err
	})
	sent := func() written { return written{u.size(), u.etag(), u.crc32s(), u.meta} }
	if err == nil && etagOf(aws.ToString(out.ETag)) == "" {
		obj, err = u.b.unnamed(ctx, o, sent())
		return obj, true, err
	}
	if err == nil {
		obj = objstore.Object{Entry: objstore.Entry{
			Key: u.key, Size: u.size(), StoredSize: u.size(), SizeKnown: true, ETag: etagOf(aws.ToString(out.ETag)),
		}, VersionID: aws.ToString(out.VersionId)}
		obj.Encryption = encryptionOf(string(out.ServerSideEncryption), aws.ToString(out.SSEKMSKeyId), "", aws.ToBool(out.BucketKeyEnabled))
		storedChecksums{out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumSHA256, out.ChecksumSHA1, out.ChecksumType}.note(&obj)
		u.b.s.journal.ended(u.id)
		return obj, obj.Encryption.Encrypted(), nil
	}
	gone := codeOf(err) == "NoSuchUpload"
	// versitygw removes the parts before the upload.
	if u.gone = gone || codeOf(err) == "InvalidPart"; gone {
		u.b.s.journal.ended(u.id)
	}
	repeated := u.tried || st.retries > 0
	u.tried = true
	if (st.unsure || repeated && gone) && (gone || isPrecondition(err)) || uncertain(err) && ctx.Err() == nil {
		// An earlier attempt may have succeeded and its reply got lost.
		if found, ok := u.b.ours(ctx, o, sent()); ok {
			return found, true, nil
		}
	}
	switch {
	case isPrecondition(err):
		err = withKind(err, preconditionKind(cond))
	case gone && st.conflicts > 0:
		err = withKind(err, objstore.Conflict) // the store has dropped the upload over it
	case gone && repeated:
		err = newError("put", o.name(), objstore.Unavailable, "the upload has ended, and whether it made the object cannot be told: %w", err)
	case cond.IfMatch != "" && codeOf(err) == "NoSuchKey":
		err = withKind(err, objstore.Stale)
	case codeOf(err) == "InvalidPart":
		// The store has acknowledged every part: somebody has ended the upload.
		err = withKind(err, objstore.NotExist)
	}
	return obj, false, err
}

// etag is the ETag of the whole where ETags are MD5s: the MD5 of the parts'
// MD5s and their number. It is "" where the parts' ETags are none.
func (u *upload) etag() string {
	h := md5.New()
	for _, p := range u.parts {
		sum, err := hex.DecodeString(string(p.etag))
		if err != nil || len(sum) != md5.Size {
			return ""
		}
		_, _ = h.Write(sum) // never fails
	}
	return hex.EncodeToString(h.Sum(nil)) + "-" + strconv.Itoa(len(u.parts))
}

// crc32s are what the store may show as the CRC32 of the whole: of its bytes,
// or of its parts' sums. Nil where the parts have none.
func (u *upload) crc32s() []string {
	var whole uint64
	var sums []byte
	for _, p := range u.parts {
		sum, ok := objstore.CRC32.Parse(p.crc)
		if !ok {
			return nil
		}
		whole = objstore.CRC32.Join(whole, sum, p.size)
		sums = binary.BigEndian.AppendUint32(sums, uint32(sum))
	}
	return []string{
		"CRC32:" + objstore.CRC32.Text(whole),
		"CRC32:" + crcText(crc32.ChecksumIEEE(sums)) + "-" + strconv.Itoa(len(u.parts)),
	}
}

// abort removes the upload and its parts. It works after ctx has ended too.
func (u *upload) abort(ctx context.Context) error {
	err := u.b.abortUpload(context.WithoutCancel(ctx), u.key, u.id)
	if err == nil {
		u.b.s.journal.ended(u.id)
	} else {
		u.b.s.log.Warn("an upload could not be aborted; its parts stay and are billed until it is", "bucket", u.b.name, "key", u.key, "upload", u.id, "error", err)
	}
	return err
}

// abortUpload ends an upload; one that is gone is no error.
func (b *bucket) abortUpload(ctx context.Context, key, id string) error {
	_, err := do(ctx, b.s.probe("abort upload", b.name, key), func(ctx context.Context) (*s3.AbortMultipartUploadOutput, error) {
		return b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
			Bucket: aws.String(b.name), Key: aws.String(key), UploadId: aws.String(id),
		})
	})
	if errors.Is(err, objstore.NotExist) {
		return nil
	}
	return err
}
