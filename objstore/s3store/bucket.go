package s3store

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// bucket is one bucket and what was learned about it. It lives as long as its
// Store.
type bucket struct {
	s      *Store
	name   string
	region string
	client *s3.Client
	wire   *wire
	// losesKeys is set once a V2 listing was seen to lose keys.
	losesKeys atomic.Bool
	// refused is set once it was logged why nothing is written here.
	refused atomic.Bool
	// insists is set once a part was denied for want of the header that its
	// upload was begun with.
	insists atomic.Bool

	mu     sync.Mutex
	proofs map[question]*proof
}

var (
	_ objstore.Bucket   = (*bucket)(nil)
	_ objstore.Policies = (*bucket)(nil)
)

func newBucket(s *Store, name, region string) *bucket {
	return &bucket{s: s, name: name, region: region, client: s.client(name, region), wire: s.wireTo(name, region), proofs: map[question]*proof{}}
}

// Name returns the bucket's name.
func (b *bucket) Name() string { return b.name }

// bucketOf returns the bucket that a ref lies in.
func (b *bucket) bucketOf(ref objstore.Ref) string {
	if ref.Bucket == "" {
		return b.name
	}
	return ref.Bucket
}

// wireOf returns the way to the bucket of ref.
func (b *bucket) wireOf(ctx context.Context, ref objstore.Ref) *wire {
	if name := b.bucketOf(ref); name != b.name {
		return b.s.wireTo(name, b.s.regionOf(ctx, name))
	}
	return b.wire
}

// Head returns what the store knows of ref.
func (b *bucket) Head(ctx context.Context, ref objstore.Ref) (objstore.Object, error) {
	return b.head(ctx, b.s.op("head", b.bucketOf(ref), ref.Key), ref)
}

func (b *bucket) head(ctx context.Context, o operation, ref objstore.Ref) (objstore.Object, error) {
	if ref.Key == "" {
		return objstore.Object{}, newError(o.verb, o.name(), objstore.NotExist, "the key is empty")
	}
	var obj objstore.Object
	err := b.withKey(ctx, o, ref, "", func(ctx context.Context) (objstore.ETag, objstore.Encryption, error) {
		seen, err := b.headOnce(ctx, o, ref)
		if err == nil {
			obj = seen
		}
		return obj.ETag, obj.Encryption, err
	})
	if err != nil {
		return objstore.Object{}, err
	}
	if ref.ETag != "" && obj.ETag != ref.ETag {
		return obj, newError(o.verb, o.name(), objstore.Stale, "the ETag is %s and not %s", obj.ETag, ref.ETag)
	}
	return obj, nil
}

// headOnce sends the request with the customer key of ctx.
func (b *bucket) headOnce(ctx context.Context, o operation, ref objstore.Ref) (objstore.Object, error) {
	w := b.wireOf(ctx, ref)
	send := func(checksum string) (*http.Response, error) {
		return do(ctx, o, func(ctx context.Context) (*http.Response, error) {
			r := newRequest("HeadObject", http.MethodHead, ref.Key)
			r.version(ref.VersionID)
			r.set("X-Amz-Checksum-Mode", checksum)
			return w.send(ctx, r)
		})
	}
	resp, err := send("ENABLED")
	status := statusOf(err)
	if e, _ := ctx.Value(sseKey{}).(ask); e.Mode != objstore.ModeSSEC && (status == http.StatusForbidden || status == http.StatusBadRequest && b.s.keys.empty()) {
		// Asking for the checksum of a KMS object takes the right to decrypt,
		// and a key that is not disabled.
		resp, err = send("")
	}
	if err != nil {
		return objstore.Object{}, err
	}
	obj := objectOf(ref.Key, resp.Header)
	if n := resp.ContentLength; n >= 0 {
		obj.Size, obj.StoredSize, obj.SizeKnown = n, n, true
	}
	return obj, nil
}

// metaPrefix is what the headers of user metadata begin with.
const metaPrefix = "X-Amz-Meta-"

// objectOf is what the headers of a reply say of an object, all but its size.
func objectOf(key string, h http.Header) objstore.Object {
	modified, _ := http.ParseTime(h.Get("Last-Modified")) // zero where none is told
	class, restore := h.Get("X-Amz-Storage-Class"), h.Get("X-Amz-Restore")
	var meta map[string]string
	for name, values := range h {
		if rest, ok := strings.CutPrefix(name, metaPrefix); ok {
			if meta == nil {
				meta = map[string]string{}
			}
			meta[rest] = values[0]
		}
	}
	o := objstore.Object{
		Entry:      objstore.Entry{Key: key, ETag: etagOf(h.Get("Etag")), LastModified: modified, StorageClass: storageClass(class)},
		VersionID:  h.Get("X-Amz-Version-Id"),
		Encryption: encryptionIn(h),
		Meta:       decodeMeta(meta),
		Headers: objstore.Headers{
			ContentType: h.Get("Content-Type"), ContentEncoding: contentEncoding(h.Get("Content-Encoding")), ContentLanguage: h.Get("Content-Language"),
			ContentDisposition: h.Get("Content-Disposition"), CacheControl: h.Get("Cache-Control"), Expires: h.Get("Expires"),
		},
		Archived: archived(class, restore, h.Get("X-Amz-Archive-Status")),
	}
	checksumsIn(h).note(&o)
	return o
}

// etagOf strips the quotes of the header.
func etagOf(v string) objstore.ETag {
	return objstore.ETag(strings.Trim(strings.TrimPrefix(v, "W/"), `"`))
}

// quoted is an ETag as a header's value.
func quoted(t objstore.ETag) string {
	if t == "" {
		return ""
	}
	return `"` + string(t) + `"`
}

// storageClass maps the default class to "".
func storageClass(c string) string {
	if c == string(types.StorageClassStandard) {
		return ""
	}
	return c
}

// contentEncoding drops the aws-chunked that some servers keep of an upload's
// framing.
func contentEncoding(v string) string {
	e := strings.TrimSpace(strings.TrimPrefix(v, "aws-chunked"))
	return strings.TrimPrefix(e, ",")
}

// archived reports whether an object must be restored before it can be read.
func archived(class, restore, status string) bool {
	switch types.StorageClass(class) {
	case types.StorageClassGlacier, types.StorageClassDeepArchive:
		return !strings.Contains(restore, `ongoing-request="false"`)
	}
	return status != ""
}

// optional is nil for "".
func optional(v string) *string {
	if v == "" {
		return nil
	}
	return &v
}
