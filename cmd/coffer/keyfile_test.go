package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
	"coffer/objstore/s3store"
)

// keyFile writes a key file with mode 0600.
func keyFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func md5OfKey(t *testing.T, raw []byte) string {
	t.Helper()
	k, err := s3store.NewCustomerKey(raw)
	require.NoError(t, err)
	return k.MD5()
}

func TestFormsOfAKeyFile(t *testing.T) {
	// With bytes for which the alphabets of base64 differ.
	raw := bytes.Repeat([]byte{0xfb, 0xff, 0x0a, 0x20}, 8)
	for name, text := range map[string]string{
		"raw":           string(raw),
		"hex":           hex.EncodeToString(raw) + "\n",
		"base64":        base64.StdEncoding.EncodeToString(raw),
		"base64 line":   "  " + base64.StdEncoding.EncodeToString(raw) + "\r\n",
		"base64 no pad": base64.RawStdEncoding.EncodeToString(raw),
		"base64 URL":    base64.URLEncoding.EncodeToString(raw) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			k, err := readCustomerKey(keyFile(t, text))
			require.NoError(t, err)
			require.Equal(t, md5OfKey(t, raw), k.MD5())
		})
	}
	for name, text := range map[string]string{
		"empty": "", "short": "0123456789", "31 bytes": string(raw[:31]), "33 bytes": string(raw) + "x",
		"hex of 31": hex.EncodeToString(raw[:31]), "base64 of 33": base64.StdEncoding.EncodeToString(append(raw, 1)),
		"long": string(bytes.Repeat([]byte("a"), 2000)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readCustomerKey(keyFile(t, text))
			require.Regexp(t, "neither 32 bytes|longer than", err)
			if len(text) > 8 {
				require.NotContains(t, err.Error(), text[:8], "content in an error")
			}
		})
	}
}

func TestKeyFilesMustBePrivate(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o644: false, 0o620: false} {
		name := keyFile(t, string(bytes.Repeat([]byte("k"), 32)))
		require.NoError(t, os.Chmod(name, mode))
		_, err := readCustomerKey(name)
		require.Equal(t, ok, err == nil, "%o: %v", mode, err)
		if !ok {
			require.ErrorContains(t, err, "chmod 600")
		}
	}
	_, err := readCustomerKey(t.TempDir())
	require.ErrorContains(t, err, "not a regular file")
	_, err = readCustomerKey("/nonexistent")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestCustomerKeysOfFlagsAndRules(t *testing.T) {
	a, b, c := bytes.Repeat([]byte("a"), 32), bytes.Repeat([]byte("b"), 32), bytes.Repeat([]byte("c"), 32)
	fa, fb, fc := keyFile(t, string(a)), keyFile(t, string(b)), keyFile(t, string(c))
	file := writeConfig(t, `
sse: kms
sse-kms-key-id: alias/mine
bucket-key: true
kms-context: {project: "0815"}
sse-customer-key-file: `+fa+`
encryption:
  - match: "own-*"
    sse: customer
    customer-key-file: [`+fc+`, `+fb+`]
  - match: "first-*"
    sse: customer
  - match: "double-*/x/"
    sse: kms-dsse
    kms-key-id: two
    kms-context: {project: "4711", run: a}
  - match: "key-*"
    sse: kms
    bucket-key: true
`)
	cfg, err := resolve(t, []string{"--config=" + file}, nil, "")
	require.NoError(t, err)
	sc, err := storeConfig(cfg, "", nil)
	require.NoError(t, err)
	require.NoError(t, sc.Validate())
	var md5s []string
	for _, k := range sc.CustomerKeys {
		md5s = append(md5s, k.MD5())
	}
	require.Equal(t, []string{md5OfKey(t, a), md5OfKey(t, c), md5OfKey(t, b)}, md5s)
	require.Equal(t, []objstore.Encryption{
		{Mode: objstore.ModeSSEC, CustomerKeyMD5: md5OfKey(t, c)},
		{Mode: objstore.ModeSSEC, CustomerKeyMD5: md5OfKey(t, a)},
		{Mode: objstore.ModeDSSEKMS, KMSKeyID: "two"},
		{Mode: objstore.ModeSSEKMS, BucketKey: true},
		{Mode: objstore.ModeSSEKMS, KMSKeyID: "alias/mine", BucketKey: true},
	}, []objstore.Encryption{sc.Rules[0].Encryption, sc.Rules[1].Encryption, sc.Rules[2].Encryption, sc.Rules[3].Encryption, sc.Rules[4].Encryption})
	require.Equal(t, map[string]string{"project": "0815"}, sc.KMSContext)
	require.Equal(t, map[string]string{"project": "4711", "run": "a"}, sc.Rules[2].KMSContext)

	for _, s := range []struct {
		name string
		args []string
		env  map[string]string
		opts string
		want pathList
	}{
		{"file", nil, nil, "", pathList{fa}},
		{"environment over file", nil, map[string]string{"COFFER_SSE_CUSTOMER_KEY_FILE": fb + ":" + fc}, "", pathList{fb, fc}},
		{"-o over environment", nil, map[string]string{"COFFER_SSE_CUSTOMER_KEY_FILE": fb}, "sse_customer_key_file=" + fc, pathList{fc}},
		{"flags over all", []string{"--sse-customer-key-file", fb, "--sse-customer-key-file=" + fa}, map[string]string{"COFFER_SSE_CUSTOMER_KEY_FILE": fc}, "", pathList{fb, fa}},
	} {
		t.Run(s.name, func(t *testing.T) {
			cfg, err := resolve(t, append(s.args, "--config="+file), s.env, s.opts)
			require.NoError(t, err)
			require.Equal(t, s.want, cfg.CustomerKeyFiles)
		})
	}
	cfg, err = resolve(t, []string{"--config=" + file, "--sse=none"}, nil, "")
	require.NoError(t, err, "a flag can take back the mode of a file with a key")
	sc, err = storeConfig(cfg, "", nil)
	require.NoError(t, err)
	require.Equal(t, objstore.Encryption{Mode: objstore.ModeNone}, sc.Rules[4].Encryption)
}

func TestModesWithoutTheirKeys(t *testing.T) {
	for _, c := range []struct{ yaml, want string }{
		{"sse: customer\n", "sse-customer-key-file"},
		{"sse-kms-key-id: k\n", "sse kms"},
		{"bucket-key: true\n", "sse kms"},
		{"encryption:\n  - match: b\n    sse: customer\n", "customer-key-file"},
		{"encryption:\n  - match: b\n    kms-key-id: k\n", "sse kms"},
		{"encryption:\n  - match: b\n    sse: aes256\n    kms-context: {a: b}\n", "sse kms"},
		{"encryption:\n  - match: b\n    sse: kms-dsse\n    bucket-key: true\n", "sse kms"},
	} {
		_, err := resolve(t, []string{"--config=" + writeConfig(t, c.yaml)}, nil, "")
		require.ErrorContains(t, err, c.want, c.yaml)
	}
}
