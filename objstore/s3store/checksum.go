package s3store

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// crc64nvme is the polynomial of the NVM Express specification, bit-reversed
// as package crc64 wants it. AWS computes this one for objects that were
// uploaded without a checksum.
const crc64nvme = 0x9a6c9329ac4bc9b5

var crc64Table = sync.OnceValue(func() *crc64.Table { return crc64.MakeTable(crc64nvme) })

// verifier compares the bytes of a whole object with the stored checksum. A
// nil verifier accepts everything.
type verifier struct {
	name string
	want string // base64
	hash hash.Hash
}

// newVerifier picks a checksum of out that covers the whole object; nil when
// there is none, as with the composite ones of most multipart uploads.
func newVerifier(out *s3.GetObjectOutput) *verifier {
	if out.ChecksumType != "" && out.ChecksumType != types.ChecksumTypeFullObject {
		return nil
	}
	multipart := strings.Contains(string(etagOf(out.ETag)), "-")
	for _, c := range []struct {
		name  string
		value *string
		hash  func() hash.Hash
	}{
		{"CRC32", out.ChecksumCRC32, func() hash.Hash { return crc32.NewIEEE() }},
		{"CRC32C", out.ChecksumCRC32C, func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }},
		{"CRC64NVME", out.ChecksumCRC64NVME, func() hash.Hash { return crc64.New(crc64Table()) }},
		{"SHA256", out.ChecksumSHA256, sha256.New},
		{"SHA1", out.ChecksumSHA1, sha1.New},
	} {
		v := aws.ToString(c.value)
		if v == "" || strings.Contains(v, "-") {
			continue
		}
		if multipart && out.ChecksumType == "" && c.name != "CRC64NVME" {
			continue // composite in all but the suffix; CRC64NVME never is
		}
		return &verifier{name: c.name, want: v, hash: c.hash()}
	}
	return nil
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
