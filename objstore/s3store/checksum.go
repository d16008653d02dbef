package s3store

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"net/http"
	"strings"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"
)

// verifier compares the bytes of a whole object with the stored checksum. A
// nil verifier accepts everything.
type verifier struct {
	name string
	want string // base64
	hash hash.Hash
}

// storedChecksums are the values of a reply, those first that are preferred.
// AWS computes CRC64NVME for objects that were uploaded without a checksum.
type storedChecksums struct {
	crc64, crc32, crc32c, sha256, sha1 *string
	kind                               types.ChecksumType
}

// checksumsIn are those in the headers of a reply.
func checksumsIn(h http.Header) storedChecksums {
	return storedChecksums{
		optional(h.Get("X-Amz-Checksum-Crc64nvme")), optional(h.Get("X-Amz-Checksum-Crc32")), optional(h.Get("X-Amz-Checksum-Crc32c")),
		optional(h.Get("X-Amz-Checksum-Sha256")), optional(h.Get("X-Amz-Checksum-Sha1")), types.ChecksumType(h.Get("X-Amz-Checksum-Type")),
	}
}

// note sets what an object, whose ETag is set, says of its checksum.
func (c storedChecksums) note(o *objstore.Object) {
	name, value := c.first()
	if name == "" {
		return
	}
	o.Checksum = name + ":" + value
	switch {
	case c.kind != "":
		o.ChecksumOfWhole = c.kind == types.ChecksumTypeFullObject && !strings.Contains(value, "-")
	case strings.Contains(value, "-"):
	default:
		// Of an upload in parts it is composite in all but the suffix, unless
		// it is CRC64NVME, which never is.
		o.ChecksumOfWhole = name == "CRC64NVME" || !strings.Contains(string(o.ETag), "-")
	}
}

// first names the first checksum that is there.
func (c storedChecksums) first() (name, value string) {
	for _, c := range []struct {
		name  string
		value *string
	}{{"CRC64NVME", c.crc64}, {"CRC32", c.crc32}, {"CRC32C", c.crc32c}, {"SHA256", c.sha256}, {"SHA1", c.sha1}} {
		if v := aws.ToString(c.value); v != "" {
			return c.name, v
		}
	}
	return "", ""
}

// newVerifier returns one for the checksum of o that covers all of its bytes;
// nil when there is none, as with the composite ones of many uploads in parts.
func newVerifier(o objstore.Object) *verifier {
	if !o.ChecksumOfWhole {
		return nil
	}
	name, value, _ := strings.Cut(o.Checksum, ":")
	return &verifier{name: name, want: value, hash: newHash(name)}
}

func newHash(name string) hash.Hash {
	switch name {
	case "CRC32":
		return crc32.NewIEEE()
	case "CRC32C":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "CRC64NVME":
		return crc64nvme.New()
	case "SHA256":
		return sha256.New()
	}
	return sha1.New()
}

func (v *verifier) add(p []byte) {
	if v != nil {
		_, _ = v.hash.Write(p) // never fails
	}
}

// check reports a difference, after the last byte was added.
func (v *verifier) check() error {
	if v == nil {
		return nil
	}
	if got := base64.StdEncoding.EncodeToString(v.hash.Sum(nil)); got != v.want {
		return fmt.Errorf("the %s of the bytes is %s, the stored one %s", v.name, got, v.want)
	}
	return nil
}
