package keyring

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
	"coffer/objstore/storetest"
)

// aPair is an RSA key, which takes long to make.
var aPair = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// files writes files of mode 0600 into a new directory.
func files(t testing.TB, content map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range content {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// pemOf is a private and a public key as openssl genpkey and openssl rsa -pubout write them.
func pemOf(t testing.TB, key *rsa.PrivateKey) (private, public string) {
	t.Helper()
	p, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	q, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p})), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: q}))
}

// headerOf is the header of a message with this data key.
func headerOf(t testing.TB, m Envelope) *message.Header {
	t.Helper()
	s, err := message.NewSealer(m.Key, m.Context, m.EDKs, message.Own.Frame)
	require.NoError(t, err)
	h, err := message.ParseHeader(s.Header())
	require.NoError(t, err)
	require.Zero(t, h.Bytes()%message.HeaderUnit, "the header is not padded")
	return h
}

const aesKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// Whatever a ring wraps it unwraps, and so does each of its keys that may read.
func TestRings(t *testing.T) {
	private, public := pemOf(t, aPair())
	pkcs1Form := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(aPair())}))
	dir := files(t, map[string]string{
		"private.pem": private, "public.pem": public, "pkcs1.pem": pkcs1Form,
		"aes256": aesKey, "aes192": aesKey[:48], "aes128": aesKey[:32], "other": strings.Repeat("f", 64),
	})
	require.NoError(t, os.Chmod(filepath.Join(dir, "public.pem"), 0o644))
	load := func(text string) *Ring {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(text), 0o600))
		r, _, err := Load(t.Context(), filepath.Join(dir, "ring"), nil)
		require.NoError(t, err)
		return r
	}
	aes := func(name, file string) string {
		return fmt.Sprintf("- {type: raw-aes, namespace: ns, name: %s, key_file: %s}\n", name, file)
	}
	rsa := func(padding, more string) string {
		return fmt.Sprintf("- {type: raw-rsa, namespace: MyAppKeys, name: S3RSAKey, padding: %s, public_key: public.pem%s}\n", padding, more)
	}
	for name, c := range map[string]struct {
		write   string
		read    []string // each of them can
		cannot  []string
		wrapped int
	}{
		"AES-256":       {aes("a", "aes256"), []string{aes("a", "aes256"), aes("b", "aes128") + aes("a", "aes256")}, []string{aes("b", "aes256"), aes("a", "other"), aes("a", "aes128")}, 1},
		"AES-192":       {aes("a", "aes192"), []string{aes("a", "aes192")}, []string{aes("a", "aes256")}, 1},
		"AES-128":       {aes("a", "aes128"), []string{aes("a", "aes128")}, []string{aes("a", "aes256")}, 1},
		"RSA":           {rsa("oaep-sha256", ""), []string{rsa("oaep-sha256", ", private_key: private.pem"), rsa("oaep-sha256", ", private_key: pkcs1.pem")}, []string{rsa("oaep-sha256", ""), rsa("oaep-sha512", ", private_key: private.pem")}, 1},
		"RSA, SHA-384":  {rsa("oaep-sha384", ""), []string{rsa("oaep-sha384", ", private_key: private.pem")}, []string{rsa("oaep-sha1", ", private_key: private.pem, decrypt_only: true")}, 1},
		"RSA, SHA-512":  {rsa("oaep-sha512", ""), []string{rsa("oaep-sha512", ", private_key: private.pem")}, nil, 1},
		"AES and RSA":   {aes("a", "aes256") + rsa("oaep-sha256", ""), []string{aes("a", "aes256"), rsa("oaep-sha256", ", private_key: private.pem")}, []string{aes("c", "aes256")}, 2},
		"an old key":    {aes("a", "aes256") + "- {type: raw-aes, namespace: ns, name: old, key_file: other, decrypt_only: true}", []string{aes("a", "aes256")}, []string{aes("old", "other")}, 1},
		"a mapping":     {"volume: v\nkeys:\n" + aes("a", "aes256"), []string{aes("a", "aes256")}, nil, 1},
		"two of a name": {aes("a", "aes256") + aes("a", "other"), []string{aes("a", "other"), aes("a", "aes256")}, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := load(c.write)
			given, err := message.NewContext(map[string]string{"coffer-vol": "v"})
			require.NoError(t, err)
			m, err := w.Wrap(t.Context(), given)
			require.NoError(t, err)
			require.Len(t, m.EDKs, c.wrapped)
			h := headerOf(t, m)
			for _, text := range c.read {
				u, _, err := load(text).Unwrap(t.Context(), h.Suite, h.Context, h.EDKs)
				require.NoError(t, err, text)
				require.Equal(t, m.Key.Bytes(), u.Bytes(), text)
				_, err = message.NewOpener(h, u, message.Context{})
				require.NoError(t, err)
			}
			for _, text := range c.cannot {
				_, _, err := load(text).Unwrap(t.Context(), h.Suite, h.Context, h.EDKs)
				var none *NoKeyError
				require.ErrorAs(t, err, &none, text)
			}
			again, err := w.Wrap(t.Context(), given)
			require.NoError(t, err)
			require.NotEqual(t, m.Key.Bytes(), again.Key.Bytes())
		})
	}
	load("volume: v\nkeys:\n" + aes("a", "aes256"))
	_, c, err := Load(t.Context(), filepath.Join(dir, "ring"), nil)
	require.NoError(t, err)
	volume, _ := c.Get("coffer-vol")
	require.Equal(t, "v", volume)
}

