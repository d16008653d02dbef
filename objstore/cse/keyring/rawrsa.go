package keyring

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"

	"coffer/objstore/cse/message"
)

// minRSABits is the least that NIST SP 800-131A still allows.
const minRSABits = 2048

// Padding is how RSA pads a data key, by the name that keyring files use.
type Padding string

// The paddings of the specification. MGF1 has the same hash as OAEP, and the
// label is empty. Those without a good name are for old messages, and are not
// written: SHA-1, and PKCS #1 v1.5, which some runtimes refuse to read.
const (
	OAEPSHA1   Padding = "oaep-sha1"
	OAEPSHA256 Padding = "oaep-sha256"
	OAEPSHA384 Padding = "oaep-sha384"
	OAEPSHA512 Padding = "oaep-sha512"
	PKCS1      Padding = "pkcs1"
)

// oaepHashes has all paddings but PKCS1.
var oaepHashes = map[Padding]crypto.Hash{
	OAEPSHA1: crypto.SHA1, OAEPSHA256: crypto.SHA256, OAEPSHA384: crypto.SHA384, OAEPSHA512: crypto.SHA512,
}

// RawRSA is an RSA key pair that the user holds, or one half of it.
type RawRSA struct {
	named
	padding Padding
	public  *rsa.PublicKey
	private func() *rsa.PrivateKey // nil: not there. A function, for nothing prints what is behind one
}

// NewRawRSA returns a key pair. Without a private key it only wraps; the
// public one may be nil where the private one is given.
func NewRawRSA(namespace, name string, p Padding, public *rsa.PublicKey, private *rsa.PrivateKey) (*RawRSA, error) {
	n, err := newNamed(namespace, name)
	if err != nil {
		return nil, err
	}
	if _, ok := oaepHashes[p]; !ok && p != PKCS1 {
		return nil, invalid("padding %q is not known", p)
	}
	k := &RawRSA{named: n, padding: p, public: public}
	if private != nil {
		if public != nil && !private.PublicKey.Equal(public) {
			return nil, invalid("the public key of %s is not that of the private key", n.path())
		}
		k.public, k.private = &private.PublicKey, func() *rsa.PrivateKey { return private }
	}
	if k.public == nil {
		return nil, invalid("%s has neither a public nor a private key", n.path())
	}
	if bits := k.public.N.BitLen(); bits < minRSABits {
		return nil, invalid("an RSA key of %d bits, %d are needed", bits, minRSABits)
	}
	return k, nil
}

// String names the key.
func (k *RawRSA) String() string { return "raw-rsa " + k.path() }

// Fingerprint is of the public key and the padding.
func (k *RawRSA) Fingerprint() []byte {
	sum := sha256.Sum256(append(x509.MarshalPKCS1PublicKey(k.public), k.padding...))
	return sum[:]
}

// CanWrap refuses paddings that are only read.
func (k *RawRSA) CanWrap() error {
	if k.padding == OAEPSHA1 || k.padding == PKCS1 {
		return invalid("padding %s is for decryption only", k.padding)
	}
	return nil
}

// Authenticates returns false: whoever has the public key can wrap.
func (k *RawRSA) Authenticates() bool { return false }

// EDKBytes is constant for a key.
func (k *RawRSA) EDKBytes() int {
	return message.EDK{Provider: k.namespace, Info: k.name}.Bytes() + k.public.Size()
}

// Wrap encrypts the data key. The context is not bound to it.
func (k *RawRSA) Wrap(_ context.Context, key message.DataKey, _ message.Context) (message.EDK, error) {
	if err := k.CanWrap(); err != nil {
		return message.EDK{}, err
	}
	ciphertext, err := rsa.EncryptOAEP(oaepHashes[k.padding].New(), rand.Reader, k.public, key.Bytes(), nil)
	return message.EDK{Provider: k.namespace, Info: k.name, Ciphertext: ciphertext}, err
}

// Matches compares namespace and name.
func (k *RawRSA) Matches(e message.EDK) bool {
	return e.Provider == k.namespace && e.Info == k.name
}

// Unwrap decrypts the data key.
func (k *RawRSA) Unwrap(_ context.Context, s message.Suite, _ message.Context, e message.EDK) (message.DataKey, error) {
	if k.private == nil {
		return message.DataKey{}, errors.New("only its public key is there, which does not decrypt")
	}
	var key []byte
	var err error
	if k.padding == PKCS1 {
		// A bad padding must not look different from a good one: it gives a
		// random key, which the header then refuses.
		key = make([]byte, s.KeyBytes())
		rand.Read(key) // never fails: see crypto/rand
		//lint:ignore SA1019 old messages have nothing better
		err = rsa.DecryptPKCS1v15SessionKey(nil, k.private(), e.Ciphertext, key)
	} else {
		key, err = rsa.DecryptOAEP(oaepHashes[k.padding].New(), nil, k.private(), e.Ciphertext, nil)
	}
	if err != nil {
		return message.DataKey{}, errors.New("the data key was wrapped by another key of this name or with another padding, or is damaged")
	}
	return message.NewDataKey(key), nil
}
