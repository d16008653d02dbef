package storetest

import "testing"

// Reason is why a difference is accepted, as a sentence. "" accepts nothing.
type Reason string

// Differences are what a store may do differently from what package objstore
// promises. A field that is set leaves out the checks it names, visibly, with
// the reason as the text of the skip. The zero value accepts nothing.
type Differences struct {
	// NoObjectBelowObject: keys "x" and "x/y" cannot both exist.
	NoObjectBelowObject Reason
	// NoEmptyParts: keys with "//" or a leading "/" are refused or changed.
	NoEmptyParts Reason
	// NoDotParts: keys with a part "." or ".." are refused or changed.
	NoDotParts Reason
	// NoLongParts: a part of a key is limited to 255 bytes.
	NoLongParts Reason
	// NoControlCharacters: keys with control characters are refused, or
	// listed with other characters.
	NoControlCharacters Reason
	// DecodesMeta: a metadata value that looks like an encoded word, or whose
	// spaces had to be sent as one, comes back decoded.
	DecodesMeta Reason
	// NoChecksum: objects have no checksum over all of their bytes.
	NoChecksum Reason
	// LateETag: the reply to a GET during an overwrite may name the ETag of
	// the version before the one whose bytes it carries, whole.
	LateETag Reason
	// NoIfMatch: If-Match is not honoured, nor any condition on Complete; two
	// writers that race can both win.
	NoIfMatch Reason
	// NoDefaultKMSKey: SSE-KMS without the name of a key is refused.
	NoDefaultKMSKey Reason
}

// accepted is the one table of what the tested servers do differently.
var accepted = map[string]Differences{
	"emulator": {
		DecodesMeta: "The emulator decodes RFC 2047 words before it stores them, as AWS documents, so a value that is plain ASCII afterwards comes back as that.",
	},
	"minio": {
		NoObjectBelowObject: "MinIO stores x and x/y and returns both, but lists only x: the keys below it are missing from every listing.",
		NoEmptyParts:        "MinIO refuses an empty part of a key with 400 and lists a leading slash away: its keys are paths of its own disk format.",
		NoDotParts:          "MinIO refuses the parts . and .. of a key with 400: its keys are paths of its own disk format.",
		NoLongParts:         "MinIO stores a part of a key as a file name, which Linux limits to 255 bytes.",
	},
	"versitygw": {
		NoObjectBelowObject: "versitygw keeps objects as files: x cannot be file and directory at once (409 ObjectParentIsFile).",
		NoEmptyParts:        "versitygw keeps objects as files: the kernel reads // as /.",
		NoDotParts:          "versitygw keeps objects as files: the kernel resolves the parts . and ..",
		NoLongParts:         "versitygw keeps objects as files: Linux limits a name to 255 bytes.",
		NoControlCharacters: "versitygw ignores encoding-type=url, and XML 1.0 cannot carry control characters: they are listed as U+FFFD.",
		LateETag:            "versitygw reads a file's attributes and then opens it: an overwrite in between gives the old ETag with the new bytes and length.",
	},
	"radosgw": {
		NoControlCharacters: "radosgw 16 repeats the prefix of a listing as it is, encoding-type=url or not, and XML 1.0 cannot carry control characters.",
		NoChecksum:          "radosgw 16 knows no checksum but Content-MD5.",
		NoIfMatch:           "radosgw 16 refuses every If-Match and ignores conditions on Complete: a HEAD before is all there is.",
		NoDefaultKMSKey:     "radosgw has no default key of its KMS: 400 InvalidArgument.",
	},
}

// Accepted returns the differences of a server by the name of its kind:
// "emulator", "minio", "versitygw", "radosgw". An unknown name accepts nothing.
func Accepted(server string) Differences { return accepted[server] }

// accept skips the rest of a test when its difference is accepted.
func accept(t *testing.T, r Reason) {
	t.Helper()
	if r != "" {
		t.Skipf("accepted difference: %s", r)
	}
}
