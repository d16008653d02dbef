package s3ec

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
)

// other writes what Coffer only reads, by crypto/cipher as a whole.
type other struct {
	version Version
	wrap    Wrap
}

func (w other) String() string { return fmt.Sprintf("%v under %s", w.version, w.wrap) }

// others are all that is read.
var others = []other{
	{V2, WrapAES}, {V2, WrapRSA}, {V2, WrapKMS},
	{V3, WrapAES}, {V3, WrapRSA}, {V3, WrapKMS},
}

var (
	testAES = bytes.Repeat([]byte("wrapping"), 4)
	testKey = bytes.Repeat([]byte("data key"), 4)
	testRSA = sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return key
	})
)

// write returns the metadata and the object.
func (w other) write(t testing.TB, plain []byte) (map[string]string, []byte) {
	t.Helper()
	name, key, iv, aad := cipherV2, testKey, random(ivBytes), []byte(nil)
	meta := map[string]string{"mode": "33188"}
	if w.version == V3 {
		id := random(idBytes)
		commit, err := hkdf.Key(sha512.New, testKey, id, "\x00\x73COMMITKEY", commitBytes)
		require.NoError(t, err)
		key, err = hkdf.Key(sha512.New, testKey, id, "\x00\x73DERIVEKEY", keyBytes)
		require.NoError(t, err)
		name, iv, aad = "115", bytes.Repeat([]byte{1}, ivBytes), []byte{0, 0x73}
		meta["x-amz-c"], meta["x-amz-i"], meta["x-amz-d"] = name, b64(id), b64(commit)
		meta["x-amz-w"] = map[Wrap]string{WrapAES: "02", WrapKMS: "12", WrapRSA: "22"}[w.wrap]
	} else {
		meta["x-amz-cek-alg"], meta["x-amz-iv"], meta["x-amz-tag-len"] = name, b64(iv), "128"
		meta["x-amz-wrap-alg"] = string(w.wrap)
		meta["x-amz-unencrypted-content-length"] = strconv.Itoa(len(plain))
	}

	desc := map[string]string{"who": "me"}
	var wrapped []byte
	switch w.wrap {
	case WrapAES:
		iv := random(ivBytes)
		wrapped = newGCM(t, testAES).Seal(iv, iv, testKey, []byte(name))
	case WrapRSA:
		var err error
		wrapped, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, &testRSA().PublicKey, append(append([]byte{32}, testKey...), name...), nil)
		require.NoError(t, err)
	case WrapKMS:
		wrapped = []byte("for the KMS")
		desc["aws:x-amz-cek-alg"] = name
	}
	text, err := json.Marshal(desc)
	require.NoError(t, err)
	switch {
	case w.version == V2:
		meta["x-amz-key-v2"], meta["x-amz-matdesc"] = b64(wrapped), string(text)
	case w.wrap == WrapKMS:
		meta["x-amz-3"], meta["x-amz-t"] = b64(wrapped), string(text)
	default:
		meta["x-amz-3"], meta["x-amz-m"] = b64(wrapped), string(text)
	}
	return meta, newGCM(t, key).Seal(nil, iv, plain, aad)
}

// testKMS answers as a KMS does: the ciphertext goes with one context.
func testKMS(context map[string]string) func([]byte, map[string]string) ([]byte, error) {
	return func(ciphertext []byte, got map[string]string) ([]byte, error) {
		if string(ciphertext) != "for the KMS" || !maps.Equal(got, context) {
			return nil, errors.New("InvalidCiphertextException")
		}
		return bytes.Clone(testKey), nil
	}
}

// unwrap unwraps by the keys of the tests.
func unwrap(e *Envelope) (message.DataKey, error) {
	switch e.Wrap() {
	case WrapAES:
		block, err := aes.NewCipher(testAES)
		if err != nil {
			return message.DataKey{}, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return message.DataKey{}, err
		}
		return e.UnwrapAES(aead)
	case WrapRSA:
		return e.UnwrapRSA(testRSA())
	default:
		return e.UnwrapKMS(nil, testKMS(map[string]string{"who": "me", "aws:x-amz-cek-alg": e.cipher()}))
	}
}

// read is the whole way from metadata and object to plaintext.
func read(meta map[string]string, object []byte) ([]byte, error) {
	e, err := Parse(meta)
	if err != nil {
		return nil, err
	}
	key, err := unwrap(e)
	if err != nil {
		return nil, err
	}
	v, err := NewVerifier(e, key, int64(len(object)))
	if err != nil {
		return nil, err
	}
	return finish(v, object)
}

// readRaw is read with nothing around the content; the object is written in
// pieces that end at the cuts.
func readRaw(key, iv, aad, object []byte, cuts ...int) ([]byte, error) {
	v, err := newVerifier(key, iv, aad, int64(len(object)-tagBytes))
	if err != nil {
		return nil, err
	}
	return finish(v, object, cuts...)
}

func finish(v *Verifier, object []byte, cuts ...int) ([]byte, error) {
	at := 0
	for _, cut := range append(cuts, len(object)) {
		if n, err := v.Write(object[at:cut]); err != nil || n != cut-at {
			return nil, fmt.Errorf("%d of %d bytes written: %w", n, cut-at, err)
		}
		at = cut
	}
	verified, err := v.Finish()
	if err != nil {
		return nil, err
	}
	return openAll(verified, object)
}

// openAll opens all blocks, the last one first.
func openAll(v *Verified, object []byte) ([]byte, error) {
	plain := make([]byte, v.Size())
	for i := v.Blocks() - 1; i >= 0; i-- {
		off, n := v.Range(i)
		if _, err := v.Open(plain[off:off:off+n], i, object[off:off+n]); err != nil {
			return nil, err
		}
	}
	return plain, nil
}

func newGCM(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	return aead
}

// pattern is a plaintext of n bytes.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + i>>16)
	}
	return p
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
