package message

import (
	"archive/zip"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/storetest"
)

// vectorsName is the file of the official test vectors (awslabs/
// aws-encryption-sdk-test-vectors, Apache-2.0) as ESDK-NET 4.0.0 wrote them.
const vectorsName = "esdk-net-4.0.1.zip"

// openVectors finds the vectors in the directory COFFER_VECTORS, or else in
// shared/vectors beside the repository.
func openVectors(t *testing.T) *zip.ReadCloser {
	t.Helper()
	dir := os.Getenv("COFFER_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "vectors")
	}
	z, err := zip.OpenReader(filepath.Join(dir, vectorsName))
	if errors.Is(err, fs.ErrNotExist) {
		const text = "the official vectors of the AWS Encryption SDK are not there: COFFER_VECTORS must name the directory of " + vectorsName
		if os.Getenv("COFFER_REQUIRE_VECTORS") == "1" {
			t.Fatal(text)
		}
		storetest.Skip(t, text)
	}
	require.NoError(t, err)
	t.Cleanup(func() { z.Close() })
	return z
}

type (
	vectorManifest struct {
		Client struct{ Name, Version string }
		Tests  map[string]vector
	}
	vector struct {
		Ciphertext string
		MasterKeys []masterKey `json:"master-keys"`
		CMM        string
		Context    map[string]string `json:"encryption-context"`
		Result     struct{ Output struct{ Plaintext string } }
	}
	masterKey struct {
		Type, Key   string
		ProviderID  string `json:"provider-id"`
		Algorithm   string `json:"encryption-algorithm"`
		PaddingHash string `json:"padding-hash"`
	}
	vectorKeys struct {
		Keys map[string]struct {
			KeyID    string `json:"key-id"`
			Material string
		}
	}
)

// Every message of the official vectors that a key in them opens is read: all
// suites, raw AES and raw RSA, several data keys, and contexts that are
// required and not stored.
func TestOfficialVectors(t *testing.T) {
	z := openVectors(t)
	read := func(name string) []byte {
		p, err := fs.ReadFile(z, strings.TrimPrefix(name, "file://"))
		require.NoError(t, err)
		return p
	}
	var manifest vectorManifest
	require.NoError(t, json.Unmarshal(read("manifest.json"), &manifest))
	var keys vectorKeys
	require.NoError(t, json.Unmarshal(read("keys.json"), &keys))

	suitesSeen, opened, kms, required := map[Suite]int{}, 0, 0, 0
	for name, v := range manifest.Tests {
		if v.MasterKeys[0].Type == "aws-kms" {
			kms++
			continue
		}
		msg, want := read(v.Ciphertext), read(v.Result.Output.Plaintext)
		h, err := ParseHeader(msg)
		require.NoError(t, err, name)
		// Entries that the header does not hold are those required.
		notStored := map[string]string{}
		for k, value := range v.Context {
			if stored, ok := h.Context.Get(k); ok {
				require.Equal(t, value, stored, name)
			} else {
				notStored[k] = value
			}
		}
		need, err := NewContext(notStored)
		require.NoError(t, err, name)
		if need.Len() > 0 {
			required++
		}
		all, err := h.Context.Join(need)
		require.NoError(t, err, name)
		byKeys := 0
		for _, mk := range v.MasterKeys {
			if key, ok := unwrapVector(t, mk, keys, all, h.EDKs); ok {
				o, err := NewOpener(h, key, need)
				require.NoError(t, err, name)
				got, err := openAll(o, msg)
				require.NoError(t, err, name)
				require.True(t, bytes.Equal(want, got), name)
				byKeys++
			}
		}
		require.Positive(t, byKeys, "no key opens %s", name)
		suitesSeen[h.Suite]++
		opened++
	}
	for _, s := range allSuites() {
		require.Positive(t, suitesSeen[s], "no message of suite %s", s)
	}
	summary := fmt.Sprintf("%d messages of %s %s opened, %d of them with a required context; %d need a KMS and were not tried",
		opened, manifest.Client.Name, manifest.Client.Version, required, kms)
	t.Log(summary)
	require.Equal(t, [3]int{99, 33, 33}, [3]int{opened, required, kms}, summary)
}

// unwrapVector is the raw AES or raw RSA keyring of one key.
func unwrapVector(t *testing.T, mk masterKey, keys vectorKeys, c Context, edks []EDK) (DataKey, bool) {
	material := keys.Keys[mk.Key]
	for _, e := range edks {
		name, binaryInfo := e.Info, ""
		if mk.Algorithm == "aes" && len(e.Info) > 20 {
			name, binaryInfo = e.Info[:len(e.Info)-20], e.Info[len(e.Info)-20:]
		}
		if e.Provider != mk.ProviderID || name != material.KeyID {
			continue
		}
		switch mk.Algorithm {
		case "aes":
			require.Equal(t, "\x00\x00\x00\x80\x00\x00\x00\x0c", binaryInfo[:8])
			wrapping, err := base64.StdEncoding.DecodeString(material.Material)
			require.NoError(t, err)
			block, err := aes.NewCipher(wrapping)
			require.NoError(t, err)
			gcm, err := cipher.NewGCM(block)
			require.NoError(t, err)
			key, err := gcm.Open(nil, []byte(binaryInfo[8:]), e.Ciphertext, c.Append(nil))
			require.NoError(t, err)
			return NewDataKey(key), true
		case "rsa":
			block, _ := pem.Decode([]byte(material.Material))
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				continue // a public key
			}
			h := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}[mk.PaddingHash]
			key, err := rsa.DecryptOAEP(h(), nil, parsed.(*rsa.PrivateKey), e.Ciphertext, nil)
			require.NoError(t, err)
			return NewDataKey(key), true
		default:
			t.Fatalf("wrapping by %q", mk.Algorithm)
		}
	}
	return DataKey{}, false
}
