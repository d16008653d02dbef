package s3store

import (
	"mime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The ways in which servers treat a value between PUT and HEAD.
var metaServers = map[string]func(string) string{
	"keeps": func(v string) string { return strings.TrimSpace(v) },
	"decodes and encodes": func(v string) string { // AWS
		d, err := new(mime.WordDecoder).DecodeHeader(v)
		if err != nil {
			return v
		}
		return strings.TrimSpace(mime.QEncoding.Encode("UTF-8", d))
	},
	"decodes": func(v string) string {
		d, err := new(mime.WordDecoder).DecodeHeader(v)
		if err != nil {
			return v
		}
		return strings.TrimSpace(d)
	},
	"encodes": func(v string) string { return mime.BEncoding.Encode("UTF-8", strings.TrimSpace(v)) }, // MinIO
}

func checkMeta(t *testing.T, v string) {
	t.Helper()
	sent := encodeMetaValue(v)
	require.True(t, isPrintableASCII(sent), "%q is sent as %q", v, sent)
	for name, server := range metaServers {
		require.Equal(t, v, decodeMetaValue(server(sent)), "server that %s: sent %q, got back %q", name, sent, server(sent))
	}
}

func TestMetaSurvivesEveryServer(t *testing.T) {
	for _, v := range []string{
		"", "plain", "with space", " lead", "trail ", "a  b", "Grüße 😀", "=?UTF-8?q?abc?=", "x =?UTF-8?B?YQ==?= y", "line\nbreak", "tab\there",
		strings.Repeat("ü", 300), "\u2060", "\u2060x\u2060", "100%", "=?", "?=", "a=?b",
	} {
		checkMeta(t, v)
	}
}

func FuzzMeta(f *testing.F) {
	for _, s := range []string{"a", " ü ", "=?UTF-8?B?YQ==?=", "\u2060"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			t.Skip()
		}
		sent := encodeMetaValue(v)
		require.True(t, isPrintableASCII(sent))
		require.Equal(t, v, decodeMetaValue(sent))
	})
}

func TestMetaNames(t *testing.T) {
	for name, ok := range map[string]bool{"mode": true, "a-b_c.d": true, "": false, "a b": false, "ü": false, "a:b": false, "a\n": false} {
		require.Equal(t, ok, validMetaName(name), "%q", name)
	}
}
