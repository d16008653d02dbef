package keyring

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"coffer/objstore/cse/message"
)

// A volume key stands between objects and those who read them: data keys are wrapped
// under it, as under any raw AES key, and it is wrapped for each recipient in a small
// file. So recipients come and go, and no object changes; a header must not.

const (
	// volumeNamespace is that of volume keys in messages, where their ID is the name.
	volumeNamespace = "coffer-volume"
	// volumeKeyEntry sets what is wrapped in a volume key file apart from the data keys
	// of messages, and ties it to the ID.
	volumeKeyEntry = "coffer-volume-key"
	// What is derived of a volume key, besides being a key.
	volumeIDInfo  = "coffer volume key id"
	volumeMACInfo = "coffer volume key file"
	// idBytes is how much of a digest tells one from another.
	idBytes = 16
	// maxRecipients bounds what a reader goes through.
	maxRecipients = 256
)

// Recipient is a key that a volume key is wrapped for, with what the key wants to see
// in the encryption context.
type Recipient struct {
	Key     Key
	Context message.Context
}

// Volume is a volume key at hand, with its file. It is immutable.
type Volume struct {
	file VolumeFile
	key  message.DataKey
	by   Key // what opened it, nil where it was made here
}

// NewVolume makes a volume key for these recipients.
func NewVolume(ctx context.Context, recipients ...Recipient) (*Volume, error) {
	v := &Volume{key: message.GenerateDataKey(message.Committed)}
	v.file = VolumeFile{Format: volumeFormat, ID: v.id()}
	return v.Add(ctx, recipients...)
}

// Open returns the volume key by the first of the keys that unwraps it. The error is a
// [*NoKeyError] where none does, and of the kind [ErrInvalid] where the file is not as
// it was written by somebody who had the volume key.
func (f VolumeFile) Open(ctx context.Context, keys ...Key) (*Volume, error) {
	failed, attempts := []error(nil), 0
	// What a key opens that authenticates is nobody else's, whatever the others open.
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b Key) int { return authenticatesLast(a) - authenticatesLast(b) })
	for _, k := range keys {
		for _, r := range f.likelyFirst(k) {
			if !k.Matches(r.edk()) {
				continue
			}
			if attempts++; attempts > maxAttempts {
				failed = append(failed, fmt.Errorf("%d recipients were tried, there may be more", maxAttempts))
				return nil, noKey(f.edks(), failed)
			}
			v, err := f.openBy(ctx, k, r)
			if err == nil {
				return v.checked()
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			failed = append(failed, fmt.Errorf("%s: %w", k, err))
		}
	}
	return nil, noKey(f.edks(), failed)
}

func authenticatesLast(k Key) int {
	if k.Authenticates() {
		return 0
	}
	return 1
}

// likelyFirst is the recipients, those first that are said to be k: in a large group all
// may have the same name.
func (f VolumeFile) likelyFirst(k Key) []VolumeRecipient {
	all, own := slices.Clone(f.Recipients), Fingerprint(k)
	slices.SortStableFunc(all, func(a, b VolumeRecipient) int {
		switch {
		case a.Fingerprint == own && b.Fingerprint != own:
			return -1
		case a.Fingerprint != own && b.Fingerprint == own:
			return 1
		}
		return 0
	})
	return all
}

// openBy unwraps the key of one recipient, which is the volume key if it has its ID.
func (f VolumeFile) openBy(ctx context.Context, k Key, r VolumeRecipient) (*Volume, error) {
	c, err := r.wrapContext(f.ID)
	if err != nil {
		return nil, err
	}
	key, err := k.Unwrap(ctx, message.Committed, c, r.edk())
	if err != nil {
		return nil, err
	}
	if n := len(key.Bytes()); n != message.Committed.KeyBytes() {
		return nil, fmt.Errorf("it opens %d bytes, which are no volume key", n)
	}
	v := &Volume{file: f, key: key, by: k}
	if id := v.id(); id != f.ID {
		return nil, fmt.Errorf("it opens the volume key %s, and the file is of another", id)
	}
	return v, nil
}

// checked returns v if the MAC of its file is right.
func (v *Volume) checked() (*Volume, error) {
	if !hmac.Equal(v.file.MAC, v.mac(v.file)) {
		return nil, invalid("somebody has changed the volume key file who does not have the volume key")
	}
	return v, nil
}

// Add returns the volume with more recipients.
func (v *Volume) Add(ctx context.Context, recipients ...Recipient) (*Volume, error) {
	f := v.file
	f.Recipients = slices.Clone(f.Recipients)
	for _, to := range recipients {
		r, err := v.wrap(ctx, to)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", to.Key, err)
		}
		if slices.ContainsFunc(f.Recipients, r.same) {
			return nil, fmt.Errorf("%s is a recipient already", r.Key)
		}
		f.Recipients = append(f.Recipients, r)
	}
	return v.with(f)
}

