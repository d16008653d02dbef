package objstore

import (
	"maps"
	"time"
)

// ETag is the opaque identity of one version of an object's bytes, without
// the quotes of the HTTP header. It is never interpreted: with SSE-KMS, SSE-C
// and multipart uploads it is not an MD5 of anything.
type ETag string

// Ref names one object, or one version of it.
type Ref struct {
	// Bucket is the bucket's name. Methods of a Bucket take "" as themselves;
	// it matters where a source lies in another bucket.
	Bucket string
	Key    string
	// VersionID selects a version where the bucket keeps versions; "" is the
	// current one.
	VersionID string
	// ETag, when set, must be the ETag of the version that is met; any other
	// gives an error of kind [Stale].
	ETag ETag
}

// Entry is what a listing tells of one key or common prefix.
type Entry struct {
	// Key is the object's whole key, or the whole common prefix with its
	// trailing delimiter.
	Key string
	// IsPrefix tells that Key is a common prefix; the other fields are zero.
	IsPrefix bool
	// Size is the object's visible length in bytes: what a reader of the
	// whole object gets. It is meaningless unless SizeKnown is true.
	Size      int64
	SizeKnown bool
	// StoredSize is the length in bytes as the store keeps and bills it. It
	// differs from Size under client-side encryption.
	StoredSize int64
	ETag       ETag
	// LastModified comes with milliseconds from a listing and with seconds
	// from a HEAD; compare it after [time.Time.Truncate] to seconds. It is
	// zero after a write whose reply did not tell it.
	LastModified time.Time
	// StorageClass is "" for the store's default class.
	StorageClass string
}

// Object is what a HEAD or GET tells of one object version.
type Object struct {
	Entry
	VersionID string
	// Encryption is how the stored bytes are protected, as the store reports
	// it for this very version.
	Encryption Encryption
	// Meta is the user metadata, names in lower case without the
	// x-amz-meta- prefix, values in UTF-8. Nil when there is none.
	Meta    map[string]string
	Headers Headers
	// Checksum is the stored checksum as "ALGORITHM:base64", "" when the
	// store keeps none.
	Checksum string
	// ChecksumOfWhole tells that Checksum is over the bytes that a Get of the
	// object yields, and not over the checksums of its parts. Who changes
	// the bytes on their way clears it.
	ChecksumOfWhole bool
	// Archived tells that the bytes cannot be read before a restore.
	Archived bool
}

// Ref returns the reference that meets exactly this version of o in bucket.
func (o Object) Ref(bucket string) Ref {
	return Ref{Bucket: bucket, Key: o.Key, VersionID: o.VersionID, ETag: o.ETag}
}

// Headers are the HTTP headers that S3 keeps with an object. A copy carries
// them along unless told otherwise.
type Headers struct {
	ContentType, ContentEncoding, ContentLanguage, ContentDisposition, CacheControl string
	// Expires is the header's text: a date that does not parse is kept too.
	Expires string
}

// CloneMeta returns a copy of m that the caller may change; never nil.
func CloneMeta(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

// MetaSize returns what user metadata counts against [MetaMax].
func MetaSize(m map[string]string) int {
	n := 0
	for name, value := range m {
		n += len(name) + len(value)
	}
	return n
}
