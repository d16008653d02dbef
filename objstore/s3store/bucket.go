package s3store

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
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
	return &bucket{s: s, name: name, region: region, client: s.client(name, region), proofs: map[question]*proof{}}
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

// clientOf returns the client for the bucket of ref.
func (b *bucket) clientOf(ctx context.Context, ref objstore.Ref) *s3.Client {
	if name := b.bucketOf(ref); name != b.name {
		return b.s.client(name, b.s.regionOf(ctx, name))
	}
	return b.client
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
		out, err := b.headOnce(ctx, o, ref)
		if err == nil {
			obj = objectOfHead(ref.Key, out)
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
func (b *bucket) headOnce(ctx context.Context, o operation, ref objstore.Ref) (*s3.HeadObjectOutput, error) {
	in := &s3.HeadObjectInput{
		Bucket: aws.String(b.bucketOf(ref)), Key: aws.String(ref.Key), VersionId: optional(ref.VersionID),
		ChecksumMode: types.ChecksumModeEnabled,
	}
	client := b.clientOf(ctx, ref)
	send := func(ctx context.Context) (*s3.HeadObjectOutput, error) { return client.HeadObject(ctx, in) }
	out, err := do(ctx, o, send)
	status := statusOf(err)
	if e, _ := ctx.Value(sseKey{}).(ask); e.Mode != objstore.ModeSSEC && (status == http.StatusForbidden || status == http.StatusBadRequest && b.s.keys.empty()) {
		// Asking for the checksum of a KMS object takes the right to decrypt,
		// and a key that is not disabled.
		in.ChecksumMode = ""
		out, err = do(ctx, o, send)
	}
	return out, err
}

// objectOfHead translates a reply to HeadObject.
func objectOfHead(key string, out *s3.HeadObjectOutput) objstore.Object {
	o := objstore.Object{
		Entry: objstore.Entry{
			Key: key, ETag: etagOf(out.ETag), LastModified: aws.ToTime(out.LastModified), StorageClass: storageClass(string(out.StorageClass)),
		},
		VersionID:  versionOf(out.VersionId),
		Encryption: encryptionOf(string(out.ServerSideEncryption), out.SSEKMSKeyId, out.SSECustomerKeyMD5, out.BucketKeyEnabled),
		Meta:       decodeMeta(out.Metadata),
		Headers: objstore.Headers{
			ContentType: aws.ToString(out.ContentType), ContentEncoding: contentEncoding(out.ContentEncoding), ContentLanguage: aws.ToString(out.ContentLanguage),
			ContentDisposition: aws.ToString(out.ContentDisposition), CacheControl: aws.ToString(out.CacheControl), Expires: aws.ToString(out.ExpiresString),
		},
		Archived: archived(string(out.StorageClass), out.Restore, string(out.ArchiveStatus)),
	}
	storedChecksums{out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumSHA256, out.ChecksumSHA1, out.ChecksumType}.note(&o)
	if out.ContentLength != nil {
		o.Size, o.StoredSize, o.SizeKnown = *out.ContentLength, *out.ContentLength, true
	}
	return o
}

// objectOfGet translates a reply to GetObject; size is the whole object's.
func objectOfGet(key string, out *s3.GetObjectOutput, size int64) objstore.Object {
	o := objstore.Object{
		Entry: objstore.Entry{
			Key: key, Size: size, StoredSize: size, SizeKnown: true, ETag: etagOf(out.ETag),
			LastModified: aws.ToTime(out.LastModified), StorageClass: storageClass(string(out.StorageClass)),
		},
		VersionID:  versionOf(out.VersionId),
		Encryption: encryptionOf(string(out.ServerSideEncryption), out.SSEKMSKeyId, out.SSECustomerKeyMD5, out.BucketKeyEnabled),
		Meta:       decodeMeta(out.Metadata),
		Headers: objstore.Headers{
			ContentType: aws.ToString(out.ContentType), ContentEncoding: contentEncoding(out.ContentEncoding), ContentLanguage: aws.ToString(out.ContentLanguage),
			ContentDisposition: aws.ToString(out.ContentDisposition), CacheControl: aws.ToString(out.CacheControl), Expires: aws.ToString(out.ExpiresString),
		},
		Archived: archived(string(out.StorageClass), out.Restore, ""),
	}
	storedChecksums{out.ChecksumCRC64NVME, out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumSHA256, out.ChecksumSHA1, out.ChecksumType}.note(&o)
	return o
}

// etagOf strips the quotes of the header.
func etagOf(v *string) objstore.ETag {
	t := strings.TrimPrefix(aws.ToString(v), "W/")
	return objstore.ETag(strings.Trim(t, `"`))
}

// quoted is an ETag as a header's value.
func quoted(t objstore.ETag) *string {
	if t == "" {
		return nil
	}
	return aws.String(`"` + string(t) + `"`)
}

// versionOf returns a version id; "null" is what versioned buckets call the
// object from before versions were kept, and it can be asked for.
func versionOf(v *string) string { return aws.ToString(v) }

// storageClass maps the default class to "".
func storageClass(c string) string {
	if c == string(types.StorageClassStandard) {
		return ""
	}
	return c
}

// contentEncoding drops the aws-chunked that some servers keep of an upload's
// framing.
func contentEncoding(v *string) string {
	e := strings.TrimSpace(strings.TrimPrefix(aws.ToString(v), "aws-chunked"))
	return strings.TrimPrefix(e, ",")
}

// archived reports whether an object must be restored before it can be read.
func archived(class string, restore *string, status string) bool {
	switch types.StorageClass(class) {
	case types.StorageClassGlacier, types.StorageClassDeepArchive:
		return !strings.Contains(aws.ToString(restore), `ongoing-request="false"`)
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
