package s3ec

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha512"
	"crypto/subtle"

	"coffer/objstore/cse/message"
)

// suiteV3 is the number of V3's algorithm suite, 0x0073, as it is hashed and
// authenticated: ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY.
const suiteV3 = "\x00\x73"

// derive returns what the content is sealed with (key-derivation.md):
//
//	V2    K = data key, IV and no AAD
//	V3    PRK = HKDF-Extract(SHA-512, salt = message ID, data key)
//	      K = Expand(PRK, 0073 || "DERIVEKEY"), IV = 12 bytes 01, AAD = 0073
//	      commitment = Expand(PRK, 0073 || "COMMITKEY")
//
// The IV of V3 can be a constant since K is of one message alone. The error is
// Unauthentic where the envelope commits to another data key.
func (e *Envelope) derive(key message.DataKey) (k, iv, aad []byte, err error) {
	if n := len(key.Bytes()); n != keyBytes {
		return nil, nil, nil, fail(message.Malformed, keyPart, "%d bytes, AES-256 has %d", n, keyBytes)
	}
	if e.version == V2 {
		return key.Bytes(), e.iv, nil, nil
	}
	prk, err := hkdf.Extract(sha512.New, key.Bytes(), e.id)
	if err != nil {
		return nil, nil, nil, err
	}
	commit, err := hkdf.Expand(sha512.New, prk, suiteV3+"COMMITKEY", commitBytes)
	if err != nil {
		return nil, nil, nil, err
	}
	if subtle.ConstantTimeCompare(commit, e.commit) != 1 {
		return nil, nil, nil, fail(message.Unauthentic, envelopePart, "it commits to another data key")
	}
	k, err = hkdf.Expand(sha512.New, prk, suiteV3+"DERIVEKEY", keyBytes)
	return k, bytes.Repeat([]byte{1}, ivBytes), []byte(suiteV3), err
}
