package s3store

import (
	"encoding/base64"
	"mime"
	"strings"
	"unicode/utf8"
)

// maxEncodedWord is the number of bytes of a value in one RFC 2047 word: 60
// characters of base64, so that a word stays under the 75 of the RFC.
const maxEncodedWord = 45

// encodeMeta prepares user metadata for headers. S3 takes and returns values
// beyond printable ASCII as RFC 2047 words; other servers keep the text as it
// is, and we decode it either way.
func encodeMeta(meta map[string]string) map[string]string {
	if len(meta) == 0 {
		return nil
	}
	out := make(map[string]string, len(meta))
	for k, v := range meta {
		out[strings.ToLower(k)] = encodeMetaValue(v)
	}
	return out
}

// validMetaName reports whether name can be part of a header's name.
func validMetaName(name string) bool {
	for _, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r) {
			return false
		}
	}
	return name != ""
}

// metaGuard stands around values that a header or a server's own decoding
// would change: with spaces at the ends or in a row, or that look encoded.
// AWS decodes RFC 2047 words and encodes again only what is not ASCII; the
// guard, a word joiner, is not, and so such a value comes back encoded.
const metaGuard = "\u2060"

// encodeMetaValue encodes v where it would not survive as a header's value.
func encodeMetaValue(v string) string {
	ascii := isPrintableASCII(v)
	fragile := v != strings.TrimSpace(v) || strings.Contains(v, "=?") || strings.Contains(v, "  ") || strings.HasPrefix(v, metaGuard)
	if ascii && !fragile {
		return v
	}
	if fragile || strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		v = metaGuard + v + metaGuard
	}
	var words []string
	for v != "" {
		n := min(len(v), maxEncodedWord)
		for n < len(v) && n > maxEncodedWord-utf8.UTFMax && !utf8.RuneStart(v[n]) {
			n--
		}
		words = append(words, "=?UTF-8?B?"+base64.StdEncoding.EncodeToString([]byte(v[:n]))+"?=")
		v = v[n:]
	}
	return strings.Join(words, " ")
}

func isPrintableASCII(v string) bool {
	for i := range len(v) {
		if v[i] < 0x20 || v[i] > 0x7e {
			return false
		}
	}
	return true
}

// decodeMeta undoes encodeMeta and whatever a server did on top of it.
func decodeMeta(meta map[string]string) map[string]string {
	if len(meta) == 0 {
		return nil
	}
	out := make(map[string]string, len(meta))
	for k, v := range meta {
		out[strings.ToLower(k)] = decodeMetaValue(v)
	}
	return out
}

func decodeMetaValue(v string) string {
	if !strings.HasPrefix(v, metaGuard) && strings.Contains(v, "=?") {
		var dec mime.WordDecoder
		if d, err := dec.DecodeHeader(v); err == nil {
			v = d
		}
	}
	if w, ok := strings.CutPrefix(v, metaGuard); ok {
		if w, ok = strings.CutSuffix(w, metaGuard); ok {
			return w
		}
	}
	return v
}
