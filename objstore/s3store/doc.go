// Package s3store is an [objstore.Store] over the S3 protocol through
// aws-sdk-go-v2, the only package that imports the SDK's s3 client. Requests
// of single objects, of parts and of listings are its own, see wire.go.
//
// It trusts no server more than it must. Servers exist that answer 200 to an
// encryption header and store plaintext, that ignore conditional headers, that
// lose keys beyond the first thousand of a listing, and whose replies are cut.
// So encryption is proved on a scratch object before the first user byte goes
// to a bucket and verified after every upload; what an endpoint honours is
// found with scratch objects, never on a user's key; and every range, length,
// ETag and checksum of a reply is compared with what was asked for.
//
// The files by subject:
//
//	config.go       what can be chosen, and how choices are rejected
//	store.go        the account: configuration, endpoint, clients by region
//	buckets.go      finding, opening and deleting buckets; bucketname.go
//	createbucket.go creation with encryption turned on and proved
//	bucket.go       one bucket: HEAD and what replies say
//	get.go, body.go reads that resume and check themselves
//	list.go         listings V2 and V1; listxml.go: their XML
//	listranges.go   many keys of a store that is far away, several ranges at a time
//	listguess.go    pure: where these ranges begin
//	checksum.go     whole objects against their stored checksums
//	writer.go       uploads: one PUT or many parts; multipart.go the requests
//	condition.go    conditions, by header or by HEAD
//	lostreply.go    whether an object is ours after its reply was lost
//	parts.go        the part plan; chunks.go the buffers
//	rangecopy.go    appending ranges of existing objects
//	copy.go         copies of any size; copysource.go
//	delete.go       single and batched removal
//	sse.go          the one place that sets encryption headers
//	customerkey.go  SSE-C keys; keychoice.go which of them an object needs
//	protect.go      the proof that a bucket encrypts; verify.go the check after
//	provekeys.go    the proof of modes with keys; scratch.go what is put for it
//	capability.go   what the endpoint honours
//	uploads.go      abandoned multipart uploads
//	inspect.go      the report for "coffer check"
//	errors.go       error codes to kinds
//	wire.go         requests that come by the thousand, without the SDK
//	sign.go         their signatures
//	operation.go    deadlines around requests; retry.go when to repeat them
//	credentials.go  credentials that are read again when they expire
//	transport.go    connections of net/http and all time limits
//	connpool.go     connections of our own for small requests; conn.go one of them
//	meta.go         user metadata on the wire
//
// # Known limits
//
// CopyObject has no condition on the destination that servers honour (of five
// that were observed none did), so the conditions of a Copy are looked at by
// HEAD before and leave a window. The same holds for every write on an
// endpoint that does not honour If-None-Match or If-Match.
//
// A range of an object has no checksum of its own: here only whole objects are
// compared. Uploads in parts ask for a CRC over all of the object
// (FULL_OBJECT), so that whoever reads all ranges can put theirs together,
// which package cache does.
//
// An upload whose CreateMultipartUpload was repeated because the reply got lost
// leaves an empty one behind, which is billed for no bytes. ListUploads finds it,
// but tells nothing that was sent along with its beginning, metadata least of
// all: it may be that of another machine that writes the same key, so only age
// ends it, by a lifecycle rule of the bucket or "coffer check --uploads
// --abort-stale".
//
// A KMS key may be asked for by an alias, which stores report as the ARN of the
// key behind it. What that is when the bucket is proved holds as long as the
// mount: when the alias is given to another key later, uploads fail until the
// next mount, and what was uploaded is kept.
//
// A server that answers 200 to a HEAD with a customer key for an object in
// plaintext cannot be told from one that does so for its own reasons; what
// counts is the MD5 that it reports, or does not.
//
// Directory buckets (S3 Express One Zone) are not served: their listings have
// no order, and their requests are signed in a way of their own.
//
// In us-east-1 a CreateBucket of a bucket that one already owns succeeds; a
// bucket that the same account creates between our HEAD and our CreateBucket
// cannot be told from ours.
package s3store
