package emulator

import (
	"fmt"
	"slices"
	"strings"
)

// dialect is the set of behaviours in which servers differ. The zero value is
// a server that knows nothing about encryption.
type dialect struct {
	name string

	// encrypts: server-side encryption is real. SSE headers are checked and
	// obeyed, and the bucket's rule decides where there are none.
	encrypts bool
	// customerKeys: SSE-C is served; else its headers are ignored.
	customerKeys bool
	// modes are the values of the SSE header that are served, separated by
	// spaces.
	modes string
	// plainKeyNames: keys of the key service are known by the plain name of
	// an alias; otherwise by id, alias or ARN.
	plainKeyNames bool
	// dropsBucketKey: bucket keys and blocked encryption types are accepted
	// and forgotten.
	dropsBucketKey bool
	// md5ETags: an ETag is the MD5 of the plaintext in every mode.
	md5ETags bool
	// showsSSE are the verbs whose replies to a write tell the encryption,
	// separated by spaces; "" is all.
	showsSSE string
	// encryptsByDefault: a bucket without a rule behaves as one with AES256,
	// and GetBucketEncryption says so (Amazon S3 since January 2023).
	encryptsByDefault bool
	// bucketEncryption: ?encryption on buckets is served; else 501.
	bucketEncryption bool
	// echoesSSE: the reply to a write repeats the SSE headers of the request,
	// whatever was done with them.
	echoesSSE bool
}

// dialects is the table of all of them.
var dialects = [...]dialect{
	{name: "aws", encrypts: true, customerKeys: true, encryptsByDefault: true, bucketEncryption: true, modes: "AES256 aws:kms aws:kms:dsse"},
	{name: "liar", bucketEncryption: true, echoesSSE: true},
	{name: "nosse"},
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
