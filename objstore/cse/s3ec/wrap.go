package s3ec

import (
	"bytes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha1"
	"fmt"
	"maps"

	"coffer/objstore/cse/message"
)

const (
	keyBytes = 32 // of a data key

	// contextCipher is the entry of an encryption context that says which
	// cipher the data key is for. The clients add it themselves.
	contextCipher = "aws:x-amz-cek-alg"
)

// UnwrapAES returns the data key that a raw AES key of 16, 24 or 32 bytes has
// wrapped. key is AES-GCM by it, with nonces of 12 bytes and tags of 16:
//
//	IV 12 | AES-GCM(data key 32, AAD = name of the cipher) | tag 16
//
// The error is Malformed for another [Wrap], and Unauthentic where the key is
// not the one.
func (e *Envelope) UnwrapAES(key cipher.AEAD) (message.DataKey, error) {
	if err := e.wrappedBy(WrapAES); err != nil {
		return message.DataKey{}, err
	}
	if n, want := len(e.wrapped), ivBytes+keyBytes+tagBytes; n != want {
		return message.DataKey{}, fail(message.Malformed, keyPart, "%d bytes, wrapped by %s it has %d", n, e.wrap, want)
	}
	plain, err := key.Open(nil, e.wrapped[:ivBytes], e.wrapped[ivBytes:], []byte(e.cipher()))
	if err != nil {
		return message.DataKey{}, fail(message.Unauthentic, keyPart, "this AES key does not open it")
	}
	return e.dataKey(plain)
}

// UnwrapRSA returns the data key that a raw RSA key has wrapped:
//
//	RSA-OAEP(SHA-1; byte 32 | data key 32 | name of the cipher)
//
// SHA-1 is no weakness here: OAEP does not need that collisions are hard to
// find. The error is Malformed for another [Wrap], and Unauthentic where the
// key is not the one; what it opened, if anything, is not told, so that nobody
// can use the difference as an oracle.
func (e *Envelope) UnwrapRSA(key *rsa.PrivateKey) (message.DataKey, error) {
	if err := e.wrappedBy(WrapRSA); err != nil {
		return message.DataKey{}, err
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, e.wrapped, nil)
	if err != nil || len(plain) != 1+keyBytes+len(e.cipher()) ||
		plain[0] != keyBytes || string(plain[1+keyBytes:]) != e.cipher() {
		return message.DataKey{}, fail(message.Unauthentic, keyPart, "this RSA key does not open it as the key of a cipher %s", e.cipher())
	}
	return e.dataKey(plain[1 : 1+keyBytes])
}

// UnwrapKMS returns the data key that decrypt, a request to a KMS, makes of
// the ciphertext and the encryption context; both are copies that it may keep.
// What decrypt returns is not kept, and its error is wrapped.
//
// want are entries that the context must have with these values, as the
// keyring's owner has said; nil demands none. Where one is missing, or where
// the context is for another cipher, the error is Unauthentic and the KMS is
// not asked: it proves that the context belongs to the ciphertext, and not
// that it is the one that was meant. The error is Malformed for another [Wrap].
func (e *Envelope) UnwrapKMS(want map[string]string, decrypt func(ciphertext []byte, context map[string]string) ([]byte, error)) (message.DataKey, error) {
	if err := e.wrappedBy(WrapKMS); err != nil {
		return message.DataKey{}, err
	}
	if got, ok := e.desc[contextCipher]; !ok || got != e.cipher() {
		return message.DataKey{}, fail(message.Unauthentic, keyPart, "its encryption context is for the cipher %.40q, the object has %q", got, e.cipher())
	}
	for name, value := range want {
		if got, ok := e.desc[name]; !ok || got != value {
			return message.DataKey{}, fail(message.Unauthentic, keyPart, "its encryption context does not have the %q that is demanded", name)
		}
	}
	plain, err := decrypt(bytes.Clone(e.wrapped), maps.Clone(e.desc))
	if err != nil {
		return message.DataKey{}, fmt.Errorf("unwrapping a data key by a KMS: %w", err)
	}
	return e.dataKey(plain)
}

func (e *Envelope) wrappedBy(w Wrap) error {
	if e.wrap != w {
		return fail(message.Malformed, keyPart, "it is wrapped by %s, not by %s", e.wrap, w)
	}
	return nil
}

func (e *Envelope) dataKey(plain []byte) (message.DataKey, error) {
	if len(plain) != keyBytes {
		return message.DataKey{}, fail(message.Malformed, keyPart, "%d bytes, AES-256 has %d", len(plain), keyBytes)
	}
	return message.NewDataKey(plain), nil
}
