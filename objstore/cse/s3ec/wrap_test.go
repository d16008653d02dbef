package s3ec

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
)

func TestWrongKeys(t *testing.T) {
	otherRSA, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, version := range []Version{V2, V3} {
		meta, _ := other{version, WrapAES}.write(t, nil)
		e, err := Parse(meta)
		require.NoError(t, err)
		for _, n := range []int{16, 24, 32} {
			_, err = e.UnwrapAES(newGCM(t, make([]byte, n)))
			require.ErrorIs(t, err, message.Unauthentic)
		}
		_, err = e.UnwrapRSA(otherRSA)
		require.ErrorContains(t, err, "it is wrapped by AES/GCM, not by RSA-OAEP-SHA1")
		_, err = e.UnwrapKMS(nil, nil)
		require.ErrorContains(t, err, "it is wrapped by AES/GCM, not by kms+context")

		meta, _ = other{version, WrapRSA}.write(t, nil)
		e, err = Parse(meta)
		require.NoError(t, err)
		_, err = e.UnwrapRSA(otherRSA)
		require.ErrorIs(t, err, message.Unauthentic)
		_, err = e.UnwrapAES(newGCM(t, testAES))
		require.ErrorIs(t, err, message.Malformed)
	}
}

// Shorter wrapping keys open too.
func TestAESKeysOfEveryLength(t *testing.T) {
	for _, n := range []int{16, 24, 32} {
		iv := random(ivBytes)
		wrapped := newGCM(t, testAES[:n]).Seal(iv, iv, testKey, []byte("AES/GCM/NoPadding"))
		e, err := Parse(with(v2Meta, "x-amz-wrap-alg", "AES/GCM", "x-amz-key-v2", b64(wrapped)))
		require.NoError(t, err)
		key, err := e.UnwrapAES(newGCM(t, testAES[:n]))
		require.NoError(t, err)
		require.Equal(t, testKey, key.Bytes())
	}
}

// V2 finds out with the tag, V3 at once: no byte needs to be read.
func TestWrongDataKey(t *testing.T) {
	for _, w := range others {
		meta, object := w.write(t, pattern(100))
		e, err := Parse(meta)
		require.NoError(t, err)
		v, err := NewVerifier(e, message.NewDataKey(make([]byte, 32)), int64(len(object)))
		if w.version == V3 {
			require.ErrorIs(t, err, message.Unauthentic)
			require.ErrorContains(t, err, "commits to another data key")
			require.Nil(t, v)
			continue
		}
		require.NoError(t, err)
		got, err := finish(v, object)
		require.ErrorIs(t, err, message.Unauthentic)
		require.Nil(t, got)
	}
	e, err := Parse(v2Meta)
	require.NoError(t, err)
	for _, key := range []message.DataKey{{}, message.NewDataKey(make([]byte, 16))} {
		_, err = NewVerifier(e, key, 100)
		require.ErrorIs(t, err, message.Malformed)
	}
}

// Each bit of the commitment counts, and the message ID is bound by it.
func TestCommitmentMismatch(t *testing.T) {
	meta, object := other{V3, WrapAES}.write(t, pattern(10))
	for bit := range 8 * commitBytes {
		for _, name := range []string{"x-amz-d", "x-amz-i"} {
			e, err := Parse(meta)
			require.NoError(t, err)
			key, err := unwrap(e)
			require.NoError(t, err)
			field := map[string][]byte{"x-amz-d": e.commit, "x-amz-i": e.id}[name]
			field[bit/8] ^= 1 << (bit % 8)
			v, err := NewVerifier(e, key, int64(len(object)))
			require.ErrorIs(t, err, message.Unauthentic, "%s, bit %d", name, bit)
			require.Nil(t, v)
		}
	}
}

// What a store could try: to take the commitment from an object, or to give
// the data key of one version to the other.
func TestDowngradeIsRefused(t *testing.T) {
	for _, wrap := range []Wrap{WrapAES, WrapRSA, WrapKMS} {
		t.Run(string(wrap), func(t *testing.T) {
			meta, object := other{V3, wrap}.write(t, pattern(100))
			forged := map[string]string{
				"x-amz-key-v2": meta["x-amz-3"], "x-amz-wrap-alg": string(wrap), "x-amz-cek-alg": "AES/GCM/NoPadding", "x-amz-tag-len": "128",
				"x-amz-iv": b64(bytes.Repeat([]byte{1}, 12)), "x-amz-matdesc": meta["x-amz-m"] + meta["x-amz-t"],
			}
			got, err := read(forged, object)
			require.ErrorIs(t, err, message.Unauthentic)
			require.ErrorContains(t, err, "data key:")
			require.Nil(t, got)
		})
	}
}

