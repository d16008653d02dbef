package cse

import (
	"context"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

const (
	// formsRemembered is of how many objects it is remembered what they are, at some
	// 200 bytes each.
	formsRemembered = 64 << 10
	// openedBytes is what objects that were opened may take: 8,192 of the usual ones, or
	// the sums of half a TiB of those that are verified as a whole.
	openedBytes = 16 << 20
)

// store is a store whose objects are messages.
type store struct {
	objstore.Store
	id      string // see Identity
	cfg     Config
	keys    *keyring.Cache
	mode    objstore.Mode   // of new messages
	own     message.Profile // of new messages, as far as it is known before
	forms   *lru.Cache[objstore.Ref, form]
	opened  *sized[objstore.Ref, *opened]
	missing *missing
	opening singleflight.Group
	warned  *lru.Cache[string, struct{}]
	counts  *counters
}

// warnOnce logs what would be said again and again.
func (s *store) warnOnce(what, text string, args ...any) {
	if said, _ := s.warned.ContainsOrAdd(what, struct{}{}); !said {
		s.cfg.Logger.Warn(text, args...)
	}
}

// Wrap returns inner with objects that are encrypted here. The result is an
// [objstore.Uploads] where inner is one; inner stays the caller's to close.
func Wrap(inner objstore.Store, cfg Config) (objstore.Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s, err := newStore(inner, cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	if u, ok := inner.(objstore.Uploads); ok {
		return struct {
			*store
			objstore.Uploads
		}{s, u}, nil
	}
	return s, nil
}

// newStore returns a store that has seen nothing.
func newStore(inner objstore.Store, cfg Config) (*store, error) {
	s := &store{Store: inner, cfg: cfg, keys: keyring.NewCache(cfg.Keyring), mode: modeOf(cfg.Keyring.WrapsByKMS()), own: cfg.ownProfile(), counts: &counters{}}
	s.id = inner.Identity() + "+cse:" + cfg.Keyring.ID()
	var err error
	if s.forms, err = lru.New[objstore.Ref, form](formsRemembered); err != nil {
		return nil, err
	}
	if s.opened, err = newSized[objstore.Ref](openedBytes, (*opened).bytes); err != nil {
		return nil, err
	}
	if s.missing, err = newMissing(); err != nil {
		return nil, err
	}
	if s.warned, err = lru.New[string, struct{}](1 << 10); err != nil {
		return nil, err
	}
	return s, nil
}

// Unseen returns the store as one that knows of no object yet and verifies every
// signature: all that its reads tell comes from the store inside, and nothing that s
// remembers is forgotten for it. Both count and log as one.
func (s *store) Unseen() (objstore.Store, error) {
	cfg := s.cfg
	cfg.Signed, cfg.Sizes = SignedStrict, nil
	other, err := newStore(s.Store, cfg)
	if err != nil {
		return nil, err
	}
	other.counts, other.warned = s.counts, s.warned
	return other, nil
}

// Identity differs from that of the store inside, and with the keyring: what was
// decrypted under other keys is not to be had from a cache.
func (s *store) Identity() string { return s.id }

// Open implements objstore.Store.
func (s *store) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	b, err := s.Store.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &bucket{Bucket: b, s: s}, nil
}

// CreateBucket implements objstore.Store. The bucket need not encrypt by itself.
func (s *store) CreateBucket(ctx context.Context, name string, opts objstore.CreateBucketOptions) (objstore.Encryption, error) {
	opts.AllowUnencrypted = true
	enc, err := s.Store.CreateBucket(ctx, name, opts)
	if err != nil {
		return enc, err
	}
	return s.protects(enc), nil
}

// protects adds how a new object is encrypted here.
func (s *store) protects(enc objstore.Encryption) objstore.Encryption {
	enc.CSE, enc.CSEMode = form{suite: message.Committed, profile: message.Own}.cseText(), s.mode
	return enc
}
