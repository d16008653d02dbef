package emulator

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// keyService is the key management service: named keys with their material,
// and what is sealed under them. Safe for concurrent use.
//
// A ciphertext names its key and the version of the key's material, so what
// was sealed before a rotation stays readable.
type keyService struct {
	vault  *vault
	region string
	now    func() time.Time

	// changing is held by a change over the writing of kms.json.
	changing sync.Mutex

	mu     sync.RWMutex
	keys   map[string]kmsKey
	alias  map[string]string // "alias/NAME" to key id
	denied map[string]bool
}

// kmsKey is one key. Values are replaced, never changed.
type kmsKey struct {
	ID          string    `json:"id"`
	Description string    `json:"description,omitempty"`
	Created     time.Time `json:"created"`
	Enabled     bool      `json:"enabled"`
	// AWSManaged: made by the service itself for one of its users.
	AWSManaged bool `json:"awsManaged,omitempty"`
	// Deletion is when the key ends, zero while that is not planned.
	Deletion time.Time `json:"deletion,omitzero"`
	// RotationDays is the period of automatic rotation, 0 for none. It is
	// kept and shown; only RotateKeyOnDemand rotates.
	RotationDays int `json:"rotationDays,omitempty"`
	// Material holds the versions, oldest first, wrapped by the vault's key.
	Material [][]byte `json:"material"`
}

// kmsFile is kms.json.
type kmsFile struct {
	Keys    map[string]kmsKey `json:"keys"`
	Aliases map[string]string `json:"aliases"`
}

// kmsAccount is the account in ARNs, that of the examples in AWS' manuals.
const kmsAccount = "111122223333"

// awsAliasPrefix is of aliases that only the service itself makes.
const awsAliasPrefix = "alias/aws/"

func openKeyService(v *vault, region string, now func() time.Time) (*keyService, error) {
	k := &keyService{vault: v, region: region, now: now, keys: map[string]kmsKey{}, alias: map[string]string{}, denied: map[string]bool{}}
	var file kmsFile
	if err := readJSON(k.path(), &file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	maps.Copy(k.keys, file.Keys)
	maps.Copy(k.alias, file.Aliases)
	return k, nil
}

func (k *keyService) path() string { return filepath.Join(k.vault.dir, "kms.json") }

// change edits copies of keys and aliases and makes them those in use, on disk
// first.
func (k *keyService) change(edit func(keys map[string]kmsKey, alias map[string]string) error) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.mu.RLock()
	keys, alias := maps.Clone(k.keys), maps.Clone(k.alias)
	k.mu.RUnlock()
	if err := edit(keys, alias); err != nil {
		return err
	}
	if err := k.vault.writeJSON(k.path(), kmsFile{keys, alias}); err != nil {
		return err
	}
	k.mu.Lock()
	k.keys, k.alias = keys, alias
	k.mu.Unlock()
	return nil
}

func (k *keyService) keyARN(id string) string {
	return "arn:aws:kms:" + k.region + ":" + kmsAccount + ":key/" + id
}

func (k *keyService) aliasARN(alias string) string {
	return "arn:aws:kms:" + k.region + ":" + kmsAccount + ":" + alias
}

// newKeyID returns a random UUID.
func newKeyID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return keyIDText(b[:])
}

