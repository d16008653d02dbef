package keyring

import (
	"context"
	"errors"
	"fmt"
)

// VolumeKey is a raw AES key that a volume key file holds. Whoever is given the raw key
// reads and writes the same messages with any library.
type VolumeKey struct {
	*RawAES
	genuine bool
}

// VolumeKey returns the key of the volume. pinned says that the caller knew its ID.
func (v *Volume) VolumeKey(pinned bool) (*VolumeKey, error) {
	k, err := NewRawAES(volumeNamespace, v.file.ID, v.key.Bytes())
	if err != nil {
		return nil, err
	}
	return &VolumeKey{k, pinned || v.Authentic()}, nil
}

// Authentic reports whether the file was made by somebody who is a recipient, and not by
// anybody who has the public key of one.
func (v *Volume) Authentic() bool { return v.by == nil || v.by.Authenticates() }

// String names the key.
func (k *VolumeKey) String() string { return "volume-key " + k.name }

// CanWrap refuses a volume key that may be anybody's: who made it reads what is encrypted
// for it.
func (k *VolumeKey) CanWrap() error {
	if !k.genuine {
		return invalid("new messages are for no volume key that may be somebody else's: whoever has the public key of a recipient can make such a file; id: %s in the keyring says that it is the right one", k.name)
	}
	return nil
}

// Authenticates reports whether it is the volume key of those who use it: under an RSA
// key anybody could have wrapped another one, unless its ID is known.
func (k *VolumeKey) Authenticates() bool { return k.genuine }

// openVolume opens the entry's file by the entry's keys.
func (k keyEntry) openVolume(ctx context.Context, dir string, kms KMSClients) (Key, error) {
	if k.File == "" || len(k.Keys) == 0 {
		return nil, errors.New("a volume-key has a file, and the keys that may open it")
	}
	if k.Namespace != "" || k.Name != "" || k.KeyFile != "" || k.Padding != "" || k.PublicKey != "" || k.PrivateKey != "" || k.PassphraseFile != "" {
		return nil, errors.New("a volume-key has none of the fields of other keys: those are of its keys")
	}
	keys, err := k.openers(ctx, dir, kms)
	if err != nil {
		return nil, err
	}
	f, err := ReadVolume(k.File)
	if err != nil {
		return nil, err
	}
	if k.ID != "" && k.ID != f.ID {
		return nil, fmt.Errorf("volume key file %s is of the volume key %s, and not of %s", k.File, f.ID, k.ID)
	}
	v, err := f.Open(ctx, keys...)
	if err != nil {
		return nil, fmt.Errorf("volume key file %s: %w", k.File, err)
	}
	return v.VolumeKey(k.ID != "")
}

// openers are the keys that may open a volume key file: the entry itself, or those of a
// volume-key.
func (k keyEntry) openers(ctx context.Context, dir string, kms KMSClients) ([]Key, error) {
	if k.Type != volumeType {
		m, err := k.open(ctx, dir, kms)
		return []Key{m.Key}, err
	}
	var keys []Key
	for i, inner := range k.Keys {
		if inner.Type == volumeType {
			return nil, fmt.Errorf("its key %d: a volume key is not opened by another", i+1)
		}
		m, err := inner.open(ctx, dir, kms)
		if err != nil {
			return nil, fmt.Errorf("its key %d: %w", i+1, err)
		}
		keys = append(keys, m.Key)
	}
	return keys, nil
}

// Openers returns the keys of a keyring file that may open a volume key file: all of
// it, and in the place of a volume-key those that open that; and the IDs of the volume
// keys that it names.
func Openers(ctx context.Context, name string, kms KMSClients) (keys []Key, ids []string, err error) {
	err = eachEntry(name, func(k keyEntry, dir string) error {
		more, err := k.openers(ctx, dir, kms)
		keys = append(keys, more...)
		if k.ID != "" {
			ids = append(ids, k.ID)
		}
		return err
	})
	return keys, ids, err
}

// Recipients returns the keys of a keyring file that a volume key can be wrapped for:
// those that new messages are for.
func Recipients(ctx context.Context, name string, kms KMSClients) (all []Recipient, err error) {
	err = eachEntry(name, func(k keyEntry, dir string) error {
		if k.DecryptOnly {
			return nil
		}
		if k.Type == volumeType {
			return errors.New("a volume key is not wrapped for another")
		}
		m, err := k.open(ctx, dir, kms)
		if err != nil {
			return err
		}
		c, err := keyFile{Keys: []keyEntry{k}}.context()
		all = append(all, Recipient{m.Key, c})
		return err
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("keyring %s has no key that new messages are for", name)
	}
	return all, err
}
