package s3ec

import (
	"encoding/base64"
	"maps"
	"mime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
)

// v2Meta and v3Meta are whole envelopes under KMS.
var (
	v2Meta = map[string]string{
		"x-amz-key-v2": b64([]byte("wrapped")), "x-amz-iv": b64(make([]byte, 12)), "x-amz-matdesc": `{"aws:x-amz-cek-alg":"AES/GCM/NoPadding"}`,
		"x-amz-wrap-alg": "kms+context", "x-amz-cek-alg": "AES/GCM/NoPadding", "x-amz-tag-len": "128",
	}
	v3Meta = map[string]string{
		"x-amz-3": b64([]byte("wrapped")), "x-amz-c": "115", "x-amz-w": "12", "x-amz-t": `{"aws:x-amz-cek-alg":"115"}`,
		"x-amz-d": b64(make([]byte, 28)), "x-amz-i": b64(make([]byte, 28)),
	}
)

// with returns meta with other values; the value "-" removes a name.
func with(meta map[string]string, pairs ...string) map[string]string {
	m := maps.Clone(meta)
	for i := 0; i < len(pairs); i += 2 {
		if m[pairs[i]] = pairs[i+1]; pairs[i+1] == "-" {
			delete(m, pairs[i])
		}
	}
	return m
}

