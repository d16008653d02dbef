package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// dialect is the set of behaviours in which servers differ. The zero value is
// a server that knows nothing about encryption and is Amazon S3 otherwise.
// Lists of words are separated by spaces.
type dialect struct {
	name string

	// encrypts: server-side encryption is real. SSE headers are checked and
	// obeyed, and the bucket's rule decides where there are none.
	encrypts bool
	// customerKeys: SSE-C is served; else its headers are ignored.
	customerKeys bool
	// blocksCustomer: new buckets take no SSE-C until they are told to (Amazon
	// S3 since April 2026).
	blocksCustomer bool
	// refusesCustomer are the verbs that answer 501 to SSE-C headers.
	refusesCustomer string
	// refusesSSE: the SSE header is answered with 501.
	refusesSSE bool
	// modes are the values of the SSE header that are served.
	modes string
	// plainKeyNames: keys of the key service are known by the plain name of
	// an alias; otherwise by id, alias or ARN.
	plainKeyNames bool
	// dropsBucketKey: bucket keys and blocked encryption types are accepted
	// and forgotten.
	dropsBucketKey bool
	// md5ETags: an ETag is the MD5 of the plaintext in every mode.
	md5ETags bool
	// showsSSE are the verbs whose replies to a write tell the encryption; ""
	// is all.
	showsSSE string
	// encryptsByDefault: a bucket without a rule behaves as one with AES256,
	// and GetBucketEncryption says so (Amazon S3 since January 2023).
	encryptsByDefault bool
	// bucketEncryption: ?encryption on buckets is served; else 501.
	bucketEncryption bool
	// creationHeader: x-amz-scal-server-side-encryption on CreateBucket sets
	// the bucket's rule.
	creationHeader bool
	// echoesSSE: the reply to a write repeats the SSE headers of the request,
	// whatever was done with them.
	echoesSSE bool

	// deniesPartKey: a part under another customer key than its upload's is
	// 403 AccessDenied; otherwise 400 InvalidRequest.
	deniesPartKey bool
	// badChecksum is the code for a checksum that does not match; "" is S3's.
	badChecksum string

	// unconditional are the verbs that ignore the conditions on a write.
	unconditional string
	// ignoresChecksums: checksums but Content-MD5 are neither compared nor
	// kept, and an unknown header for appending is no hindrance.
	ignoresChecksums bool
	// refusesTrailers: a body with trailing checksums is 400 BadRequest.
	refusesTrailers bool
	// deleteNeedsMD5: DeleteObjects without Content-MD5 is 400 BadDigest.
	deleteNeedsMD5 bool
	// noChecksumCopy: UploadPartCopy is refused for an upload with checksums.
	noChecksumCopy bool
	// cutsCopyRange: a range of UploadPartCopy ends with the source.
	cutsCopyRange bool
	// completeOnce: a repeated Complete is NoSuchUpload.
	completeOnce bool
	// partNoKey: UploadPart with an id that is none says NoSuchKey.
	partNoKey bool
	// maxKey is the longest key in bytes; 0 is S3's.
	maxKey int
	// printableKeys: keys with control characters are refused.
	printableKeys bool
	// pathKeys: keys must be paths of a file system: no empty, "." or ".."
	// parts, none over 255 bytes.
	pathKeys bool
	// lacks are verbs that the server does not have.
	lacks string
	// plainUnknown: a PUT or GET with a subresource that the server does not
	// know is the plain verb: it overwrites the object.
	plainUnknown bool
	// scalityLists: KeyCount leaves common prefixes out, MaxKeys repeats the
	// request, ContinuationToken is always there, and url encoding takes the
	// slash in.
	scalityLists bool
}

