package keyring

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
)

// ParsePublicKey reads the RSA key of a PEM file: PUBLIC KEY, as "openssl rsa
// -pubout" makes it, or RSA PUBLIC KEY.
func ParsePublicKey(file []byte) (*rsa.PublicKey, error) {
	block, err := onlyBlock(file)
	if err != nil {
		return nil, err
	}
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, invalid("the public key is damaged")
		}
		public, ok := key.(*rsa.PublicKey)
		if !ok {
			return nil, invalid("the public key is not RSA")
		}
		return public, nil
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, invalid("the public key is damaged")
		}
		return key, nil
	case "PRIVATE KEY", "RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return nil, invalid("the file holds a private key, where a public key is needed")
	}
	return nil, invalid("the PEM block is %.40q, not PUBLIC KEY", block.Type)
}

// ParsePrivateKey reads the RSA key of a PEM file: PRIVATE KEY or ENCRYPTED
// PRIVATE KEY, as "openssl genpkey" makes them, or RSA PRIVATE KEY. passphrase
// is called when the key is encrypted; nil says that there is none.
func ParsePrivateKey(file []byte, passphrase func() ([]byte, error)) (*rsa.PrivateKey, error) {
	block, err := onlyBlock(file)
	if err != nil {
		return nil, err
	}
	if block.Headers["Proc-Type"] != "" {
		return nil, invalid(`the private key is encrypted in a way that is easily broken; "openssl pkcs8 -topk8" makes a better file of it`)
	}
	switch block.Type {
	case "PRIVATE KEY":
		return parsePKCS8(block.Bytes, invalid("the private key is damaged"))
	case "RSA PRIVATE KEY":
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, invalid("the private key is damaged")
		}
		return key, nil
	case "ENCRYPTED PRIVATE KEY":
		if passphrase == nil {
			return nil, invalid("the private key needs a passphrase, and none is given")
		}
		phrase, err := passphrase()
		if err != nil {
			return nil, err
		}
		der, err := decryptPKCS8(block.Bytes, phrase)
		if err != nil {
			return nil, err
		}
		return parsePKCS8(der, ErrPassphrase)
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, invalid("the file holds a public key, where a private key is needed")
	}
	return nil, invalid("the PEM block is %.40q, not PRIVATE KEY", block.Type)
}

// parsePKCS8 returns damaged where der is no key at all.
func parsePKCS8(der []byte, damaged error) (*rsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, damaged
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, invalid("the private key is not RSA")
	}
	return private, nil
}

// onlyBlock refuses a file of several keys, of which one would be taken
// without a word.
func onlyBlock(file []byte) (*pem.Block, error) {
	block, rest := pem.Decode(file)
	if block == nil {
		return nil, invalid("the file is not PEM")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, invalid("the file holds more than one PEM block")
	}
	return block, nil
}
