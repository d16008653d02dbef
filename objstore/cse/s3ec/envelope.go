package s3ec

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"coffer/objstore/cse/message"
)

// Version is a version of the format, which is not that of a client: clients
// of the majors 2 to 4 write V2 and V3.
type Version int

// The versions that are read.
const (
	V2 Version = 2
	V3 Version = 3
)

// String returns "V2" or "V3".
func (v Version) String() string { return "V" + strconv.Itoa(int(v)) }

// Suite is the number of the version's algorithm suite: AES-256-GCM, with the data
// key itself or with one that is derived from it.
func (v Version) Suite() uint16 {
	if v == V2 {
		return 0x0072
	}
	return binary.BigEndian.Uint16([]byte(suiteV3))
}

// Wrap is how a data key is wrapped.
type Wrap string

// The wraps that are read, under the names of V2.
const (
	WrapAES Wrap = "AES/GCM"       // raw AES key
	WrapRSA Wrap = "RSA-OAEP-SHA1" // raw RSA key
	WrapKMS Wrap = "kms+context"   // key of a KMS, with an encryption context
)

// Names in the metadata, without x-amz-meta-.
const (
	nameKeyV1  = "x-amz-key"
	nameKeyV2  = "x-amz-key-v2"
	nameIV     = "x-amz-iv"
	nameDesc   = "x-amz-matdesc"
	nameWrap   = "x-amz-wrap-alg"
	nameCipher = "x-amz-cek-alg"
	nameTag    = "x-amz-tag-len"
	nameLength = "x-amz-unencrypted-content-length"

	nameCipherV3  = "x-amz-c"
	nameKeyV3     = "x-amz-3"
	nameWrapV3    = "x-amz-w"
	nameCommit    = "x-amz-d"
	nameMessageID = "x-amz-i"
	nameDescV3    = "x-amz-m"
	nameContextV3 = "x-amz-t"

	nameInstruction = "x-amz-crypto-instr-file"
)

// namesV2 and namesV3 are the names that no other version has.
var (
	namesV2 = []string{nameKeyV2, nameIV, nameDesc, nameWrap, nameCipher, nameTag, nameLength}
	namesV3 = []string{nameCipherV3, nameKeyV3, nameWrapV3, nameCommit, nameMessageID, nameDescV3, nameContextV3}
)

// wrapsV3 are the values of x-amz-w.
var wrapsV3 = map[string]Wrap{"02": WrapAES, "12": WrapKMS, "22": WrapRSA}

const (
	cipherV2 = "AES/GCM/NoPadding"
	cipherV3 = "115" // suiteV3 in decimal

	ivBytes     = 12 // V2
	idBytes     = 28 // V3: the message ID
	commitBytes = 28 // V3

	// maxValue is the longest value that is read, in bytes. S3 stores 2 KiB of
	// user metadata, and others no more than a header can hold.
	maxValue = 8 << 10
)

// Envelope is what the metadata of an object says of its encryption. None of
// it is authentic before a [Verifier] has finished. Immutable.
type Envelope struct {
	version Version
	wrap    Wrap
	wrapped []byte            // data key
	desc    map[string]string // or encryption context, with WrapKMS
	iv      []byte            // V2: ivBytes
	id      []byte            // V3: idBytes
	commit  []byte            // V3: commitBytes
	length  int64             // of the plaintext, as a hint; negative: none
}

// Parse reads the user metadata of an object, with names in lower case and
// without "x-amz-meta-". Other names may be in it. Nothing of meta is kept.
//
// Where there is no name of the format in it, the error is
// [message.NotMessage]: the object is not encrypted, or its envelope is in an
// instruction file. The other kinds are Malformed, Unsupported and TooLarge.
func Parse(meta map[string]string) (*Envelope, error) {
	r := values{meta: meta}
	v2, v3 := r.any(namesV2), r.any(namesV3)
	switch {
	case r.has(nameInstruction):
		return nil, fail(message.Unsupported, envelopePart, "this is an instruction file, which holds the data key of another object; such keys are not used")
	case r.has(nameKeyV1) && (r.has(nameKeyV2) || v3), v2 && v3:
		return nil, fail(message.Malformed, envelopePart, "it has names of more than one version")
	case r.has(nameKeyV1):
		return nil, fail(message.Unsupported, envelopePart, "version 1 (AES-CBC), which nothing authenticates; write the object again by a client of today")
	case v3 && !r.has(nameKeyV3):
		return nil, fail(message.Unsupported, envelopePart, "the data key is not in it but in an instruction file, where it could be changed; such keys are not used")
	case v3:
		return r.v3()
	case r.has(nameKeyV2):
		return r.v2()
	case v2:
		return nil, fail(message.Malformed, envelopePart, "it has no data key")
	}
	return nil, fail(message.NotMessage, envelopePart, "there is none; an instruction file, if that is where it is, is not read")
}

// IsName reports whether metadata of this name belong to the format, in any version of
// it. They go with the bytes of the object, and mean nothing beside others.
func IsName(name string) bool {
	return name == nameKeyV1 || name == nameInstruction || slices.Contains(namesV2, name) || slices.Contains(namesV3, name)
}

// Version is the version of the format. V3 commits to one data key, V2 does
// not: reading it is worth a line in a log.
func (e *Envelope) Version() Version { return e.version }

// Wrap says which of the methods Unwrap... fits.
func (e *Envelope) Wrap() Wrap { return e.wrap }

// Description returns the pairs that say by which key the data key is wrapped;
// with [WrapKMS] they are the encryption context. The map is the caller's.
func (e *Envelope) Description() map[string]string { return maps.Clone(e.desc) }