func keyIDText(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func errKeyNotFound(name string) *apiError {
	return fail("NotFoundException", "Key '%s' does not exist", name)
}

// find returns the key that an id, an alias or the ARN of either names.
func (k *keyService) find(name string) (kmsKey, error) {
	short := name
	if rest, ok := strings.CutPrefix(name, "arn:"); ok {
		want := "aws:kms:" + k.region + ":" + kmsAccount + ":"
		if short, ok = strings.CutPrefix(rest, want); !ok {
			return kmsKey{}, fail("NotFoundException", "Invalid arn %s", name)
		}
		if id, ok := strings.CutPrefix(short, "key/"); ok {
			short = id
		} else if !strings.HasPrefix(short, "alias/") {
			return kmsKey{}, fail("InvalidArnException", "Invalid arn %s", name)
		}
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	id := short
	if strings.HasPrefix(short, "alias/") {
		if id = k.alias[short]; id == "" {
			return kmsKey{}, fail("NotFoundException", "Alias %s is not found.", k.aliasARN(short))
		}
	}
	key, ok := k.keys[id]
	if !ok || !key.Deletion.IsZero() && !k.now().Before(key.Deletion) {
		return kmsKey{}, errKeyNotFound(k.keyARN(id))
	}
	return key, nil
}

// usable returns the key of name for use by cryptographic operations.
func (k *keyService) usable(name string) (kmsKey, error) {
	key, err := k.find(name)
	if err != nil {
		return kmsKey{}, err
	}
	k.mu.RLock()
	denied := k.denied[key.ID]
	k.mu.RUnlock()
	arn := k.keyARN(key.ID)
	switch {
	case denied:
		return kmsKey{}, fail("AccessDeniedException", "User: arn:aws:iam::%s:user/emulator is not authorized to perform this operation on resource: %s because no identity-based policy allows it", kmsAccount, arn)
	case !key.Deletion.IsZero():
		return kmsKey{}, fail("KMSInvalidStateException", "%s is pending deletion.", arn)
	case !key.Enabled:
		return kmsKey{}, fail("DisabledException", "%s is disabled.", arn)
	}
	return key, nil
}

// create makes a key, with an alias unless that is "".
func (k *keyService) create(description, alias string, awsManaged bool) (kmsKey, error) {
	key := kmsKey{ID: newKeyID(), Description: description, Created: k.now().UTC(), Enabled: true, AWSManaged: awsManaged}
	key.Material = [][]byte{k.newMaterial(key, 0)}
	err := k.change(func(keys map[string]kmsKey, aliases map[string]string) error {
		if alias != "" {
			if aliases[alias] != "" {
				return fail("AlreadyExistsException", "An alias with the name %s already exists", k.aliasARN(alias))
			}
			aliases[alias] = key.ID
		}
		keys[key.ID] = key
		return nil
	})
	return key, err
}

// managed returns the key with an alias of the service's own, made when it is
// not there.
func (k *keyService) managed(alias string) (kmsKey, error) {
	key, err := k.find(alias)
	if err == nil {
		return key, nil
	}
	key, err = k.create("Default key that protects objects when no other key is defined", alias, true)
	if e := (*apiError)(nil); errors.As(err, &e) && e.Code == "AlreadyExistsException" {
		// Another request was faster.
		return k.find(alias)
	}
	return key, err
}

// edit changes one key.
func (k *keyService) edit(name string, change func(*kmsKey) error) (kmsKey, error) {
	found, err := k.find(name)
	if err != nil {
		return kmsKey{}, err
	}
	var out kmsKey
	err = k.change(func(keys map[string]kmsKey, _ map[string]string) error {
		key := keys[found.ID]
		if err := change(&key); err != nil {
			return err
		}
		keys[key.ID], out = key, key
		return nil
	})
	return out, err
}

// enable switches a key on or off.
func (k *keyService) enable(name string, on bool) error {
	_, err := k.edit(name, func(key *kmsKey) error {
		if err := k.changeable(*key); err != nil {
			return err
		}
		key.Enabled = on
		return nil
	})
	return err
}

// changeable refuses changes of keys that are about to end.
func (k *keyService) changeable(key kmsKey) error {
	if !key.Deletion.IsZero() {
		return fail("KMSInvalidStateException", "%s is pending deletion.", k.keyARN(key.ID))
	}
	return nil
}

// rotate gives a key new material; what is sealed under the old stays readable.
func (k *keyService) rotate(name string) error {
	_, err := k.edit(name, func(key *kmsKey) error {
		if err := k.changeable(*key); err != nil {
			return err
		}
		if !key.Enabled {
			return fail("DisabledException", "%s is disabled.", k.keyARN(key.ID))
		}
		key.Material = append(slices.Clone(key.Material), k.newMaterial(*key, len(key.Material)))
		return nil
	})
	return err
}

func materialID(key kmsKey, version int) string { return fmt.Sprintf("kms %s %d", key.ID, version) }

func (k *keyService) newMaterial(key kmsKey, version int) []byte {
	material := make([]byte, 32)
	rand.Read(material)
	return k.vault.root.wrap(material, materialID(key, version))
}

func (k *keyService) root(key kmsKey, version int) (*rootKey, error) {
	material, err := k.vault.root.unwrap(key.Material[version], materialID(key, version))
	if err != nil {
		return nil, err
	}
	return newRootKey(material)
}

// Ciphertext: a byte of format, the key's id, the version of its material in
// four bytes, and what rootKey.wrap makes.
const (
	blobFormat = 1
	blobHead   = 1 + 16 + 4
)

// contextText is the encryption context in a form in which no two contexts are
// alike: sorted by name, each name and value after its length.
func contextText(context map[string]string) string {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(context)) {
		for _, s := range []string{name, context[name]} {
			b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
			b = append(b, s...)
		}
	}
	return string(b)
}

// seal encrypts under the newest material of a key.
func (k *keyService) seal(name string, plain []byte, context map[string]string) (kmsKey, []byte, error) {
	key, err := k.usable(name)
	if err != nil {
		return kmsKey{}, nil, err
	}
	version := len(key.Material) - 1
	root, err := k.root(key, version)
	if err != nil {
		return kmsKey{}, nil, err
	}
	id, err := hex.DecodeString(strings.ReplaceAll(key.ID, "-", ""))
	if err != nil {
		return kmsKey{}, nil, err
	}
	blob := append([]byte{blobFormat}, id...)
	blob = binary.BigEndian.AppendUint32(blob, uint32(version))
	return key, append(blob, root.wrap(plain, string(blob)+contextText(context))...), nil
}

func errInvalidCiphertext() *apiError {
	return fail("InvalidCiphertextException", "The ciphertext is not valid, or the encryption context is not that of its encryption.")
}

// unseal decrypts what seal made under the same context; want, unless it is
// "", must name the key.
func (k *keyService) unseal(blob []byte, context map[string]string, want string) (kmsKey, []byte, error) {
	if len(blob) < blobHead || blob[0] != blobFormat {
		return kmsKey{}, nil, errInvalidCiphertext()
	}
	if want != "" {
		key, err := k.find(want)
		if err != nil {
			return kmsKey{}, nil, err
		}
		if key.ID != keyIDText(blob[1:17]) {
			return kmsKey{}, nil, fail("IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
		}
	}
	key, err := k.usable(keyIDText(blob[1:17]))
	if err != nil {
		return kmsKey{}, nil, err
	}
	version := binary.BigEndian.Uint32(blob[17:blobHead])
	if int64(version) >= int64(len(key.Material)) {
		return kmsKey{}, nil, errInvalidCiphertext()
	}
	root, err := k.root(key, int(version))
	if err != nil {
		return kmsKey{}, nil, err
	}
	plain, err := root.unwrap(blob[blobHead:], string(blob[:blobHead])+contextText(context))
	if err != nil {
		return kmsKey{}, nil, errInvalidCiphertext()
	}
	return key, plain, nil
}