func TestRSAPlaintextsOfOtherForms(t *testing.T) {
	public := &testRSA().PublicKey
	form := func(n byte, name string) []byte { return append(append([]byte{n}, testKey...), name...) }
	for _, c := range []struct {
		name  string
		plain []byte
	}{
		{"no cipher", form(32, "")},
		{"the cipher of V3", form(32, "115")},
		{"another cipher", form(32, "AES/CBC/NoPadding")},
		{"something after the cipher", form(32, "AES/GCM/NoPadding ")},
		{"another length", form(31, "AES/GCM/NoPadding")},
		{"the key alone", testKey},
		{"nothing", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public, c.plain, nil)
			require.NoError(t, err)
			e, err := Parse(with(v2Meta, "x-amz-wrap-alg", "RSA-OAEP-SHA1", "x-amz-key-v2", b64(wrapped)))
			require.NoError(t, err)
			_, err = e.UnwrapRSA(testRSA())
			require.ErrorIs(t, err, message.Unauthentic)
			require.ErrorContains(t, err, "this RSA key does not open it")
		})
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, form(32, "AES/GCM/NoPadding"), nil)
	require.NoError(t, err)
	e, err := Parse(with(v2Meta, "x-amz-wrap-alg", "RSA-OAEP-SHA1", "x-amz-key-v2", b64(wrapped)))
	require.NoError(t, err)
	_, err = e.UnwrapRSA(testRSA())
	require.ErrorIs(t, err, message.Unauthentic)
}

func TestUnwrapKMS(t *testing.T) {
	denied := errors.New("AccessDeniedException")
	never := func([]byte, map[string]string) ([]byte, error) {
		t.Error("the KMS was asked")
		return testKey, nil
	}
	for _, meta := range []map[string]string{
		with(v2Meta, "x-amz-matdesc", "-"),
		with(v2Meta, "x-amz-matdesc", "null"),
		with(v2Meta, "x-amz-matdesc", `{"kms_cmk_id":"x"}`),
		with(v2Meta, "x-amz-matdesc", `{"aws:x-amz-cek-alg":"115"}`),
		with(v2Meta, "x-amz-matdesc", `{"aws:x-amz-cek-alg":"AES/CBC/PKCS5Padding"}`),
		with(v3Meta, "x-amz-t", `{"aws:x-amz-cek-alg":"AES/GCM/NoPadding"}`),
		with(v3Meta, "x-amz-t", "-", "x-amz-m", `{"aws:x-amz-cek-alg":"115"}`),
	} {
		e, err := Parse(meta)
		require.NoError(t, err)
		_, err = e.UnwrapKMS(nil, never)
		require.ErrorIs(t, err, message.Unauthentic)
		require.ErrorContains(t, err, "encryption context")
	}

	e, err := Parse(with(v3Meta, "x-amz-t", `{"aws:x-amz-cek-alg":"115","project":"coffer"}`))
	require.NoError(t, err)
	for _, want := range []map[string]string{{"project": "other"}, {"project": "coffer", "user": ""}} {
		_, err = e.UnwrapKMS(want, never)
		require.ErrorIs(t, err, message.Unauthentic)
	}
	_, err = e.UnwrapKMS(nil, func([]byte, map[string]string) ([]byte, error) { return nil, denied })
	require.ErrorIs(t, err, denied)
	for _, n := range []int{0, 16, 31, 33} {
		_, err = e.UnwrapKMS(nil, func([]byte, map[string]string) ([]byte, error) { return make([]byte, n), nil })
		require.ErrorIs(t, err, message.Malformed)
	}
	answer := bytes.Clone(testKey)
	key, err := e.UnwrapKMS(map[string]string{"project": "coffer"}, func([]byte, map[string]string) ([]byte, error) { return answer, nil })
	require.NoError(t, err)
	clear(answer)
	require.Equal(t, testKey, key.Bytes(), "the answer was kept")
}
