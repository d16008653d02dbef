package keyring

import (
	"crypto/aes"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// parsed is an encrypted key of testdata with its parameters, to be changed.
func parsed(t testing.TB, name string) (e encryptedKey, kdf pbkdf2Params) {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	block, _ := pem.Decode(file)
	_, err = asn1.Unmarshal(block.Bytes, &e)
	require.NoError(t, err)
	_, err = asn1.Unmarshal(e.Algorithm.Params.KDF.Params.FullBytes, &kdf)
	require.NoError(t, err)
	return e, kdf
}

func build(t testing.TB, e encryptedKey, kdf pbkdf2Params) []byte {
	t.Helper()
	p, err := asn1.Marshal(kdf)
	require.NoError(t, err)
	e.Algorithm.Params.KDF.Params = asn1.RawValue{FullBytes: p}
	p, err = asn1.Marshal(e)
	require.NoError(t, err)
	return p
}

func TestDamagedParametersAreRefused(t *testing.T) {
	iv := func(n int) asn1.RawValue {
		p, err := asn1.Marshal(make([]byte, n))
		require.NoError(t, err)
		return asn1.RawValue{FullBytes: p}
	}
	for name, change := range map[string]func(*encryptedKey, *pbkdf2Params){
		"short IV":           func(e *encryptedKey, _ *pbkdf2Params) { e.Algorithm.Params.Cipher.IV = iv(8) },
		"long IV":            func(e *encryptedKey, _ *pbkdf2Params) { e.Algorithm.Params.Cipher.IV = iv(17) },
		"IV of another type": func(e *encryptedKey, _ *pbkdf2Params) { e.Algorithm.Params.Cipher.IV = asn1.NullRawValue },
		"no data":            func(e *encryptedKey, _ *pbkdf2Params) { e.Data = nil },
		"part of a block":    func(e *encryptedKey, _ *pbkdf2Params) { e.Data = e.Data[:len(e.Data)-1] },
		"no iterations":      func(_ *encryptedKey, k *pbkdf2Params) { k.Iterations = 0 },
		"many iterations":    func(_ *encryptedKey, k *pbkdf2Params) { k.Iterations = maxIterations + 1 },
		"length of the key":  func(_ *encryptedKey, k *pbkdf2Params) { k.KeyBytes = 16 },
	} {
		t.Run(name, func(t *testing.T) {
			e, kdf := parsed(t, "private-aes256.pem")
			change(&e, &kdf)
			_, err := decryptPKCS8(build(t, e, kdf), []byte("secret"))
			require.ErrorIs(t, err, ErrInvalid)
			require.NotErrorIs(t, err, ErrPassphrase)
			require.ErrorContains(t, err, "parameters of the private key's encryption are damaged")
		})
	}
	e, kdf := parsed(t, "private-aes256.pem")
	kdf.KeyBytes = 32
	_, err := decryptPKCS8(build(t, e, kdf), []byte("secret"))
	require.NoError(t, err, "what the table starts from, the length written out")
}

// Damaged files are refused or give noise; nothing panics.
func FuzzPBES2(f *testing.F) {
	for _, name := range []string{"private-aes256.pem", "private-aes128-sha1.pem", "refused-scrypt.pem", "refused-des3.pem", "refused-v1.pem"} {
		file, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		block, _ := pem.Decode(file)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var e encryptedKey
		var kdf pbkdf2Params
		_, _ = asn1.Unmarshal(der, &e)
		if _, err := asn1.Unmarshal(e.Algorithm.Params.KDF.Params.FullBytes, &kdf); err == nil && kdf.Iterations > 5000 {
			return // correct, and slow
		}
		p, err := decryptPKCS8(der, []byte("secret"))
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
		} else if len(p) >= len(e.Data) || len(e.Data)%aes.BlockSize != 0 {
			t.Fatalf("%d bytes of %d", len(p), len(e.Data))
		}
	})
}
