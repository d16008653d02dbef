package s3store

import (
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"coffer/objstore"
)

// customerKeySize is the length in bytes of an SSE-C key: AES-256 is the only
// algorithm.
const customerKeySize = 32

// CustomerKey is a key of SSE-C: the store encrypts with it and forgets it. It
// prints, logs and marshals as its MD5 only, whatever the verb and however
// deep it lies in what is printed. The zero value is no key.
type CustomerKey struct {
	// Package fmt cannot call our methods in an unexported field of somebody's
	// struct. It follows one pointer there, for a verb that does not fit, and
	// never two.
	secret **customerSecret
}

type customerSecret struct {
	raw [customerKeySize]byte
	md5 string // base64, as in the header
}

// NewCustomerKey copies raw, which must be 32 bytes. The caller may then
// overwrite it.
func NewCustomerKey(raw []byte) (CustomerKey, error) {
	if len(raw) != customerKeySize {
		return CustomerKey{}, fmt.Errorf("a customer key has %d bytes and not %d", customerKeySize, len(raw))
	}
	s := &customerSecret{}
	copy(s.raw[:], raw)
	sum := md5.Sum(raw)
	s.md5 = base64.StdEncoding.EncodeToString(sum[:])
	return CustomerKey{&s}, nil
}

// MD5 returns the base64 MD5 of the key, which names it in requests, replies
// and [objstore.Encryption]; "" for the zero value.
func (k CustomerKey) MD5() string {
	if k.secret == nil {
		return ""
	}
	return (*k.secret).md5
}

// String returns the MD5 and never the key.
func (k CustomerKey) String() string { return "customer key with MD5 " + k.MD5() }

// GoString is String.
func (k CustomerKey) GoString() string { return k.String() }

// Format writes String for every verb.
func (k CustomerKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue is String for package slog.
func (k CustomerKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is String, for JSON and everything else that knows it.
func (k CustomerKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// maxRemembered bounds the objects whose key is remembered: some 200 bytes
// each. A forgotten one costs a refused request.
const maxRemembered = 1 << 16

// keyring holds the customer keys and remembers which object needs which.
type keyring struct {
	keys []CustomerKey // the first is for writing

	mu    sync.Mutex
	known map[objectID]keyChoice
}

// objectID names an object, or one version of it.
type objectID struct{ bucket, key, version string }

// keyChoice is the key that a version needed: its MD5, "" for none.
type keyChoice struct {
	etag objstore.ETag
	md5  string
}

func newKeyring(keys []CustomerKey) *keyring {
	return &keyring{keys: keys, known: map[objectID]keyChoice{}}
}

// empty reports whether there is no key, and so nothing to choose.
func (r *keyring) empty() bool { return len(r.keys) == 0 }

// find returns the key of that MD5, for "" the one for writing.
func (r *keyring) find(md5 string) (CustomerKey, bool) {
	for _, k := range r.keys {
		if md5 == "" || k.MD5() == md5 {
			return k, true
		}
	}
	return CustomerKey{}, false
}

// remember books what reading id has needed. Some other object is forgotten
// when there are too many.
func (r *keyring) remember(id objectID, c keyChoice) {
	if r.empty() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, have := r.known[id]; !have && len(r.known) >= maxRemembered {
		for other := range r.known {
			delete(r.known, other)
			break
		}
	}
	r.known[id] = c
}

// recall returns what was remembered of id. With an etag only that version
// counts; without, the last one is a good guess.
func (r *keyring) recall(id objectID, etag objstore.ETag) (md5 string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.known[id]
	if !ok || etag != "" && c.etag != etag {
		return "", false
	}
	return c.md5, true
}

// order returns the MD5s of the keys to try in turn, "" for no key: the
// favourite, then writing key and none, by what new objects get, then the
// older ones.
func (r *keyring) order(favourite string, chosen, byPolicy bool, policy string) []string {
	var out []string
	add := func(md5 string) {
		if !slices.Contains(out, md5) {
			out = append(out, md5)
		}
	}
	if chosen {
		add(favourite)
	}
	if byPolicy {
		add(policy)
	}
	add("")
	for _, k := range r.keys {
		add(k.MD5())
	}
	return out
}
