package keyring

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"coffer/objstore/cse/message"
)

// maxFile is more bytes than a keyring file has use for, maxPEM than a key of 16,384
// bits takes.
const (
	maxFile = 1 << 20
	maxPEM  = 64 << 10
)

// keyEntry is one key of a keyring file.
type keyEntry struct {
	Type string `yaml:"type"`
	// Namespace and Name are what messages call a raw key; the SDKs call them so, too.
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	// KeyFile holds a raw AES key.
	KeyFile string `yaml:"key_file"`
	// Padding, PublicKey, PrivateKey and PassphraseFile are of raw RSA keys.
	Padding        string `yaml:"padding"`
	PublicKey      string `yaml:"public_key"`
	PrivateKey     string `yaml:"private_key"`
	PassphraseFile string `yaml:"passphrase_file"`
	// KeyID is the id, alias or ARN of a key of AWS KMS. EncryptionContext is what
	// its policy wants to see, and in every message then.
	KeyID             string            `yaml:"key_id"`
	EncryptionContext map[string]string `yaml:"encryption_context"`
	GrantTokens       []string          `yaml:"grant_tokens"`
	// File is a volume key file, Keys are those that may open it, and ID is the one
	// that the volume key must have: under an RSA key anybody can make a file.
	File string     `yaml:"file"`
	ID   string     `yaml:"id"`
	Keys []keyEntry `yaml:"keys"`
	// DecryptOnly: new messages are not for this key.
	DecryptOnly bool `yaml:"decrypt_only"`
}

// keyFile is a keyring file that has more than a list of keys.
type keyFile struct {
	Volume string     `yaml:"volume"`
	Keys   []keyEntry `yaml:"keys"`
}

// volumeType is the type of an entry for a volume key file.
const volumeType = "volume-key"

// volumeEntry is the name of the volume in contexts.
const volumeEntry = "coffer-vol"

// Load reads a keyring file: a YAML list of keys, or a mapping with the list as keys and
// the volume's name as volume. Paths in it are relative to its directory. New messages
// are for all keys but those that are decrypt_only; c is what their contexts have to
// have. Clients of AWS KMS come from kms, where there is a key of it.
func Load(ctx context.Context, name string, kms KMSClients) (r *Ring, c message.Context, err error) {
	f, err := readKeyring(name)
	if err == nil {
		c, err = f.context()
	}
	var members []Member
	if err == nil {
		err = f.each(func(k keyEntry) error {
			m, err := k.open(ctx, filepath.Dir(name), kms)
			members = append(members, m)
			return err
		})
	}
	if err == nil {
		r, err = New(members...)
	}
	if err != nil {
		return nil, message.Context{}, fmt.Errorf("keyring %s: %w", name, err)
	}
	return r, c, nil
}

// readKeyring reads what a keyring file says, and none of the files that it names.
func readKeyring(name string) (keyFile, error) {
	text, err := readFile(name)
	if err != nil {
		return keyFile{}, err
	}
	return parseFile(text)
}

// readFile reads a file of a sensible length.
func readFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of a sensible length", name)
	}
	return os.ReadFile(name)
}

