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

// encodeMetaValue encodes v where it would not survive as a header's value.
func encodeMetaValue(v string) string {
	if plainHeaderValue(v) {
		return v
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

// plainHeaderValue reports whether v comes back as it was sent: printable
// ASCII, no spaces that are trimmed, nothing that looks encoded.
func plainHeaderValue(v string) bool {
	if v != strings.TrimSpace(v) || strings.Contains(v, "=?") || strings.Contains(v, "  ") {
		return false // runs of spaces are folded in the signature
	}
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
	var dec mime.WordDecoder
	out := make(map[string]string, len(meta))
	for k, v := range meta {
		if strings.Contains(v, "=?") {
			if d, err := dec.DecodeHeader(v); err == nil {
				v = d
			}
		}
		out[strings.ToLower(k)] = v
	}
	return out
}
