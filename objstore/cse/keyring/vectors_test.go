package keyring_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
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

	suitesSeen, opened, kms, required := map[message.Suite]int{}, 0, 0, 0
	for name, v := range manifest.Tests {
		if v.MasterKeys[0].Type == "aws-kms" {
			kms++
			continue
		}
		msg, want := read(v.Ciphertext), read(v.Result.Output.Plaintext)
		h, err := message.ParseHeader(msg)
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
		need, err := message.NewContext(notStored)
		require.NoError(t, err, name)
		if need.Len() > 0 {
			required++
		}
		for _, mk := range v.MasterKeys {
			k := vectorKey(t, mk, keys)
			if k == nil {
				continue
			}
			got, by, err := decrypt(ringOf(t, keyring.Member{Key: k, DecryptOnly: true}), msg, need)
			require.NoError(t, err, name)
			require.True(t, bytes.Equal(want, got), name)
			require.Equal(t, k, by)
		}
		suitesSeen[h.Suite]++
		opened++
	}
	require.Len(t, suitesSeen, 11, "messages of every suite")
	summary := fmt.Sprintf("%d messages of %s %s opened, %d of them with a required context; %d need a KMS and were not tried",
		opened, manifest.Client.Name, manifest.Client.Version, required, kms)
	t.Log(summary)
	require.Equal(t, [3]int{99, 33, 33}, [3]int{opened, required, kms}, summary)
}

// vectorKey is the key of the vectors with this name, or nil for one that
// does not decrypt.
func vectorKey(t *testing.T, mk masterKey, keys vectorKeys) keyring.Key {
	material := keys.Keys[mk.Key]
	switch mk.Algorithm {
	case "aes":
		key, err := base64.StdEncoding.DecodeString(material.Material)
		require.NoError(t, err)
		k, err := keyring.NewRawAES(mk.ProviderID, material.KeyID, key)
		require.NoError(t, err)
		return k
	case "rsa":
		if !strings.Contains(material.Material, "PRIVATE") {
			return nil
		}
		private, err := keyring.ParsePrivateKey([]byte(material.Material), nil)
		require.NoError(t, err)
		k, err := keyring.NewRawRSA(mk.ProviderID, material.KeyID, keyring.Padding("oaep-"+mk.PaddingHash), nil, private)
		require.NoError(t, err)
		return k
	}
	t.Fatalf("wrapping by %q", mk.Algorithm)
	return nil
}