// each calls do with every key, and says in the error which one it was.
func (f keyFile) each(do func(keyEntry) error) error {
	for i, k := range f.Keys {
		if err := do(k); err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	return nil
}

// eachEntry calls do with every key of a keyring file, and its directory.
func eachEntry(name string, do func(k keyEntry, dir string) error) error {
	f, err := readKeyring(name)
	if err == nil {
		err = f.each(func(k keyEntry) error { return do(k, filepath.Dir(name)) })
	}
	if err != nil {
		return fmt.Errorf("keyring %s: %w", name, err)
	}
	return nil
}

// context is what messages have for the volume and for keys of a KMS.
func (f keyFile) context() (message.Context, error) {
	all := map[string]string{}
	if f.Volume != "" {
		all[volumeEntry] = f.Volume
	}
	for i, k := range f.Keys {
		for name, value := range k.EncryptionContext {
			if other, ok := all[name]; ok && other != value {
				return message.Context{}, fmt.Errorf("key %d: a message has one value of %q in its context, not %q and %q", i+1, name, other, value)
			}
			all[name] = value
		}
	}
	return message.NewContext(all)
}

func parseFile(text []byte) (keyFile, error) {
	var f keyFile
	var probe any
	if err := yaml.Unmarshal(text, &probe); err != nil {
		return f, errors.New(yaml.FormatError(err, false, false))
	}
	var into any = &f
	if _, list := probe.([]any); list {
		into = &f.Keys
	}
	if err := yaml.UnmarshalWithOptions(text, into, yaml.Strict()); err != nil {
		return f, errors.New(yaml.FormatError(err, false, false))
	}
	return f, nil
}

// open reads the key's files, whose paths are relative to dir.
func (k keyEntry) open(ctx context.Context, dir string, kms KMSClients) (m Member, err error) {
	for _, path := range []*string{&k.KeyFile, &k.PublicKey, &k.PrivateKey, &k.PassphraseFile, &k.File} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	m.DecryptOnly = k.DecryptOnly
	switch k.Type {
	case "raw-aes":
		m.Key, err = k.openAES()
	case "raw-rsa":
		m.Key, err = k.openRSA()
	case "aws-kms":
		m.Key, err = k.openKMS(kms)
	case volumeType:
		m.Key, err = k.openVolume(ctx, dir, kms)
	case "":
		err = errors.New("it has no type")
	default:
		err = fmt.Errorf("type %q is none of raw-aes, raw-rsa, aws-kms and volume-key", k.Type)
	}
	if err == nil && k.Type != "aws-kms" && (k.KeyID != "" || len(k.EncryptionContext) > 0 || len(k.GrantTokens) > 0) {
		err = errors.New("key_id, encryption_context and grant_tokens are those of an aws-kms key")
	}
	if err == nil && k.Type != volumeType && (k.File != "" || k.ID != "" || len(k.Keys) > 0) {
		err = errors.New("file, id and keys are those of a volume-key")
	}
	return m, err
}

func (k keyEntry) openKMS(kms KMSClients) (Key, error) {
	if k.KeyID == "" || k.Namespace != "" || k.Name != "" || k.KeyFile != "" || k.Padding != "" || k.PublicKey != "" || k.PrivateKey != "" {
		return nil, errors.New("an aws-kms key has a key_id, and none of the fields of raw keys")
	}
	client, err := kms(regionOf(k.KeyID))
	if err != nil {
		return nil, err
	}
	return NewAWSKMS(client, k.KeyID, k.GrantTokens...)
}

func (k keyEntry) openAES() (Key, error) {
	if k.KeyFile == "" || k.Padding != "" || k.PublicKey != "" || k.PrivateKey != "" || k.PassphraseFile != "" {
		return nil, errors.New("a raw-aes key has a key_file, and none of the fields of raw-rsa")
	}
	raw, err := KeyFile("key file", k.KeyFile, 16, 24, 32)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return NewRawAES(k.Namespace, k.Name, raw)
}

func (k keyEntry) openRSA() (Key, error) {
	if k.KeyFile != "" || k.PublicKey == "" && k.PrivateKey == "" {
		return nil, errors.New("a raw-rsa key has a public_key, a private_key or both, and no key_file")
	}
	if k.PassphraseFile != "" && k.PrivateKey == "" {
		return nil, errors.New("passphrase_file is that of a private_key")
	}
	if k.DecryptOnly && k.PrivateKey == "" {
		return nil, errors.New("decrypt_only needs a private_key")
	}
	var public *rsa.PublicKey
	var private *rsa.PrivateKey
	if k.PublicKey != "" {
		text, err := os.ReadFile(k.PublicKey)
		if err == nil {
			public, err = ParsePublicKey(text)
		}
		if err != nil {
			return nil, fmt.Errorf("public key %s: %w", k.PublicKey, err)
		}
	}
	if k.PrivateKey != "" {
		text, err := SecretFile("private key", k.PrivateKey, maxPEM)
		if err != nil {
			return nil, err
		}
		defer clear(text)
		if private, err = ParsePrivateKey(text, k.passphrase()); err != nil {
			return nil, fmt.Errorf("private key %s: %w", k.PrivateKey, err)
		}
	}
	return NewRawRSA(k.Namespace, k.Name, Padding(k.Padding), public, private)
}

// passphrase is that of the private key, nil when none is given. An end of line is no
// part of it.
func (k keyEntry) passphrase() func() ([]byte, error) {
	if k.PassphraseFile == "" {
		return nil
	}
	return func() ([]byte, error) {
		text, err := SecretFile("passphrase file", k.PassphraseFile, maxKeyText)
		return bytes.TrimRight(text, "\r\n"), err
	}
}
