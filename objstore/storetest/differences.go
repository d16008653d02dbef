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
	// NoBackslash: keys with a backslash are refused or changed.
	NoBackslash Reason
	// DropsEmptyMeta: metadata with an empty value does not come back.
	DropsEmptyMeta Reason
	// DecodesMeta: a metadata value that looks like an encoded word, or whose
	// spaces had to be sent as one, comes back decoded.
	DecodesMeta Reason
	// OnlySlashDelimits: no other delimiter than "/" groups keys.
	OnlySlashDelimits Reason
	// CopyIgnoresCondition: a copy over a destination that it should have
	// spared is made all the same.
	CopyIgnoresCondition Reason
	// CopyDropsExpires: a copy that keeps headers loses Expires.
	CopyDropsExpires Reason
	// NoUploadList: open multipart uploads cannot be listed by a prefix that
	// is not a whole key.
	NoUploadList Reason
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
		CopyDropsExpires:    "MinIO's metadata directive COPY leaves Expires behind; HEAD of the copy has none.",
		NoUploadList:        "MinIO lists the uploads of a whole key or of the whole bucket; any other prefix finds none.",
	},
	"versitygw": {
		NoObjectBelowObject: "versitygw keeps objects as files: x cannot be file and directory at once (409 ObjectParentIsFile).",
		NoEmptyParts:        "versitygw keeps objects as files: the kernel reads // as /.",
		NoDotParts:          "versitygw keeps objects as files: the kernel resolves the parts . and ..",
		NoLongParts:         "versitygw keeps objects as files: Linux limits a name to 255 bytes.",
		NoControlCharacters: "versitygw ignores encoding-type=url, and XML 1.0 cannot carry control characters: they are listed as U+FFFD.",
	},
}

// Accepted returns the differences of a server by the name of its kind:
// "emulator", "minio", "versitygw". An unknown name accepts nothing.
func Accepted(server string) Differences { return accepted[server] }

// accept skips the rest of a test when its difference is accepted.
func accept(t *testing.T, r Reason) {
	t.Helper()
	if r != "" {
		t.Skipf("accepted difference: %s", r)
	}
}
