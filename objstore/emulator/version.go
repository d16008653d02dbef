package emulator

import (
	"time"
)

// nullVersion is the version id of objects written while their bucket kept no
// versions.
const nullVersion = "null"

// version is one version of one object, or a delete marker. It is immutable
// once it is in an index: a change of tags makes another value.
type version struct {
	Key string `json:"key"`
	ID  string `json:"version"`
	// Seq orders the versions of a key, the newest highest. It is also the
	// time of the commit in nanoseconds since 1970, made unique.
	Seq          int64             `json:"seq"`
	DeleteMarker bool              `json:"deleteMarker,omitempty"`
	Segments     []segment         `json:"segments,omitempty"`
	Size         int64             `json:"size"`
	ETag         string            `json:"etag"` // without quotes
	Headers      headers           `json:"headers,omitzero"`
	Meta         map[string]string `json:"meta,omitempty"` // names in lower case
	Tags         []tag             `json:"tags,omitempty"`
	StorageClass string            `json:"storageClass,omitempty"` // "" is STANDARD
	Restored     time.Time         `json:"restored,omitzero"`      // until when an archived object can be read
	SSE          sseState          `json:"sse,omitzero"`
	Checksum     checksum          `json:"checksum,omitzero"`
	// Parts and Upload describe a multipart upload; a repeated Complete of
	// Upload finds this version.
	Parts  []objectPart `json:"parts,omitempty"`
	Upload string       `json:"upload,omitempty"`
}

// objectPart is what a completed object remembers of one of its parts.
type objectPart struct {
	Number   int    `json:"n"`
	Size     int64  `json:"size"`
	Checksum string `json:"checksum,omitempty"` // base64, of the object's algorithm
}

// headers are the HTTP headers that are kept with an object.
type headers struct {
	ContentType        string `json:"contentType,omitempty"`
	ContentEncoding    string `json:"contentEncoding,omitempty"`
	ContentLanguage    string `json:"contentLanguage,omitempty"`
	ContentDisposition string `json:"contentDisposition,omitempty"`
	CacheControl       string `json:"cacheControl,omitempty"`
	Expires            string `json:"expires,omitempty"`
}

type tag struct {
	Key   string `json:"k"`
	Value string `json:"v"`
}

// modified is LastModified, in the milliseconds that listings show.
func (v *version) modified() time.Time {
	return time.UnixMilli(v.Seq / int64(time.Millisecond)).UTC()
}

func (v *version) storageClass() string {
	if v.StorageClass == "" {
		return "STANDARD"
	}
	return v.StorageClass
}

// partRange returns offset and length of part number n, counted from 1, of a
// multipart object, or of the whole object as its only part.
func (v *version) partRange(n int) (off, length int64, p objectPart, ok bool) {
	if len(v.Parts) == 0 {
		return 0, v.Size, objectPart{Number: 1, Size: v.Size, Checksum: v.Checksum.Value}, n == 1
	}
	for i, p := range v.Parts {
		if i == n-1 {
			return off, p.Size, p, true
		}
		off += p.Size
	}
	return 0, 0, objectPart{}, false
}