// What is wrong with a keyring file is said in one line, which shows nothing secret.
func TestBadFiles(t *testing.T) {
	private, public := pemOf(t, aPair())
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Setenv("GODEBUG", "rsa1024min=0")
		small, err = rsa.GenerateKey(rand.Reader, 1024)
	}
	require.NoError(t, err)
	_, smallPublic := pemOf(t, small)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, otherPublic := pemOf(t, other)
	dir := files(t, map[string]string{
		"private.pem": private, "public.pem": public, "small.pem": smallPublic, "other.pem": otherPublic, "aes": aesKey, "short": "abcd", "empty": "",
		"broken.pem": "-----BEGIN PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString([]byte("SECRET-IN-A-KEY")) + "\n-----END PRIVATE KEY-----\n",
		"old.pem":    "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
	})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "open"), []byte(aesKey), 0o644))
	for text, want := range map[string]string{
		"":            "a keyring needs a key",
		"[]":          "a keyring needs a key",
		"{volume: v}": "a keyring needs a key",
		"- {type: raw-aes, namespace: n, name: k, key_file: aes, colour: red}":                                            "unknown field",
		"- {namespace: n, name: k, key_file: aes}":                                                                        "it has no type",
		"- {type: raw-des, namespace: n, name: k, key_file: aes}":                                                         `type "raw-des"`,
		"- {type: raw-aes, namespace: n, key_file: aes}":                                                                  "needs a namespace and a name",
		"- {type: raw-aes, namespace: aws-kms, name: k, key_file: aes}":                                                   "belongs to AWS KMS",
		"- {type: raw-aes, namespace: n, name: k}":                                                                        "has a key_file",
		"- {type: raw-aes, namespace: n, name: k, key_file: short}":                                                       "holds neither 16 to 32 bytes",
		"- {type: raw-aes, namespace: n, name: k, key_file: empty}":                                                       "holds neither",
		"- {type: raw-aes, namespace: n, name: k, key_file: missing}":                                                     "no such file",
		"- {type: raw-aes, namespace: n, name: k, key_file: open}":                                                        "chmod 600",
		"- {type: raw-aes, namespace: n, name: k, key_file: .}":                                                           "not a regular file",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256}":                                                  "a public_key, a private_key or both",
		"- {type: raw-rsa, namespace: n, name: k, public_key: public.pem}":                                                "padding",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha1, public_key: public.pem}":                            "for decryption only",
		"- {type: raw-rsa, namespace: n, name: k, padding: pkcs1, private_key: private.pem}":                              "for decryption only",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, public_key: private.pem}":                         "holds a private key",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, public_key: aes}":                                 "not PEM",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, public_key: small.pem}":                           "1024 bits",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, private_key: public.pem}":                         "holds a public key",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, private_key: broken.pem}":                         "damaged",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, private_key: old.pem}":                            "openssl pkcs8 -topk8",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, public_key: other.pem, private_key: private.pem}": "is not that of the private key",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, public_key: public.pem, decrypt_only: true}":      "needs a private_key",
		"- {type: raw-rsa, namespace: n, name: k, padding: oaep-sha256, public_key: public.pem, passphrase_file: aes}":    "passphrase_file is that of",
		"- {type: aws-kms}":                                                  "has a key_id",
		"- {type: aws-kms, key_id: alias/a, name: k}":                        "none of the fields of raw keys",
		"- {type: raw-aes, namespace: n, name: k, key_file: aes, key_id: a}": "those of an aws-kms key",
		"- {type: aws-kms, key_id: a, encryption_context: {x: a}}\n- {type: aws-kms, key_id: b, encryption_context: {x: b}}": "one value",
		"- {type: aws-kms, key_id: a, encryption_context: {aws-crypto-public-key: a}}":                                       "reserved",
		"- type: [": "",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(text), 0o600))
		_, _, err := Load(t.Context(), filepath.Join(dir, "ring"), nil)
		require.Error(t, err, text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "SECRET", text)
		require.NotContains(t, err.Error(), aesKey[:16], text)
	}
	_, _, err = Load(t.Context(), filepath.Join(dir, "none"), nil)
	require.ErrorContains(t, err, "no such file")
}