// The tables of behaviour were observed on MinIO 2026-02-12 and on Scality
// CloudServer 8.8.35; 7.4 is by its source, where ?encryption and the SSE
// header are among what is not supported.
var dialects = [...]dialect{
	{name: "aws", encrypts: true, customerKeys: true, encryptsByDefault: true, blocksCustomer: true, bucketEncryption: true, modes: "AES256 aws:kms aws:kms:dsse"},
	{name: "liar", bucketEncryption: true, echoesSSE: true},
	{name: "nosse"},
	{
		name: "minio", encrypts: true, customerKeys: true, bucketEncryption: true, modes: "AES256 aws:kms",
		plainKeyNames: true, dropsBucketKey: true, showsSSE: "PutObject UploadPart UploadPartCopy",
		unconditional: "DeleteObject DeleteObjects CopyObject", noChecksumCopy: true, completeOnce: true, pathKeys: true,
		deniesPartKey: true, badChecksum: "XAmzContentChecksumMismatch", plainUnknown: true,
	},
	scality("scality"),
	scality("scality74"),
}

func scality(name string) dialect {
	d := dialect{
		name: name, encrypts: true, bucketEncryption: true, creationHeader: true, modes: "AES256 aws:kms", dropsBucketKey: true, md5ETags: true,
		refusesCustomer: "PutObject UploadPart CopyObject", showsSSE: "CopyObject UploadPartCopy",
		unconditional:    "PutObject CompleteMultipartUpload DeleteObject DeleteObjects CopyObject",
		ignoresChecksums: true, refusesTrailers: true, deleteNeedsMD5: true, cutsCopyRange: true, completeOnce: true, partNoKey: true,
		maxKey: 915, printableKeys: true, lacks: "GetObjectAttributes", plainUnknown: true, scalityLists: true,
	}
	if name == "scality74" {
		d.bucketEncryption, d.refusesSSE, d.maxKey = false, true, 0
	}
	return d
}

// Dialects returns the names that Config.Dialect takes.
func Dialects() []string {
	names := make([]string, len(dialects))
	for i, d := range dialects {
		names[i] = d.name
	}
	return names
}

func dialectByName(name string) (dialect, error) {
	i := slices.IndexFunc(dialects[:], func(d dialect) bool { return d.name == name })
	if i < 0 {
		return dialect{}, fmt.Errorf("unknown dialect %q (there are %s)", name, strings.Join(Dialects(), ", "))
	}
	return dialects[i], nil
}

// among tells whether a list of words has this one.
func among(list, word string) bool { return strings.Contains(" "+list+" ", " "+word+" ") }

// screen looks at the headers of a request whose signature was verified: it
// refuses those that the dialect refuses and takes away those that it does not
// look at, so that the verbs need not know of either.
func (d dialect) screen(verb, payload string, h http.Header) error {
	if d.refusesTrailers && (payload == streamingUnsigned || payload == streamingSignedTrailer) {
		return fail("BadRequest", "trailing checksum is not supported")
	}
	if d.refusesSSE && h.Get(headerSSE) != "" {
		return errNotImplemented()
	}
	if among(d.refusesCustomer, verb) {
		for name := range h {
			if strings.HasPrefix(name, customerPrefix) {
				return errNotImplemented()
			}
		}
	}
	if among(d.unconditional, verb) {
		h.Del("If-Match")
		h.Del("If-None-Match")
	}
	if d.ignoresChecksums {
		h.Del("X-Amz-Write-Offset-Bytes")
		h.Del("X-Amz-Sdk-Checksum-Algorithm")
		for name := range h {
			if strings.HasPrefix(name, "X-Amz-Checksum-") {
				h.Del(name)
			}
		}
	}
	return nil
}

// checkKey refuses keys that the dialect cannot hold.
func (d dialect) checkKey(key string) error {
	if d.maxKey > 0 && len(key) > d.maxKey {
		return fail("KeyTooLong", "Object key is too long. Maximum number of bytes allowed in keys is %d.", d.maxKey)
	}
	if d.printableKeys && strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return fail("InvalidInput", "object keys cannot contain non-printable characters")
	}
	if d.pathKeys {
		for part := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(key, "/"), "/"), "/") {
			if part == "" || part == "." || part == ".." || len(part) > 255 {
				return fail("XMinioInvalidObjectName", "Object name contains unsupported characters.")
			}
		}
	}
	return checkKey(key)
}
