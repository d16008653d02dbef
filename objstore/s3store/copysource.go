package s3store

import (
	"strings"

	"coffer/objstore"
)

// copySource is the value of x-amz-copy-source for src in bucket, escaped as
// the header wants it: like a path, so that slashes stay.
func copySource(bucket string, src objstore.Ref) string {
	s := bucket + "/" + escapePath(src.Key)
	if src.VersionID != "" {
		s += "?versionId=" + escapePath(src.VersionID)
	}
	return s
}

// escapePath percent-encodes everything but the unreserved characters of RFC
// 3986 and slashes.
func escapePath(p string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(p) {
		c := p[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
