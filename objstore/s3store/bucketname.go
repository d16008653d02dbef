package s3store

import (
	"fmt"
	"net"
	"strings"

	"coffer/objstore"
)

// checkBucketName applies S3's rules for names, so that no request is made of
// one that could mean something else in a URL.
func checkBucketName(name string) error {
	bad := func(why string) error { return fmt.Errorf("%w: bucket name %q %s", objstore.InvalidName, name, why) }
	switch {
	case len(name) < 3 || len(name) > 63:
		return bad("is not 3 to 63 characters long")
	case strings.Contains(name, ".."):
		return bad("has two dots in a row")
	case net.ParseIP(name) != nil:
		return bad("looks like an IP address")
	case strings.HasPrefix(name, "xn--"):
		return bad("begins with xn--")
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !letter && (r != '-' && r != '.' || i == 0 || i == len(name)-1) {
			return bad("may hold a-z, 0-9, and inside also dots and hyphens, and nothing else")
		}
	}
	return nil
}
