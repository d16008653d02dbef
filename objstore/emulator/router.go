package emulator

import (
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// route is one row of the table of verbs.
type route struct {
	method string
	level  level
	// sub is the query name that makes the verb, "" for the plain one.
	sub  string
	verb string
	// params are the other query names that the verb knows, separated by
	// spaces.
	params string
	// header, when set, must be there: a copy is a PUT with a source.
	header string
	handle func(*Server, *call) error
}

// level is what a path names.
type level int

const (
	onService level = iota
	onBucket
	onObject
)

const (
	responseParams = "response-content-type response-content-language response-expires response-cache-control response-content-disposition response-content-encoding"
	copyHeader     = "X-Amz-Copy-Source"
)

// routes is searched in order. What no row matches is NotImplemented: a
// subresource that is not known must never be taken for the plain verb.
func routes() []route {
	return []route{
		{"GET", onService, "", "ListBuckets", "max-buckets prefix continuation-token bucket-region", "", (*Server).listBuckets},

		{"PUT", onBucket, "", "CreateBucket", "", "", (*Server).createBucket},
		{"HEAD", onBucket, "", "HeadBucket", "", "", (*Server).headBucket},
		{"DELETE", onBucket, "", "DeleteBucket", "", "", (*Server).deleteBucket},
		{"GET", onBucket, "location", "GetBucketLocation", "", "", (*Server).getBucketLocation},
		{"GET", onBucket, "encryption", "GetBucketEncryption", "", "", (*Server).getBucketEncryption},
		{"PUT", onBucket, "encryption", "PutBucketEncryption", "", "", (*Server).putBucketEncryption},
		{"DELETE", onBucket, "encryption", "DeleteBucketEncryption", "", "", (*Server).deleteBucketEncryption},
		{"GET", onBucket, "acl", "GetBucketAcl", "", "", (*Server).getBucketACL},
		{"PUT", onBucket, "acl", "PutBucketAcl", "", "", (*Server).putACL},
		{"GET", onBucket, "versioning", "GetBucketVersioning", "", "", (*Server).getBucketVersioning},
		{"PUT", onBucket, "versioning", "PutBucketVersioning", "", "", (*Server).putBucketVersioning},
		{"GET", onBucket, "uploads", "ListMultipartUploads", "prefix delimiter key-marker upload-id-marker max-uploads encoding-type", "", (*Server).listUploads},
		{"GET", onBucket, "versions", "ListObjectVersions", "prefix delimiter key-marker version-id-marker max-keys encoding-type", "", (*Server).listVersions},
		{"GET", onBucket, "list-type", "ListObjectsV2", "prefix delimiter start-after continuation-token max-keys encoding-type fetch-owner", "", (*Server).listObjectsV2},
		{"GET", onBucket, "", "ListObjects", "prefix delimiter marker max-keys encoding-type", "", (*Server).listObjects},
		{"POST", onBucket, "delete", "DeleteObjects", "", "", (*Server).deleteObjects},

		{"PUT", onObject, "uploadId", "UploadPartCopy", "partNumber", copyHeader, (*Server).uploadPartCopy},
		{"PUT", onObject, "uploadId", "UploadPart", "partNumber", "", (*Server).uploadPart},
		{"GET", onObject, "uploadId", "ListParts", "part-number-marker max-parts encoding-type", "", (*Server).listParts},
		{"POST", onObject, "uploadId", "CompleteMultipartUpload", "", "", (*Server).completeUpload},
		{"DELETE", onObject, "uploadId", "AbortMultipartUpload", "", "", (*Server).abortUpload},
		{"POST", onObject, "restore", "RestoreObject", "versionId", "", (*Server).restoreObject},
		{"POST", onObject, "uploads", "CreateMultipartUpload", "", "", (*Server).createUpload},
		{"GET", onObject, "tagging", "GetObjectTagging", "versionId", "", (*Server).getTagging},
		{"PUT", onObject, "tagging", "PutObjectTagging", "versionId", "", (*Server).putTagging},
		{"DELETE", onObject, "tagging", "DeleteObjectTagging", "versionId", "", (*Server).deleteTagging},
		{"GET", onObject, "acl", "GetObjectAcl", "versionId", "", (*Server).getObjectACL},
		{"PUT", onObject, "acl", "PutObjectAcl", "versionId", "", (*Server).putACL},
		{"GET", onObject, "attributes", "GetObjectAttributes", "versionId", "", (*Server).getAttributes},
		{"GET", onObject, "", "GetObject", "versionId partNumber " + responseParams, "", (*Server).getObject},
		{"HEAD", onObject, "", "HeadObject", "versionId partNumber " + responseParams, "", (*Server).getObject},
		{"PUT", onObject, "", "CopyObject", "", copyHeader, (*Server).copyObject},
		{"PUT", onObject, "", "PutObject", "", "", (*Server).putObject},
		{"DELETE", onObject, "", "DeleteObject", "versionId", "", (*Server).deleteObject},
	}
}

// target returns what a request names, by path or by the host's name before
// ".localhost" or ".s3.localhost".
func target(host, path string) (bucket, key string, lv level) {
	path = strings.TrimPrefix(path, "/")
	host, _, _ = strings.Cut(host, ":")
	if name, ok := strings.CutSuffix(host, ".localhost"); ok && name != "s3" {
		bucket, key = strings.TrimSuffix(name, ".s3"), path
	} else {
		bucket, key, _ = strings.Cut(path, "/")
	}
	switch {
	case bucket == "":
		return "", "", onService
	case key == "":
		return bucket, "", onBucket
	}
	return bucket, key, onObject
}

// ignorable tells the query names that belong to no verb: those of the SDKs,
// of presigned URLs and a user's own.
func ignorable(name string) bool { return strings.HasPrefix(strings.ToLower(name), "x-") }

// match finds the row of a request.
func (d dialect) match(table []route, method string, lv level, query url.Values, h http.Header) *route {
	if rt := d.matchQuery(table, method, lv, query, h); rt != nil || !d.plainUnknown || lv != onObject || method != http.MethodPut && method != http.MethodGet {
		return rt
	}
	return d.matchQuery(table, method, lv, nil, h)
}

func (d dialect) matchQuery(table []route, method string, lv level, query url.Values, h http.Header) *route {
	for i := range table {
		rt := &table[i]
		if among(d.lacks, rt.verb) || rt.method != method || rt.level != lv || rt.sub != "" && !query.Has(rt.sub) || rt.header != "" && h.Get(rt.header) == "" {
			continue
		}
		if knows(rt, query) {
			return rt
		}
	}
	return nil
}

func knows(rt *route, query url.Values) bool {
	for name := range query {
		if name != rt.sub && !ignorable(name) && !strings.Contains(" "+rt.params+" ", " "+name+" ") {
			return false
		}
	}
	return true
}

// maxKey is the longest key in bytes.
const maxKey = 1024

func checkKey(key string) error {
	switch {
	case len(key) > maxKey:
		return fail("KeyTooLongError", "Your key is too long").with("Size", itoa(len(key))).with("MaxSizeAllowed", itoa(maxKey))
	case !utf8.ValidString(key):
		return fail("InvalidURI", "Couldn't parse the specified URI: the key is not UTF-8.")
	}
	return nil
}

// parseQuery is url.ParseQuery that lets a semicolon be a character of its
// own, as S3 does.
func parseQuery(raw string) (url.Values, error) {
	values := url.Values{}
	for pair := range strings.SplitSeq(raw, "&") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, "=")
		key, kerr := url.QueryUnescape(k)
		value, verr := url.QueryUnescape(v)
		if kerr != nil || verr != nil {
			return nil, fail("InvalidURI", "Couldn't parse the specified URI.")
		}
		values.Add(key, value)
	}
	return values, nil
}