// Remove returns the volume without a recipient, and the recipient: a fingerprint, or a
// name that only one of them has. Whoever has seen the volume key has it still.
func (v *Volume) Remove(name string) (*Volume, VolumeRecipient, error) {
	f, found := v.file, []int(nil)
	for i, r := range f.Recipients {
		if r.named(name) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 0:
		return nil, VolumeRecipient{}, fmt.Errorf("%q is no recipient", name)
	case len(found) > 1:
		return nil, VolumeRecipient{}, fmt.Errorf("%d recipients are called %q: the fingerprint tells them apart", len(found), name)
	case len(f.Recipients) == 1:
		return nil, VolumeRecipient{}, fmt.Errorf("%q is the last recipient: nobody could read the volume after that", name)
	}
	gone := f.Recipients[found[0]]
	f.Recipients = slices.Delete(slices.Clone(f.Recipients), found[0], found[0]+1)
	changed, err := v.with(f)
	return changed, gone, err
}

// with is the volume with another list of recipients, under a new MAC.
func (v *Volume) with(f VolumeFile) (*Volume, error) {
	f.MAC = v.mac(f)
	if err := f.validate(); err != nil {
		return nil, err
	}
	return &Volume{f, v.key, v.by}, nil
}

// File is what is written down.
func (v *Volume) File() VolumeFile { return v.file }

// wrap makes a recipient of a key.
func (v *Volume) wrap(ctx context.Context, to Recipient) (VolumeRecipient, error) {
	if err := to.Key.CanWrap(); err != nil {
		return VolumeRecipient{}, err
	}
	r := VolumeRecipient{Key: to.Key.String(), Fingerprint: Fingerprint(to.Key)}
	if to.Context.Len() > 0 {
		r.Context = pairs(to.Context)
	}
	c, err := r.wrapContext(v.file.ID)
	if err != nil {
		return VolumeRecipient{}, err
	}
	e, err := to.Key.Wrap(ctx, v.key, c)
	if err != nil {
		return VolumeRecipient{}, err
	}
	if e.Provider == kmsProvider { // the ARN, for an alias can come to mean another key
		r.Key, r.Fingerprint = kmsProvider+" "+e.Info, fingerprint([]byte(e.Info))
	}
	if !utf8.ValidString(r.Key) || !utf8.ValidString(e.Provider) {
		return VolumeRecipient{}, invalid("namespace or name is not UTF-8")
	}
	r.Provider, r.Info, r.Ciphertext = e.Provider, []byte(e.Info), e.Ciphertext
	return r, nil
}

// Fingerprint tells a key from others of its name in 32 hex digits, which show nothing
// secret.
func Fingerprint(k Key) string { return fingerprint(k.Fingerprint()) }

func fingerprint(mark []byte) string {
	sum := sha256.Sum256(mark)
	return hex.EncodeToString(sum[:idBytes])
}

func (r VolumeRecipient) edk() message.EDK {
	return message.EDK{Provider: r.Provider, Info: string(r.Info), Ciphertext: r.Ciphertext}
}

func (f VolumeFile) edks() (all []message.EDK) {
	for _, r := range f.Recipients {
		all = append(all, r.edk())
	}
	return all
}

// wrapContext is what the key is wrapped with.
func (r VolumeRecipient) wrapContext(id string) (message.Context, error) {
	own, err := message.NewContext(map[string]string{volumeKeyEntry: id})
	if err != nil {
		return own, err
	}
	c, err := message.NewContext(r.Context)
	if err != nil {
		return c, err
	}
	return own.Join(c)
}

// same reports whether both are one key.
func (r VolumeRecipient) same(other VolumeRecipient) bool {
	return r.Key == other.Key && r.Fingerprint == other.Fingerprint
}

// named reports whether a user who says name can mean r: "raw-rsa lab/alice",
// "lab/alice" or the fingerprint.
func (r VolumeRecipient) named(name string) bool {
	_, path, _ := strings.Cut(r.Key, " ")
	return name == r.Key || name == path || name == r.Fingerprint
}

// derive makes something else of the volume key. It is a random key of 256 bits, of
// which HKDF needs no extraction.
func (v *Volume) derive(info string, n int) []byte {
	p, err := hkdf.Expand(sha256.New, v.key.Bytes(), info, n)
	if err != nil {
		panic(err) // n is one of two constants
	}
	return p
}

// id is what the volume key is called: it cannot be given the name of another.
func (v *Volume) id() string { return hex.EncodeToString(v.derive(volumeIDInfo, idBytes)) }

// mac is over all of a file; see FORMAT.md.
func (v *Volume) mac(f VolumeFile) []byte {
	m := hmac.New(sha256.New, v.derive(volumeMACInfo, sha256.Size))
	field := func(p []byte) {
		m.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		m.Write(p)
	}
	field([]byte(f.Format))
	field([]byte(f.ID))
	for _, r := range f.Recipients {
		c, _ := message.NewContext(r.Context) // validate has seen it
		field([]byte(r.Key))
		field([]byte(r.Fingerprint))
		field(c.Append(nil))
		field([]byte(r.Provider))
		field(r.Info)
		field(r.Ciphertext)
	}
	return m.Sum(nil)
}
