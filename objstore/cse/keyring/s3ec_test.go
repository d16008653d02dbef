package keyring_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/s3ec"
	"coffer/objstore/emulator"
)

// s3Envelope is one of V3 with a data key that was wrapped as x-amz-w says.
func s3Envelope(t *testing.T, wrap string, wrapped []byte, context map[string]string) *s3ec.Envelope {
	t.Helper()
	text, err := json.Marshal(context)
	require.NoError(t, err)
	b64 := base64.StdEncoding.EncodeToString
	e, err := s3ec.Parse(map[string]string{"x-amz-c": "115", "x-amz-w": wrap, "x-amz-3": b64(wrapped), "x-amz-t": string(text),
		"x-amz-i": b64(make([]byte, 28)), "x-amz-d": b64(make([]byte, 28))})
	require.NoError(t, err)
	return e
}

// The data keys of the S3 Encryption Client are unwrapped by every kind of key, whatever
// it is called.
func TestKeysOfTheS3EncryptionClient(t *testing.T) {
	s, c := keyService(t)
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	other, err := s.CreateKMSKey("other")
	require.NoError(t, err)
	dataKey := bytes.Repeat([]byte{7}, 32)

	aesKey := bytes.Repeat([]byte("wrapping"), 4)
	block, err := aes.NewCipher(aesKey)
	require.NoError(t, err)
	aead, err := cipher.NewGCM(block)
	require.NoError(t, err)
	byAES := s3Envelope(t, "02", aead.Seal(make([]byte, 12), make([]byte, 12), dataKey, []byte("115")), nil)
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, &rsaKey().PublicKey, slices.Concat([]byte{32}, dataKey, []byte("115")), nil)
	require.NoError(t, err)
	byRSA := s3Envelope(t, "22", wrapped, nil)
	context := map[string]string{"who": "me", "aws:x-amz-cek-alg": "115"}
	out, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &arn, Plaintext: dataKey, EncryptionContext: context})
	require.NoError(t, err)
	byKMS := s3Envelope(t, "12", out.CiphertextBlob, context)

	newAES := func(key []byte) keyring.Key {
		k, err := keyring.NewRawAES("namespace", "name", key)
		require.NoError(t, err)
		return k
	}
	keys := []keyring.Key{newAES(make([]byte, 16)), newAES(aesKey), rawRSA(t, "name", keyring.OAEPSHA256, nil, rsaKey()), kmsKey(t, c, "alias/other"), kmsKey(t, c, "alias/mine")}
	var members []keyring.Member
	for _, k := range keys {
		members = append(members, keyring.Member{Key: k, DecryptOnly: true})
	}
	all := ringOf(t, members...)
	for wrap, e := range map[int]*s3ec.Envelope{1: byAES, 2: byRSA, 4: byKMS} {
		got, by, err := all.UnwrapS3(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, dataKey, got.Bytes())
		require.Equal(t, keys[wrap], by)
	}

	// Where only those may write who can read, what a public key wraps is refused.
	strict, err := all.Authentic()
	require.NoError(t, err)
	_, _, err = strict.UnwrapS3(t.Context(), byRSA)
	require.ErrorIs(t, err, objstore.Integrity)
	_, _, err = strict.UnwrapS3(t.Context(), byAES)
	require.NoError(t, err)

	// A ring without the key tells what is needed; keys of other kinds are not tried.
	refused := func(e *s3ec.Envelope, tried int, keys ...keyring.Key) error {
		t.Helper()
		members = members[:0]
		for _, k := range keys {
			members = append(members, keyring.Member{Key: k})
		}
		_, _, err := ringOf(t, members...).UnwrapS3(t.Context(), e)
		var no *keyring.NoKeyError
		require.ErrorAs(t, err, &no)
		require.ErrorContains(t, err, string(e.Wrap()))
		require.Len(t, no.Failed, tried)
		return err
	}
	refused(byAES, 0, keys[2], keys[3])
	refused(byAES, 1, keys[0], keys[2])
	refused(byRSA, 0, keys[1])
	refused(byRSA, 1, rawRSA(t, "public", keyring.OAEPSHA256, &rsaKey().PublicKey, nil))
	refused(byKMS, 0, keys[1])
	require.Equal(t, objstore.KeyUnavailable, objstore.KindOf(refused(byKMS, 1, kmsKey(t, c, other))))
	refused(s3Envelope(t, "12", out.CiphertextBlob, with(context, "who", "you")), 1, keys[4])
	s.ResetRequests()
	refused(s3Envelope(t, "12", out.CiphertextBlob, with(context, "aws:x-amz-cek-alg", "AES/GCM/NoPadding")), 1, keys[4])
	require.Empty(t, s.Requests(), "a context for another cipher is not sent to the KMS")
	refused(byKMS, 1, kmsKey(t, lying{}, "arn:aws:kms:r:1:key/1"))
	s.Inject(emulator.Fault{Verb: "kms:Decrypt", Status: 400, Code: "ThrottlingException"})
	require.Equal(t, objstore.Throttled, objstore.KindOf(refused(byKMS, 1, keys[4])))
	s.ClearFaults()

	// No more than a few of many keys are tried.
	var many []keyring.Key
	for range 20 {
		many = append(many, newAES(make([]byte, 16)))
	}
	require.ErrorContains(t, refused(byAES, 17, many...), "there may be more")
}

func with(m map[string]string, name, value string) map[string]string {
	m = maps.Clone(m)
	m[name] = value
	return m
}