func TestEnvelopesThatAreRefused(t *testing.T) {
	v1 := map[string]string{"x-amz-key": "a2V5", "x-amz-iv": b64(make([]byte, 16)), "x-amz-matdesc": "{}"}
	for _, c := range []struct {
		name string
		meta map[string]string
		kind message.Kind
		text string // in the error
	}{
		{"no metadata", nil, message.NotMessage, "there is none"},
		{"other metadata alone", map[string]string{"mtime": "1", "x-amz-key-v3": "?"}, message.NotMessage, "there is none"},
		{"V1", v1, message.Unsupported, "version 1 (AES-CBC)"},
		{"V1 that names a wrap", with(v1, "x-amz-wrap-alg", "AESWrap"), message.Unsupported, "version 1"},
		{"V2 with CBC", with(v2Meta, "x-amz-cek-alg", "AES/CBC/PKCS5Padding"), message.Unsupported, "AES-CBC"},
		{"V2 with another cipher", with(v2Meta, "x-amz-cek-alg", "AES/CTR/NoPadding"), message.Unsupported, `"AES/CTR/NoPadding"`},
		{"V2 with a long name of a cipher", with(v2Meta, "x-amz-cek-alg", strings.Repeat("A", 4000)), message.Unsupported, "only"},
		{"V2 with a long name of a wrap", with(v2Meta, "x-amz-wrap-alg", strings.Repeat("A", 4000)), message.Unsupported, "not read"},
		{"V2 with a long length of a tag", with(v2Meta, "x-amz-tag-len", strings.Repeat("1", 4000)), message.Malformed, "bits"},
		{"V3 with a long name of a suite", with(v3Meta, "x-amz-c", strings.Repeat("1", 4000)), message.Unsupported, "only"},
		{"V3 with a long name of a wrap", with(v3Meta, "x-amz-w", strings.Repeat("1", 4000)), message.Unsupported, "not known"},
		{"V2 wrapped by kms", with(v2Meta, "x-amz-wrap-alg", "kms"), message.Unsupported, `wrapped by "kms"`},
		{"V2 wrapped by AESWrap", with(v2Meta, "x-amz-wrap-alg", "AESWrap"), message.Unsupported, `wrapped by "AESWrap"`},
		{"V2 wrapped by OAEP with SHA-256", with(v2Meta, "x-amz-wrap-alg", "RSA/ECB/OAEPWithSHA-256AndMGF1Padding"), message.Unsupported, "older client"},
		{"V2 with the wrap of V3", with(v2Meta, "x-amz-wrap-alg", "12"), message.Unsupported, `"12"`},
		{"V3 with another suite", with(v3Meta, "x-amz-c", "116"), message.Unsupported, `"116"`},
		{"V3 with another wrap", with(v3Meta, "x-amz-w", "11"), message.Unsupported, `"11"`},
		{"V3 with the wrap of V2", with(v3Meta, "x-amz-w", "kms+context"), message.Unsupported, `"kms+context"`},
		{"V3 with an instruction file", with(v3Meta, "x-amz-3", "-", "x-amz-w", "-", "x-amz-t", "-"), message.Unsupported, "instruction file"},
		{"an instruction file", map[string]string{"x-amz-crypto-instr-file": ""}, message.Unsupported, "this is an instruction file"},
		{"V1 and V2", with(v2Meta, "x-amz-key", "a2V5"), message.Malformed, "more than one version"},
		{"V1 and V3", with(v3Meta, "x-amz-key", "a2V5"), message.Malformed, "more than one version"},
		{"V2 and V3", with(v2Meta, "x-amz-c", "115"), message.Malformed, "more than one version"},
		{"V2 without a key", with(v2Meta, "x-amz-key-v2", "-"), message.Malformed, "no data key"},
		{"V2 without an IV", with(v2Meta, "x-amz-iv", "-"), message.Malformed, "no x-amz-iv"},
		{"V2 without a cipher", with(v2Meta, "x-amz-cek-alg", "-"), message.Malformed, "no x-amz-cek-alg"},
		{"V2 without a wrap", with(v2Meta, "x-amz-wrap-alg", "-"), message.Malformed, "no x-amz-wrap-alg"},
		{"V2 without a tag's length", with(v2Meta, "x-amz-tag-len", "-"), message.Malformed, "no x-amz-tag-len"},
		{"V2 with a short tag", with(v2Meta, "x-amz-tag-len", "96"), message.Malformed, `"96"`},
		{"V2 with a long IV", with(v2Meta, "x-amz-iv", b64(make([]byte, 16))), message.Malformed, "16 bytes, not 12"},
		{"V2 with an empty key", with(v2Meta, "x-amz-key-v2", ""), message.Malformed, "x-amz-key-v2 is empty"},
		{"V2 with no base64", with(v2Meta, "x-amz-key-v2", "%"), message.Malformed, "not base64"},
		{"V2 with base64 that is not canonical", with(v2Meta, "x-amz-key-v2", "a2W="), message.Malformed, "not base64"},
		{"V2 with a context that is no JSON", with(v2Meta, "x-amz-matdesc", "{"), message.Malformed, "no JSON"},
		{"V2 with a context that has numbers", with(v2Meta, "x-amz-matdesc", `{"a":1}`), message.Malformed, "no JSON"},
		{"V2 with a length that is none", with(v2Meta, nameLength, "-1"), message.Malformed, "no number"},
		{"V2 with a length of more than 63 bits", with(v2Meta, nameLength, "9223372036854775808"), message.Malformed, "no number"},
		{"V2 with a huge key", with(v2Meta, "x-amz-key-v2", strings.Repeat("A", maxValue+4)), message.TooLarge, "at most"},
		{"V3 without a suite", with(v3Meta, "x-amz-c", "-"), message.Malformed, "no x-amz-c"},
		{"V3 without a wrap", with(v3Meta, "x-amz-w", "-"), message.Malformed, "no x-amz-w"},
		{"V3 without a commitment", with(v3Meta, "x-amz-d", "-"), message.Malformed, "no x-amz-d"},
		{"V3 without a message ID", with(v3Meta, "x-amz-i", "-"), message.Malformed, "no x-amz-i"},
		{"V3 with a short commitment", with(v3Meta, "x-amz-d", b64(make([]byte, 27))), message.Malformed, "27 bytes, not 28"},
		{"V3 with an empty commitment", with(v3Meta, "x-amz-d", ""), message.Malformed, "0 bytes, not 28"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := Parse(c.meta)
			require.Nil(t, e)
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.text)
			require.Less(t, len(err.Error()), 250, "too long for a line in a log")
		})
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		name   string
		hint   string
		stored int64
		size   int64
		kind   message.Kind
	}{
		{"as the metadata tell", "100", 116, 100, 0},
		{"nothing told", "-", 116, 100, 0},
		{"an empty text", "", 116, 100, 0},
		{"empty", "0", 16, 0, 0},
		{"the largest", "-", maxSize + 16, maxSize, 0},
		{"another one told", "101", 116, 0, message.Malformed},
		{"no tag", "-", 15, 0, message.Malformed},
		{"nothing", "-", 0, 0, message.Malformed},
		{"negative", "-", -1, 0, message.Malformed},
		{"too large", "-", maxSize + 17, 0, message.TooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := Parse(with(v2Meta, nameLength, c.hint))
			require.NoError(t, err)
			size, err := e.Size(c.stored)
			require.Equal(t, c.size, size)
			if c.kind == 0 {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.kind)
			_, err = NewVerifier(e, message.NewDataKey(testKey), c.stored)
			require.ErrorIs(t, err, c.kind)
		})
	}
}

