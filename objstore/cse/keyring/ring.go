package keyring

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// maxAttempts is how many data keys of one header are tried: each may cost
// milliseconds or a request, and whoever wrote the object chose their number.
const maxAttempts = 16

// Member is a key of a Ring.
type Member struct {
	Key Key
	// DecryptOnly keeps an old key for reading.
	DecryptOnly bool
}

// Ring is the keys of a user, in the order in which they are tried. Safe for
// concurrent use.
type Ring struct {
	members []Member
	writers []Key
	// authentic: only keys that authenticate unwrap.
	authentic bool
}

// New returns a Ring of at least one key.
func New(members ...Member) (*Ring, error) {
	if len(members) == 0 {
		return nil, invalid("a keyring needs a key")
	}
	r := &Ring{members: members}
	for _, m := range members {
		if m.DecryptOnly {
			continue
		}
		if err := m.Key.CanWrap(); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Key, err)
		}
		r.writers = append(r.writers, m.Key)
	}
	return r, nil
}

// Members are the keys of the Ring, in the order in which they are tried.
func (r *Ring) Members() []Member { return slices.Clone(r.members) }

// Authentic returns a Ring that unwraps by those keys only that authenticate. It fails
// where what it wraps it would not unwrap.
func (r *Ring) Authentic() (*Ring, error) {
	need := r.writers
	if len(need) == 0 {
		for _, m := range r.members {
			need = append(need, m.Key)
		}
	}
	if !slices.ContainsFunc(need, Key.Authenticates) {
		return nil, fmt.Errorf("%s: %s", need[0], unauthentic(need[0]))
	}
	strict := *r
	strict.authentic = true
	return &strict, nil
}

// refuse returns why the Ring does not unwrap by this key, nil if it does.
func (r *Ring) refuse(k Key) error {
	if !r.authentic || k.Authenticates() {
		return nil
	}
	return &objstore.Error{Op: "unwrap a data key", Kind: objstore.Integrity, Err: errors.New(unauthentic(k))}
}

// unauthentic says why k does not authenticate.
func unauthentic(k Key) string {
	if v, ok := k.(*VolumeKey); ok {
		return "whoever has the public key of a recipient can make such a file, and the keyring does not tell id: " + v.name
	}
	return "whoever has its public key can write under it"
}

// ID tells rings apart, by keys and by what they are used for, in 16 hex digits. It
// tells nothing else of the keys.
func (r *Ring) ID() string {
	d := sha256.New()
	for _, m := range r.members {
		fmt.Fprintf(d, "%q %x %v\n", m.Key, m.Key.Fingerprint(), m.DecryptOnly)
	}
	if r.authentic { // what was read without that is not taken from a cache
		fmt.Fprintln(d, "authentic")
	}
	return hex.EncodeToString(d.Sum(nil)[:8])
}

// WrapsByKMS reports whether new data keys are wrapped by a KMS.
func (r *Ring) WrapsByKMS() bool { return slices.ContainsFunc(r.writers, ByKMS) }

// ByKMS reports whether k is a key of a KMS.
func ByKMS(k Key) bool {
	_, ok := k.(*AWSKMS)
	return ok
}

// Envelope is what a new message begins with; see [message.NewSealer].
type Envelope struct {
	Key     message.DataKey
	Context message.Context
	EDKs    []message.EDK
}

// Wrap makes a data key and wraps it under every key of the Ring that is not
// for decryption only. The header of a message with this Envelope is a
// multiple of [message.HeaderUnit]: by an entry added to c, or by one more EDK
// where the lengths of the others are known only afterwards. An Envelope may
// serve for many messages.
func (r *Ring) Wrap(ctx context.Context, c message.Context) (Envelope, error) {
	if len(r.writers) == 0 {
		return Envelope{}, invalid("every key of the keyring is for decryption only")
	}
	e := Envelope{Key: message.GenerateDataKey(message.Committed), Context: c}
	n, known := r.edkBytes()
	if known {
		var err error
		if e.Context, err = message.PadContext(c, n); err != nil {
			return Envelope{}, err
		}
	}
	for _, k := range r.writers {
		edk, err := k.Wrap(ctx, e.Key, e.Context)
		if err != nil {
			return Envelope{}, fmt.Errorf("%s: %w", k, err)
		}
		e.EDKs = append(e.EDKs, edk)
	}
	if !known {
		e.EDKs = message.PadEDKs(e.Context, e.EDKs)
	}
	return e, nil
}

// HeaderBytes is the length of the header of a new message with the context c, where it
// is known before: a KMS decides by itself how long its ciphertext is.
func (r *Ring) HeaderBytes(c message.Context) (n int64, known bool) {
	edks, known := r.edkBytes()
	if !known || len(r.writers) == 0 {
		return 0, false
	}
	n, err := message.PaddedHeader(c, edks)
	return n, err == nil
}

// edkBytes is the length of all data keys in a header.
func (r *Ring) edkBytes() (n int, known bool) {
	for _, k := range r.writers {
		if k.EDKBytes() == 0 {
			return 0, false
		}
		n += k.EDKBytes()
	}
	return n, true
}

// Unwrap returns the data key of a message, and the key that unwrapped it.
// c is the encryption context with all that is required. The error is a
// [*NoKeyError] unless ctx has ended.
func (r *Ring) Unwrap(ctx context.Context, s message.Suite, c message.Context, edks []message.EDK) (message.DataKey, Key, error) {
	failed, attempts := []error(nil), 0
	for _, m := range r.members {
		for _, e := range edks {
			if !m.Key.Matches(e) {
				continue
			}
			if attempts++; attempts > maxAttempts {
				failed = append(failed, fmt.Errorf("%d data keys were tried, there may be more", maxAttempts))
				return message.DataKey{}, nil, noKey(edks, failed)
			}
			if err := r.refuse(m.Key); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", m.Key, err))
				break
			}
			key, err := m.Key.Unwrap(ctx, s, c, e)
			if err == nil && len(key.Bytes()) != s.KeyBytes() {
				err = fmt.Errorf("a data key of %d bytes, suite %s takes %d", len(key.Bytes()), s, s.KeyBytes())
			}
			if err == nil {
				return key, m.Key, nil
			}
			if ctx.Err() != nil {
				return message.DataKey{}, nil, ctx.Err()
			}
			failed = append(failed, fmt.Errorf("%s: %w", m.Key, err))
		}
	}
	return message.DataKey{}, nil, noKey(edks, failed)
}

// noKey names a few of the keys: there can be hundreds.
func noKey(edks []message.EDK, failed []error) error {
	const most = 4
	e := &NoKeyError{Failed: failed}
	for i, edk := range edks {
		if i == most {
			e.Needed = append(e.Needed, fmt.Sprintf("and %d more", len(edks)-most))
			break
		}
		e.Needed = append(e.Needed, describe(edk))
	}
	return e
}
