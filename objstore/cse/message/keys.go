package message

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"
)

// DataKey is the secret that keyrings wrap and of which the keys of a message
// are derived. Printed or logged in any way it shows nothing of itself. It is
// immutable and holds a copy of its own.
type DataKey struct{ secret hidden[[]byte] }

// hidden holds a value that nothing prints. Package fmt prints what is within
// an unexported field without asking for its methods, and looks behind
// pointers when it does not like the verb, but not behind a function.
type hidden[T any] func() T

func hide[T any](v T) hidden[T] { return func() T { return v } }

// NewDataKey returns a copy of the key. One of a wrong length is refused by
// whatever uses it with a suite.
func NewDataKey(key []byte) DataKey {
	return DataKey{hide(bytes.Clone(key))}
}

// GenerateDataKey returns a random data key for the suite.
func GenerateDataKey(s Suite) DataKey {
	key := make([]byte, s.KeyBytes())
	rand.Read(key) // never fails: see crypto/rand
	return DataKey{hide(key)}
}

// Bytes returns the key, for a keyring to wrap. Not to be changed.
func (k DataKey) Bytes() []byte {
	if k.secret == nil {
		return nil
	}
	return k.secret()
}

// String does not return the key.
func (k DataKey) String() string { return "(data key)" }

// Format prints String's text whatever the verb.
func (k DataKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue does not return the key.
func (k DataKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText does not return the key.
func (k DataKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// keys are what a data key and a message ID make together.
type keys struct {
	aead       hidden[cipher.AEAD]
	seal       hidden[[]byte] // the key of aead
	commitment []byte         // format 2; not a secret
	bind       hidden[[]byte] // of the MAC of a path; format 2
}

// bindInfo sets the key of the path's MAC apart from those of the format.
const bindInfo = "coffer path binding"

// derive makes the keys of a message (algorithm-suites.md):
//
//	no KDF      K = data key
//	format 1    K = HKDF(salt = zeros, data key, info = suite || message ID)
//	format 2    PRK = HKDF-Extract(salt = message ID, data key)
//	            K = Expand(PRK, suite || "DERIVEKEY"), commitment = Expand(PRK, "COMMITKEY")
func derive(s Suite, id []byte, key DataKey) (keys, error) {
	row := suites[s]
	if n := len(key.Bytes()); n != row.keyBytes {
		return keys{}, fail(Malformed, "data key", "%d bytes, suite %s takes %d", n, s, row.keyBytes)
	}
	number := string(binary.BigEndian.AppendUint16(nil, uint16(s)))
	seal, k := key.Bytes(), keys{}
	var err error
	switch {
	case row.format == 2:
		var prk, bind []byte
		if prk, err = hkdf.Extract(row.kdf, key.Bytes(), id); err != nil {
			return keys{}, err
		}
		if seal, err = hkdf.Expand(row.kdf, prk, number+"DERIVEKEY", row.keyBytes); err != nil {
			return keys{}, err
		}
		if k.commitment, err = hkdf.Expand(row.kdf, prk, "COMMITKEY", commitmentBytes); err != nil {
			return keys{}, err
		}
		if bind, err = hkdf.Expand(row.kdf, prk, bindInfo, sha256.Size); err != nil {
			return keys{}, err
		}
		k.bind = hide(bind)
	case row.kdf != nil:
		if seal, err = hkdf.Key(row.kdf, key.Bytes(), nil, number+string(id), row.keyBytes); err != nil {
			return keys{}, err
		}
	}
	block, err := aes.NewCipher(seal)
	if err != nil {
		return keys{}, err
	}
	aead, err := cipher.NewGCM(block)
	k.aead, k.seal = hide(aead), hide(seal)
	return k, err
}

// headerAAD is what the tag of a header authenticates: the header up to its
// tag (and IV), and the entries of the context that are required and not
// stored.
func headerAAD(h *Header, required Context) []byte {
	return required.Append(bytes.Clone(h.raw[:h.signed]))
}

// verify compares commitment and tag of a header.
func (k keys) verify(h *Header, required Context) error {
	if subtle.ConstantTimeCompare(k.commitment, h.commitment) != 1 {
		return fail(Unauthentic, "header", "it commits to another data key")
	}
	if _, err := k.aead().Open(nil, h.iv, h.tag, headerAAD(h, required)); err != nil {
		return fail(Unauthentic, "header", "its tag is not the one of this data key")
	}
	return nil
}

// binding returns the MAC that ties a message to a path, in base64:
//
//	HMAC-SHA256(key, u16 len(bucket) || bucket || object key || message ID)
//
// It lives beside the object and not in its header, since a header cannot be
// sealed again (see FORMAT.md), and paths change.
func (k keys) binding(bucket, object string, id []byte) (string, error) {
	if k.bind == nil {
		return "", fail(Unsupported, "path binding", "only suites that commit to the key have one")
	}
	mac := hmac.New(sha256.New, k.bind())
	mac.Write(append(appendField(nil, bucket), object...))
	mac.Write(id)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// Binding returns what ties the message to a path, in base64. A server-side
// copy of the object needs a new one.
func (o *Opener) Binding(bucket, key string) (string, error) {
	return o.keys.binding(bucket, key, o.header.MessageID)
}

// CheckBinding fails unless text is the message's Binding to this path.
func (o *Opener) CheckBinding(bucket, key, text string) error {
	want, err := o.keys.binding(bucket, key, o.header.MessageID)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(text), []byte(want)) {
		return fail(Unauthentic, "path binding", "the message was not written as %q", bucket+"/"+key)
	}
	return nil
}

// Binding returns what ties the message to a path, in base64.
func (s *Sealer) Binding(bucket, key string) string {
	text, _ := s.keys.binding(bucket, key, s.header.MessageID) // its suite has one
	return text
}
