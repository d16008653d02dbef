package interop

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// rawKey is a key as the oracles are given it; key returns it as Coffer's.
type rawKey struct {
	Type      string          `json:"type"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Key       string          `json:"key,omitempty"` // hex
	Padding   keyring.Padding `json:"padding,omitempty"`
	Public    string          `json:"public,omitempty"` // PEM
	Private   string          `json:"private,omitempty"`
	// ItsOrder sorts the context as the library does by default where a raw AES
	// key authenticates it. JavaScript's is the order of a language, for old
	// messages: "a" comes before "B", and other libraries cannot read those.
	ItsOrder bool `json:"itsOrder,omitempty"`
}

// rawAES is a key of so many bits.
func rawAES(bits int) rawKey {
	key := make([]byte, bits/8)
	for i := range key {
		key[i] = byte(bits + i)
	}
	return rawKey{Type: "raw-aes", Namespace: "coffer", Name: fmt.Sprintf("aes %d", bits), Key: hex.EncodeToString(key)}
}

// rawRSA is a key of so many bits, the same for every padding.
func rawRSA(bits int, padding keyring.Padding) rawKey {
	pair := rsaPairs[bits]()
	return rawKey{Type: "raw-rsa", Namespace: "coffer", Name: fmt.Sprintf("rsa %d", bits), Padding: padding, Public: pair.public, Private: pair.private}
}

type pemPair struct{ public, private string }

// rsaPairs are in the form of "openssl genpkey" and "openssl rsa -pubout".
var rsaPairs = map[int]func() pemPair{
	2048: sync.OnceValue(func() pemPair { return newRSA(2048) }),
	4096: sync.OnceValue(func() pemPair { return newRSA(4096) }),
}

func newRSA(bits int) pemPair {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		panic(err)
	}
	return pemPair{
		public:  string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		private: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}
}

func (k rawKey) key(t *testing.T) keyring.Key {
	t.Helper()
	if k.Type == "raw-aes" {
		key, err := hex.DecodeString(k.Key)
		require.NoError(t, err)
		made, err := keyring.NewRawAES(k.Namespace, k.Name, key)
		require.NoError(t, err)
		return made
	}
	var public *rsa.PublicKey
	var private *rsa.PrivateKey
	var err error
	if k.Public != "" {
		public, err = keyring.ParsePublicKey([]byte(k.Public))
		require.NoError(t, err)
	}
	if k.Private != "" {
		private, err = keyring.ParsePrivateKey([]byte(k.Private), nil)
		require.NoError(t, err)
	}
	made, err := keyring.NewRawRSA(k.Namespace, k.Name, k.Padding, public, private)
	require.NoError(t, err)
	return made
}

// keysTogether are lists of keys that are used together.
func keysTogether() [][]rawKey {
	all := [][]rawKey{{rawAES(128)}, {rawAES(192)}, {rawAES(256)}}
	for _, bits := range []int{2048, 4096} {
		for _, padding := range []keyring.Padding{keyring.OAEPSHA1, keyring.OAEPSHA256, keyring.OAEPSHA384, keyring.OAEPSHA512} {
			all = append(all, []rawKey{rawRSA(bits, padding)})
		}
	}
	return append(all,
		[]rawKey{rawAES(256), rawRSA(4096, keyring.OAEPSHA256), rawAES(128)},
		[]rawKey{rawRSA(2048, keyring.OAEPSHA512), rawAES(192)})
}

// thatWrap are those that Coffer writes with: it only reads some paddings.
func thatWrap(t *testing.T, all [][]rawKey) (these [][]rawKey) {
	for _, keys := range all {
		if keys[0].key(t).CanWrap() == nil {
			these = append(these, keys)
		}
	}
	return these
}

// each key alone, where there are several.
func each(of []rawKey) (alone [][]rawKey) {
	if len(of) > 1 {
		for _, k := range of {
			alone = append(alone, []rawKey{k})
		}
	}
	return alone
}

func names(of []rawKey) string {
	var all []string
	for _, k := range of {
		all = append(all, strings.TrimSpace(k.Name+" "+string(k.Padding)))
	}
	return strings.Join(all, " + ")
}

// wrap returns what a message under the keys begins with.
func wrap(t *testing.T, c message.Context, under []rawKey) keyring.Envelope {
	t.Helper()
	var members []keyring.Member
	for _, k := range under {
		members = append(members, keyring.Member{Key: k.key(t)})
	}
	ring, err := keyring.New(members...)
	require.NoError(t, err)
	e, err := ring.Wrap(t.Context(), c)
	require.NoError(t, err)
	return e
}

// unwrap returns the data key of a header.
func unwrap(h *message.Header, with keyring.Key) (message.DataKey, error) {
	ring, err := keyring.New(keyring.Member{Key: with, DecryptOnly: true})
	if err != nil {
		return message.DataKey{}, err
	}
	key, _, err := ring.Unwrap(context.Background(), h.Suite, h.Context, h.EDKs)
	return key, err
}