// Metadata that are not ASCII come back from S3 as encoded words, in which the
// UTF-8 that was sent is taken for Latin-1.
func TestDescriptionThatIsNotASCII(t *testing.T) {
	latin1 := func(s string) string {
		var b strings.Builder
		for _, c := range []byte(s) {
			b.WriteRune(rune(c))
		}
		return b.String()
	}
	const text = `{"owner":"Müller 北"}`
	want := map[string]string{"owner": "Müller 北"}
	for name, value := range map[string]string{
		"as it was sent":        text,
		"encoded twice, quoted": mime.QEncoding.Encode("UTF-8", latin1(text)),
		"encoded twice, base64": mime.BEncoding.Encode("UTF-8", latin1(text)),
		"encoded once":          mime.QEncoding.Encode("UTF-8", text),
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Parse(with(v2Meta, "x-amz-matdesc", value))
			require.NoError(t, err)
			require.Equal(t, want, e.Description())
		})
	}
	for _, owner := range []string{"Müller", "北"} { // encoded once, Latin-1 alone and none of it
		e, err := Parse(with(v2Meta, "x-amz-matdesc", mime.QEncoding.Encode("UTF-8", `{"owner":"`+owner+`"}`)))
		require.NoError(t, err)
		require.Equal(t, map[string]string{"owner": owner}, e.Description())
	}
}

// The envelope keeps nothing of the map, and gives nothing of itself away.
func TestEnvelopeIsImmutable(t *testing.T) {
	meta := maps.Clone(v2Meta)
	e, err := Parse(meta)
	require.NoError(t, err)
	clear(meta)
	e.Description()["aws:x-amz-cek-alg"] = "other"
	_, err = e.UnwrapKMS(nil, func(ciphertext []byte, context map[string]string) ([]byte, error) {
		require.Equal(t, "wrapped", string(ciphertext))
		clear(ciphertext)
		clear(context)
		return testKey, nil
	})
	require.NoError(t, err)
	require.Equal(t, "wrapped", string(e.wrapped))
	require.Equal(t, map[string]string{"aws:x-amz-cek-alg": "AES/GCM/NoPadding"}, e.Description())
}

// What is parsed is whole: the fields have their lengths, and no key that
// somebody gives makes it panic.
func FuzzParse(f *testing.F) {
	text := func(meta map[string]string) string {
		var b strings.Builder
		for name, value := range meta {
			b.WriteString(name + "\n" + value + "\n")
		}
		return b.String()
	}
	f.Add(text(v2Meta))
	f.Add(text(v3Meta))
	f.Add(text(with(v2Meta, "x-amz-wrap-alg", "AES/GCM", nameLength, "7")))
	f.Add(text(with(v3Meta, "x-amz-w", "22", "x-amz-m", `{"a":"=?UTF-8?Q?=C3?="}`)))
	f.Add("x-amz-key\na2V5\n")
	f.Fuzz(func(t *testing.T, s string) {
		meta := map[string]string{}
		for lines := strings.Split(s, "\n"); len(lines) > 1; lines = lines[2:] {
			meta[lines[0]] = lines[1]
		}
		e, err := Parse(meta)
		if err != nil {
			require.Nil(t, e)
			var me *message.Error
			require.ErrorAs(t, err, &me)
			return
		}
		require.NotEmpty(t, e.wrapped)
		require.Contains(t, []Wrap{WrapAES, WrapRSA, WrapKMS}, e.Wrap())
		if e.Version() == V2 {
			require.Equal(t, meta["x-amz-key-v2"], base64.StdEncoding.EncodeToString(e.wrapped))
			require.Len(t, e.iv, ivBytes)
		} else {
			require.Equal(t, V3, e.Version())
			require.Len(t, e.id, idBytes)
			require.Len(t, e.commit, commitBytes)
		}
		_, err = e.UnwrapAES(newGCM(t, testAES))
		require.Error(t, err)
		_, err = e.UnwrapRSA(testRSA())
		require.Error(t, err)
		_, _ = e.UnwrapKMS(nil, func([]byte, map[string]string) ([]byte, error) { return testKey, nil })
		_, _ = NewVerifier(e, message.NewDataKey(testKey), 100)
	})
}
