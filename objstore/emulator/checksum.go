package emulator

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"slices"
	"strings"

	"coffer/objstore"
)

// The kinds of checksum of a whole object.
const (
	fullObject = "FULL_OBJECT"
	composite  = "COMPOSITE" // a checksum over the checksums of the parts
)

// checksum is an object's checksum as stored.
type checksum struct {
	Algorithm string `json:"algorithm,omitempty"` // "" is none
	Type      string `json:"type,omitempty"`
	Value     string `json:"value,omitempty"` // base64, with "-N" when composite
}

// checksumAlgorithm describes one of S3's additional checksums.
type checksumAlgorithm struct {
	name string
	new  func() hash.Hash
	size int // of a value, in bytes
	// crc joins the sums of parts to that of the whole; zero where it is none.
	crc objstore.CRC
	// full and composite tell which types multipart uploads may choose.
	full, composite bool
	defaultType     string
}

// checksumAlgorithms is the table of the S3 user guide, "Checking object
// integrity".
var checksumAlgorithms = [...]checksumAlgorithm{
	{name: "CRC32", new: func() hash.Hash { return crc32.NewIEEE() }, size: 4, crc: objstore.CRC32, full: true, composite: true, defaultType: composite},
	{name: "CRC32C", new: func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }, size: 4, crc: objstore.CRC32C, full: true, composite: true, defaultType: composite},
	{name: "CRC64NVME", new: func() hash.Hash { return crc64.New(crc64.MakeTable(objstore.CRC64NVME.Poly)) }, size: 8, crc: objstore.CRC64NVME, full: true, defaultType: fullObject},
	{name: "SHA1", new: sha1.New, size: sha1.Size, composite: true, defaultType: composite},
	{name: "SHA256", new: sha256.New, size: sha256.Size, composite: true, defaultType: composite},
}

func checksumByName(name string) *checksumAlgorithm {
	i := slices.IndexFunc(checksumAlgorithms[:], func(a checksumAlgorithm) bool { return strings.EqualFold(a.name, name) })
	if i < 0 {
		return nil
	}
	return &checksumAlgorithms[i]
}

func (a *checksumAlgorithm) header() string { return "x-amz-checksum-" + strings.ToLower(a.name) }

// wantedChecksum is what a request announces about its body.
type wantedChecksum struct {
	algorithm *checksumAlgorithm // nil when none
	value     string             // base64; "" when it comes in the trailer
	trailer   bool
}

// notChecksums are headers that look like a checksum's and are none.
var notChecksums = []string{"algorithm", "mode", "type"}

// readWanted finds the one checksum of a request.
func readWanted(h http.Header) (wantedChecksum, error) {
	var w wantedChecksum
	for name := range h {
		suffix, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-checksum-")
		if !ok || slices.Contains(notChecksums, suffix) {
			continue
		}
		a := checksumByName(suffix)
		if a == nil {
			return w, fail("NotImplemented", "The checksum %s is not supported by this server.", suffix)
		}
		if w.algorithm != nil {
			return w, fail("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
		}
		w.algorithm, w.value = a, h.Get(name)
		if b, err := base64.StdEncoding.DecodeString(w.value); err != nil || len(b) != a.size {
			return w, fail("InvalidRequest", "Value for %s header is invalid.", a.header())
		}
	}
	for name := range strings.SplitSeq(h.Get("X-Amz-Trailer"), ",") {
		suffix, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(name)), "x-amz-checksum-")
		if !ok {
			continue
		}
		a := checksumByName(suffix)
		if a == nil || w.algorithm != nil {
			return w, fail("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
		}
		w = wantedChecksum{algorithm: a, trailer: true}
	}
	if name := h.Get("X-Amz-Sdk-Checksum-Algorithm"); name != "" {
		switch a := checksumByName(name); {
		case a == nil:
			return w, fail("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
		case w.algorithm == nil:
			return w, fail("InvalidRequest", "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.")
		case w.algorithm != a:
			return w, fail("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
		}
	}
	return w, nil
}

// digest hashes a body: MD5 for the ETag and one additional checksum.
type digest struct {
	md5 hash.Hash // nil when the ETag is known otherwise
	sum hash.Hash // nil when there is none
	alg *checksumAlgorithm
}

func newDigest(withMD5 bool, alg *checksumAlgorithm) *digest {
	d := &digest{alg: alg}
	if withMD5 {
		d.md5 = md5.New()
	}
	if alg != nil {
		d.sum = alg.new()
	}
	return d
}

func (d *digest) Write(p []byte) (int, error) {
	if d.md5 != nil {
		d.md5.Write(p)
	}
	if d.sum != nil {
		d.sum.Write(p)
	}
	return len(p), nil
}

func (d *digest) etag() string { return hex.EncodeToString(d.md5.Sum(nil)) }

// checksum returns the additional checksum over everything written.
func (d *digest) checksum() checksum {
	if d.sum == nil {
		return checksum{}
	}
	return checksum{Algorithm: d.alg.name, Type: fullObject, Value: base64.StdEncoding.EncodeToString(d.sum.Sum(nil))}
}

// verify compares with what a request announced; trailer is the body's.
func (d *digest) verify(w wantedChecksum, contentMD5 string, trailer http.Header) error {
	if contentMD5 != "" {
		want, err := base64.StdEncoding.DecodeString(contentMD5)
		if err != nil || len(want) != md5.Size {
			return fail("InvalidDigest", "The Content-MD5 you specified was invalid.")
		}
		if d.md5 == nil || !slices.Equal(want, d.md5.Sum(nil)) {
			return fail("BadDigest", "The Content-MD5 you specified did not match what we received.")
		}
	}
	if w.algorithm == nil {
		return nil
	}
	value := w.value
	if w.trailer {
		if value = trailer.Get(w.algorithm.header()); value == "" {
			return fail("InvalidRequest", "The trailer %s was announced and did not come.", w.algorithm.header())
		}
	}
	if value != d.checksum().Value {
		return fail("BadDigest", "The %s you specified did not match the calculated checksum.", w.algorithm.name)
	}
	return nil
}

// joinChecksums makes the checksum of an object of those of its parts.
func joinChecksums(a *checksumAlgorithm, kind string, parts []objectPart) (checksum, error) {
	c := checksum{Algorithm: a.name, Type: kind}
	sums := make([][]byte, len(parts))
	for i, p := range parts {
		b, err := base64.StdEncoding.DecodeString(p.Checksum)
		if err != nil || len(b) != a.size {
			return c, fmt.Errorf("emulator: part %d has no %s", p.Number, a.name)
		}
		sums[i] = b
	}
	if kind == composite {
		h := a.new()
		for _, s := range sums {
			h.Write(s)
		}
		c.Value = fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts))
		return c, nil
	}
	var sum uint64
	for _, p := range parts {
		part, _ := a.crc.Parse(p.Checksum) // as long as it must be, see above
		sum = a.crc.Join(sum, part, p.Size)
	}
	c.Value = a.crc.Text(sum)
	return c, nil
}