// Rings are told apart by their keys and by nothing that is secret.
func TestRingIDs(t *testing.T) {
	raw, err := hex.DecodeString(aesKey)
	require.NoError(t, err)
	seen := map[string]string{}
	for name, k := range map[string]func() (Key, error){
		"one":            func() (Key, error) { return NewRawAES("n", "k", raw) },
		"another name":   func() (Key, error) { return NewRawAES("n", "l", raw) },
		"another length": func() (Key, error) { return NewRawAES("n", "k", raw[:16]) },
		"RSA":            func() (Key, error) { return NewRawRSA("n", "k", OAEPSHA256, nil, aPair()) },
	} {
		key, err := k()
		require.NoError(t, err)
		for _, old := range []bool{true, false} {
			r, err := New(Member{key, old})
			require.NoError(t, err)
			require.Len(t, r.ID(), 16)
			require.Empty(t, seen[r.ID()], name)
			seen[r.ID()] = name
		}
		require.NotContains(t, string(key.Fingerprint()), string(raw[:8]))
	}
}

// Keys as the openssl program writes them, with a passphrase and without.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		storetest.Missing(t, "no openssl here: %v", err)
	}
	dir := files(t, map[string]string{"pass": "a pass phrase\n", "wrong": "another\n"})
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "private.pem")
	run("rsa", "-in", "private.pem", "-pubout", "-out", "public.pem")
	run("pkcs8", "-topk8", "-v2", "aes256", "-in", "private.pem", "-passout", "file:pass", "-out", "sealed.pem")
	run("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512", "-in", "private.pem", "-passout", "file:pass", "-out", "sealed512.pem")
	run("pkcs8", "-topk8", "-scrypt", "-in", "private.pem", "-passout", "file:pass", "-out", "scrypt.pem")
	for _, f := range []string{"private.pem", "sealed.pem", "sealed512.pem", "scrypt.pem"} {
		require.NoError(t, os.Chmod(filepath.Join(dir, f), 0o600))
	}
	load := func(fields string) (*Ring, error) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte("- {type: raw-rsa, namespace: MyAppKeys, name: S3RSAKey, padding: oaep-sha256, "+fields+"}"), 0o600))
		r, _, err := Load(t.Context(), filepath.Join(dir, "ring"), nil)
		return r, err
	}
	w, err := load("public_key: public.pem")
	require.NoError(t, err)
	m, err := w.Wrap(t.Context(), message.Context{})
	require.NoError(t, err)
	h := headerOf(t, m)
	for _, fields := range []string{
		"public_key: public.pem, private_key: private.pem", "private_key: sealed.pem, passphrase_file: pass",
		"private_key: sealed512.pem, passphrase_file: pass",
	} {
		r, err := load(fields)
		require.NoError(t, err, fields)
		u, _, err := r.Unwrap(t.Context(), h.Suite, h.Context, h.EDKs)
		require.NoError(t, err, fields)
		require.Equal(t, m.Key.Bytes(), u.Bytes())
	}
	_, err = load("private_key: sealed.pem")
	require.ErrorContains(t, err, "needs a passphrase")
	_, err = load("private_key: scrypt.pem, passphrase_file: pass")
	require.ErrorContains(t, err, "something else than PBES2")
	_, err = load("private_key: sealed.pem, passphrase_file: wrong")
	require.ErrorContains(t, err, "passphrase is wrong")
}

func FuzzFile(f *testing.F) {
	f.Add("- {type: raw-aes, namespace: n, name: k, key_file: aes}")
	f.Add("volume: v\nkeys:\n- {type: raw-rsa, namespace: MyAppKeys, name: S3RSAKey, padding: oaep-sha256, public_key: a, private_key: b}")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseFile([]byte(text))
	})
}

func FuzzDecodeKey(f *testing.F) {
	f.Add([]byte(aesKey))
	f.Fuzz(func(t *testing.T, text []byte) {
		if raw := DecodeKey(text, 16, 32); raw != nil && len(raw) != 16 && len(raw) != 32 {
			t.Errorf("a key of %d bytes", len(raw))
		}
	})
}