// Size returns the length of the plaintext of an object of stored bytes. It
// fails where no object can have that length, and where the metadata tell of
// another one. It is a hint, like all of the envelope.
func (e *Envelope) Size(stored int64) (int64, error) {
	size := stored - tagBytes
	switch {
	case size < 0:
		return 0, fail(message.Malformed, objectPart, "%d bytes, a tag has %d", stored, tagBytes)
	case size > maxSize:
		return 0, fail(message.TooLarge, objectPart, "%d bytes, AES-GCM seals %d at most", size, int64(maxSize))
	case e.length >= 0 && e.length != size:
		return 0, fail(message.Malformed, objectPart, "it holds %d bytes of plaintext, the metadata tell of %d", size, e.length)
	}
	return size, nil
}

// cipher is the name of the content's cipher that wraps authenticate.
func (e *Envelope) cipher() string {
	if e.version == V2 {
		return cipherV2
	}
	return cipherV3
}

// values reads metadata and keeps the first error.
type values struct {
	meta map[string]string
	err  error
}

func (r *values) has(name string) bool { _, ok := r.meta[name]; return ok }

func (r *values) any(names []string) bool { return slices.ContainsFunc(names, r.has) }

func (r *values) v2() (*Envelope, error) {
	switch c := r.text(nameCipher); {
	case r.err != nil || c == cipherV2:
	case strings.HasPrefix(c, "AES/CBC"):
		r.fail(message.Unsupported, "AES-CBC, which nothing authenticates; write the object again by a client of today")
	default:
		r.fail(message.Unsupported, "%s is %.40q, and only %q is read", nameCipher, c, cipherV2)
	}
	e := &Envelope{version: V2, wrap: Wrap(r.text(nameWrap))}
	switch e.wrap {
	case WrapAES, WrapRSA, WrapKMS:
	default:
		r.fail(message.Unsupported, "the data key is wrapped by %.40q, which is not read: it is of an older client, or of one not known here", string(e.wrap))
	}
	e.wrapped = r.bytes(nameKeyV2, 0)
	e.iv = r.bytes(nameIV, ivBytes)
	if bits := r.text(nameTag); bits != strconv.Itoa(8*tagBytes) {
		r.fail(message.Malformed, "%s is %.40q, and the tag has %d bits", nameTag, bits, 8*tagBytes)
	}
	e.desc = r.pairs(nameDesc)
	e.length = r.size(nameLength)
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}

func (r *values) v3() (*Envelope, error) {
	if c := r.text(nameCipherV3); c != cipherV3 {
		r.fail(message.Unsupported, "%s is %.40q, and only %q is read", nameCipherV3, c, cipherV3)
	}
	e := &Envelope{version: V3, length: -1}
	var ok bool
	if w := r.text(nameWrapV3); r.err == nil {
		if e.wrap, ok = wrapsV3[w]; !ok {
			r.fail(message.Unsupported, "the data key is wrapped by %.40q, which is not known", w)
		}
	}
	e.wrapped = r.bytes(nameKeyV3, 0)
	e.id = r.bytes(nameMessageID, idBytes)
	e.commit = r.bytes(nameCommit, commitBytes)
	if e.wrap == WrapKMS {
		e.desc = r.pairs(nameContextV3)
	} else {
		e.desc = r.pairs(nameDescV3)
	}
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}

func (r *values) fail(kind message.Kind, format string, args ...any) {
	if r.err == nil {
		r.err = fail(kind, envelopePart, format, args...)
	}
}

// text returns a value that must be there.
func (r *values) text(name string) string {
	v, ok := r.meta[name]
	switch {
	case !ok:
		r.fail(message.Malformed, "it has no %s", name)
	case len(v) > maxValue:
		r.fail(message.TooLarge, "%s has %d bytes, at most %d are read", name, len(v), maxValue)
		return ""
	}
	return v
}

// bytes returns a value in base64 that must be there: n bytes of it, or any
// number above zero with n = 0.
func (r *values) bytes(name string, n int) []byte {
	text := r.text(name)
	if r.err != nil {
		return nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	switch {
	case err != nil:
		r.fail(message.Malformed, "%s is not base64", name)
	case n == 0 && len(b) == 0:
		r.fail(message.Malformed, "%s is empty", name)
	case n > 0 && len(b) != n:
		r.fail(message.Malformed, "%s has %d bytes, not %d", name, len(b), n)
	}
	return b
}

// size returns a number of bytes, or -1 where there is none, or nothing in it.
func (r *values) size(name string) int64 {
	if r.meta[name] == "" {
		return -1
	}
	n, err := strconv.ParseUint(r.text(name), 10, 63)
	if err != nil {
		r.fail(message.Malformed, "%s is no number of bytes", name)
	}
	return int64(n)
}

// pairs returns an object of JSON that has strings alone; none is an empty one.
func (r *values) pairs(name string) map[string]string {
	if r.err != nil || !r.has(name) {
		return nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(plainText(r.text(name))), &m); err != nil {
		r.fail(message.Malformed, "%s is no JSON of names and strings", name)
	}
	return m
}

// plainText undoes what S3 does to metadata that are not ASCII: they come back
// as words of RFC 2047, and in these each byte of the UTF-8 that was sent is a
// character.
func plainText(s string) string {
	if !strings.Contains(s, "=?") {
		return s
	}
	decoded, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return s
	}
	raw := make([]byte, 0, len(decoded))
	for _, c := range decoded {
		if c > 0xff {
			return decoded // not encoded twice
		}
		raw = append(raw, byte(c))
	}
	if !utf8.Valid(raw) {
		return decoded
	}
	return string(raw)
}
