package cse

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// One data key serves for many messages, whose IDs keep their keys apart: a million
// small files need some sixteen operations of a KMS or an RSA key. What leaks with one
// data key is what was written under it.
const (
	dataKeyLife     = time.Hour
	dataKeyMessages = 1 << 16
	// unwrappedRemembered is how many data keys of others are remembered.
	unwrappedRemembered = 4 << 10
)

// dataKeys makes data keys for writers, and remembers those of readers.
type dataKeys struct {
	ring Keyring
	c    message.Context

	making singleflight.Group
	mu     sync.Mutex
	now    *keyring.Envelope // guarded by mu, with until and left
	until  time.Time
	left   int

	unwrapped *lru.Cache[[32]byte, message.DataKey]
	asking    singleflight.Group
}

func newDataKeys(ring Keyring, c message.Context) *dataKeys {
	unwrapped, err := lru.New[[32]byte, message.DataKey](unwrappedRemembered)
	if err != nil {
		panic(err) // its size is a constant
	}
	return &dataKeys{ring: ring, c: c, unwrapped: unwrapped}
}

// forMessage returns a data key for one more message.
func (k *dataKeys) forMessage(ctx context.Context) (*keyring.Envelope, error) {
	for {
		k.mu.Lock()
		if k.now != nil && k.left > 0 && time.Now().Before(k.until) {
			k.left--
			m := k.now
			k.mu.Unlock()
			return m, nil
		}
		k.mu.Unlock()
		made := k.making.DoChan("", func() (any, error) {
			// Detached: one caller that gives up must not fail the others.
			m, err := k.ring.Wrap(context.WithoutCancel(ctx), k.c)
			if err != nil {
				return nil, err
			}
			k.mu.Lock()
			k.now, k.until, k.left = &m, time.Now().Add(dataKeyLife), dataKeyMessages
			k.mu.Unlock()
			return nil, nil
		})
		select {
		case r := <-made:
			if r.Err != nil {
				return nil, r.Err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// of returns the data key of a message.
func (k *dataKeys) of(ctx context.Context, h *message.Header) (message.DataKey, error) {
	id := wrappedID(h)
	if u, ok := k.unwrapped.Get(id); ok {
		return u, nil
	}
	asked := k.asking.DoChan(string(id[:]), func() (any, error) {
		u, _, err := k.ring.Unwrap(context.WithoutCancel(ctx), h.Suite, h.Context, h.EDKs)
		if err == nil {
			k.unwrapped.Add(id, u)
		}
		return u, err
	})
	select {
	case r := <-asked:
		if r.Err != nil {
			return message.DataKey{}, r.Err
		}
		return r.Val.(message.DataKey), nil
	case <-ctx.Done():
		return message.DataKey{}, ctx.Err()
	}
}

// wrappedID is the identity of what a keyring is given: suite, context and EDKs.
func wrappedID(h *message.Header) [32]byte {
	d := sha256.New()
	field := func(p []byte) {
		d.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		d.Write(p)
	}
	d.Write(binary.BigEndian.AppendUint16(nil, uint16(h.Suite)))
	field(h.Context.Append(nil))
	for _, e := range h.EDKs {
		field([]byte(e.Provider))
		field([]byte(e.Info))
		field(e.Ciphertext)
	}
	return [32]byte(d.Sum(nil))
}
