package emulator

import (
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxMeta is the limit of user metadata, names and values, in bytes.
const maxMeta = 2 << 10

// readMeta returns a request's user metadata.
func readMeta(h http.Header) (map[string]string, error) {
	var meta map[string]string
	total := 0
	for name, values := range h {
		short, ok := strings.CutPrefix(strings.ToLower(name), "x-amz-meta-")
		if !ok {
			continue
		}
		if meta == nil {
			meta = map[string]string{}
		}
		value := decodeMeta(strings.Join(values, ","))
		meta[short] = value
		total += len(short) + len(value)
	}
	if total > maxMeta {
		return nil, fail("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size").
			with("Size", strconv.Itoa(total)).with("MaxSizeAllowed", strconv.Itoa(maxMeta))
	}
	return meta, nil
}

// decodeMeta takes values in RFC 2047 form, in UTF-8 or else in Latin-1, as
// the S3 user guide says of "user-defined object metadata".
func decodeMeta(v string) string {
	if !utf8.ValidString(v) {
		runes := make([]rune, len(v))
		for i, c := range []byte(v) {
			runes[i] = rune(c)
		}
		v = string(runes)
	}
	if strings.Contains(v, "=?") {
		var d mime.WordDecoder
		if decoded, err := d.DecodeHeader(v); err == nil {
			return decoded
		}
	}
	return v
}

// encodeMeta is a value as replies show it: what is not printable ASCII in RFC
// 2047 form.
func encodeMeta(v string) string { return mime.BEncoding.Encode("UTF-8", v) }

// readHeaders returns the headers that are kept with an object. aws-chunked is
// a coding of the transfer and not kept.
func readHeaders(h http.Header) headers {
	var codings []string
	for _, line := range h.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "aws-chunked") {
				codings = append(codings, coding)
			}
		}
	}
	return headers{
		ContentType:        h.Get("Content-Type"),
		ContentEncoding:    strings.Join(codings, ","),
		ContentLanguage:    h.Get("Content-Language"),
		ContentDisposition: h.Get("Content-Disposition"),
		CacheControl:       h.Get("Cache-Control"),
		Expires:            h.Get("Expires"),
	}
}

// show puts the kept headers into a reply.
func (k headers) show(h http.Header) {
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	set("Content-Type", k.ContentType)
	set("Content-Encoding", k.ContentEncoding)
	set("Content-Language", k.ContentLanguage)
	set("Content-Disposition", k.ContentDisposition)
	set("Cache-Control", k.CacheControl)
	set("Expires", k.Expires)
	if k.ContentType == "" {
		h.Set("Content-Type", "binary/octet-stream")
	}
}

// storageClasses are those of the S3 API reference for general purpose
// buckets; they are kept and change nothing.
const storageClasses = " STANDARD REDUCED_REDUNDANCY STANDARD_IA ONEZONE_IA INTELLIGENT_TIERING GLACIER DEEP_ARCHIVE GLACIER_IR "

func readStorageClass(h http.Header) (string, error) {
	v := h.Get("X-Amz-Storage-Class")
	switch {
	case v == "" || v == "STANDARD":
		return "", nil
	case strings.Contains(storageClasses, " "+v+" "):
		return v, nil
	}
	return "", fail("InvalidStorageClass", "The storage class you specified is not valid").with("StorageClassRequested", v)
}

// maxTags, maxTagKey and maxTagValue are S3's limits of object tags; lengths
// in characters.
const (
	maxTags     = 10
	maxTagKey   = 128
	maxTagValue = 256
)

// readTags reads the tags of the header x-amz-tagging.
func readTags(h http.Header) ([]tag, error) {
	text := h.Get("X-Amz-Tagging")
	if text == "" {
		return nil, nil
	}
	var tags []tag
	for pair := range strings.SplitSeq(text, "&") {
		k, v, _ := strings.Cut(pair, "=")
		key, kerr := url.QueryUnescape(k)
		value, verr := url.QueryUnescape(v)
		if kerr != nil || verr != nil {
			return nil, fail("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
		}
		tags = append(tags, tag{key, value})
	}
	return tags, checkTags(tags)
}

func checkTags(tags []tag) error {
	if len(tags) > maxTags {
		return fail("BadRequest", "Object tags cannot be greater than %d", maxTags)
	}
	seen := map[string]bool{}
	for _, t := range tags {
		switch {
		case !utf8.ValidString(t.Key + t.Value):
			return fail("InvalidTag", "The tag you have provided is not UTF-8")
		case t.Key == "" || utf8.RuneCountInString(t.Key) > maxTagKey:
			return fail("InvalidTag", "The TagKey you have provided is invalid")
		case utf8.RuneCountInString(t.Value) > maxTagValue:
			return fail("InvalidTag", "The TagValue you have provided is invalid")
		case seen[t.Key]:
			return fail("InvalidTag", "Cannot provide multiple Tags with the same key")
		}
		seen[t.Key] = true
	}
	return nil
}
