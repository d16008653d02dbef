package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"hash"
)

// Encrypted PKCS #8 (RFC 5958) under PBES2 (RFC 8018): PBKDF2 and AES-CBC, what
// OpenSSL writes. The libraries for it panic on damaged files, as of 2026.

// encryptedKey is EncryptedPrivateKeyInfo.
type encryptedKey struct {
	Algorithm struct {
		ID     asn1.ObjectIdentifier
		Params struct {
			KDF struct {
				ID     asn1.ObjectIdentifier
				Params asn1.RawValue
			}
			Cipher struct {
				ID asn1.ObjectIdentifier
				IV asn1.RawValue
			}
		}
	}
	Data []byte
}

// pbkdf2Params of RFC 8018, A.2; PRF is HMAC with SHA-1 when it is not there.
type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyBytes   int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// maxIterations is minutes of work, and 5,000 times what OpenSSL takes.
const maxIterations = 10_000_000

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	prfs      = map[string]func() hash.Hash{
		"":                    sha1.New,
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.8":  sha256.New224,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}
	aesCBCKeyBytes = map[string]int{
		"2.16.840.1.101.3.4.1.2":  16,
		"2.16.840.1.101.3.4.1.22": 24,
		"2.16.840.1.101.3.4.1.42": 32,
	}
)

// decryptPKCS8 returns the PKCS #8 within. A wrong passphrase may go unnoticed
// here, and then gives noise.
func decryptPKCS8(der, passphrase []byte) ([]byte, error) {
	const other = "the private key is encrypted by something else than PBES2 with PBKDF2 and AES-CBC"
	var e encryptedKey
	if rest, err := asn1.Unmarshal(der, &e); err != nil || len(rest) > 0 || !e.Algorithm.ID.Equal(oidPBES2) {
		return nil, invalid(other)
	}
	params := e.Algorithm.Params
	keyBytes := aesCBCKeyBytes[params.Cipher.ID.String()]
	if !params.KDF.ID.Equal(oidPBKDF2) || keyBytes == 0 {
		return nil, invalid(other)
	}
	var kdf pbkdf2Params
	if rest, err := asn1.Unmarshal(params.KDF.Params.FullBytes, &kdf); err != nil || len(rest) > 0 {
		return nil, invalid("the parameters of the private key's encryption are damaged")
	}
	prf, ok := prfs[kdf.PRF.Algorithm.String()]
	if !ok {
		return nil, invalid(other)
	}
	var iv []byte
	_, err := asn1.Unmarshal(params.Cipher.IV.FullBytes, &iv)
	if err != nil || len(iv) != aes.BlockSize || len(e.Data) == 0 || len(e.Data)%aes.BlockSize != 0 ||
		kdf.Iterations < 1 || kdf.Iterations > maxIterations || kdf.KeyBytes != 0 && kdf.KeyBytes != keyBytes {
		return nil, invalid("the parameters of the private key's encryption are damaged")
	}
	key, err := pbkdf2.Key(prf, string(passphrase), kdf.Salt, kdf.Iterations, keyBytes)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain := bytes.Clone(e.Data)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, plain)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.HasSuffix(plain, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, ErrPassphrase
	}
	return plain[:len(plain)-pad], nil
}
