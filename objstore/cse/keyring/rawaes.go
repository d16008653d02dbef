package keyring

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"

	"coffer/objstore/cse/message"
)

const (
	aesIVBytes  = 12
	aesTagBytes = 16
	// aesInfoBytes is what follows the name in the provider info.
	aesInfoBytes = 4 + 4 + aesIVBytes
)

// RawAES is an AES key that the user holds.
type RawAES struct {
	named
	aead func() cipher.AEAD // a function, for nothing prints what is behind one
	mark []byte
}

// NewRawAES returns a key of 16, 24 or 32 bytes, of which it keeps no
// reference.
func NewRawAES(namespace, name string, key []byte) (*RawAES, error) {
	n, err := newNamed(namespace, name)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, invalid("%d bytes are no AES key, 16, 24 or 32 are", len(key))
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	mark := hmac.New(sha256.New, key)
	mark.Write([]byte("coffer keyring fingerprint"))
	return &RawAES{n, func() cipher.AEAD { return aead }, mark.Sum(nil)}, nil
}

// Fingerprint is a MAC of a constant under the key.
func (k *RawAES) Fingerprint() []byte { return k.mark }

// String names the key.
func (k *RawAES) String() string { return "raw-aes " + k.path() }

// CanWrap returns nil.
func (k *RawAES) CanWrap() error { return nil }

// Authenticates returns true: whoever can wrap can read.
func (k *RawAES) Authenticates() bool { return true }

// EDKBytes is constant for a key.
func (k *RawAES) EDKBytes() int {
	return message.EDK{Provider: k.namespace, Info: k.name}.Bytes() + aesInfoBytes + message.Committed.KeyBytes() + aesTagBytes
}

// Wrap seals the data key with a random IV, which is fine for 2^32 of them.
func (k *RawAES) Wrap(_ context.Context, key message.DataKey, c message.Context) (message.EDK, error) {
	info := binary.BigEndian.AppendUint32([]byte(k.name), 8*aesTagBytes)
	info = binary.BigEndian.AppendUint32(info, aesIVBytes)
	iv := make([]byte, aesIVBytes)
	rand.Read(iv) // never fails: see crypto/rand
	return message.EDK{
		Provider:   k.namespace,
		Info:       string(append(info, iv...)),
		Ciphertext: k.aead().Seal(nil, iv, key.Bytes(), c.Append(nil)),
	}, nil
}

// Matches compares namespace and name.
func (k *RawAES) Matches(e message.EDK) bool {
	return e.Provider == k.namespace && len(e.Info) == len(k.name)+aesInfoBytes && strings.HasPrefix(e.Info, k.name)
}

// aesFields takes the fields of a raw AES key off the provider info and returns
// the name before them.
func aesFields(info string) (name string, ok bool) {
	if len(info) < aesInfoBytes {
		return "", false
	}
	name, fields := info[:len(info)-aesInfoBytes], info[len(info)-aesInfoBytes:]
	return name, strings.HasPrefix(fields, "\x00\x00\x00\x80\x00\x00\x00\x0c")
}

// Unwrap opens the data key, which only opens with the context that it was
// sealed with.
func (k *RawAES) Unwrap(_ context.Context, _ message.Suite, c message.Context, e message.EDK) (message.DataKey, error) {
	if _, ok := aesFields(e.Info); !ok {
		return message.DataKey{}, errors.New("the lengths of tag and IV are not 128 bits and 12 bytes")
	}
	key, err := k.aead().Open(nil, []byte(e.Info[len(e.Info)-aesIVBytes:]), e.Ciphertext, c.Append(nil))
	if err != nil {
		return message.DataKey{}, errors.New("the data key was wrapped by another key of this name, or is damaged")
	}
	return message.NewDataKey(key), nil
}
