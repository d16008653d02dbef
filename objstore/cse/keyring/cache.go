package keyring

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"coffer/objstore/cse/message"
)

const (
	// maxAge is how long a data key is used without asking its keys again.
	maxAge = time.Hour
	// maxMessages is how many messages an Envelope serves for. Whoever gets
	// hold of one data key reads that many.
	maxMessages = 1 << 16
	// maxOpened is how many data keys of messages that were read are
	// remembered. One serves for all files that were written with it.
	maxOpened = 4096
)

// Cache asks a Ring seldom: under one data key there may be many messages,
// since their IDs make the keys that seal them different. A million files are
// written with 16 operations of RSA or a KMS, and read with as many.
//
// Safe for concurrent use. Callers that need the same data key at the same
// time wait for one operation.
type Cache struct {
	ring *Ring
	// turn has room for one: whoever puts something in may wrap. It is no
	// mutex, so that waiting ends with a context.
	turn chan struct{}

	mu      sync.Mutex
	current issued                   // guarded by mu
	opened  map[digest]*list.Element // guarded by mu: of *opened
	recent  *list.List               // guarded by mu: the same, used latest first
	flights map[digest]chan struct{} // guarded by mu: closed when the operation has ended
}

// digest names what is to be unwrapped.
type digest [sha256.Size]byte

// issued is the Envelope for new messages.
type issued struct {
	Envelope
	context  string // serialized, before padding
	since    time.Time
	messages int // 0: there is none
}

// opened is a data key that was unwrapped.
type opened struct {
	id    digest
	key   message.DataKey
	by    Key
	since time.Time
}

// NewCache returns an empty Cache.
func NewCache(r *Ring) *Cache {
	return &Cache{ring: r, turn: make(chan struct{}, 1), opened: map[digest]*list.Element{}, recent: list.New(),
		flights: map[digest]chan struct{}{}}
}

// Wrap is Ring.Wrap, with an Envelope that may have served before: for an hour
// and 65,536 messages at most, and while c stays the same. Each message counts,
// so that a caller who begins one calls Wrap.
func (k *Cache) Wrap(ctx context.Context, c message.Context) (Envelope, error) {
	id := string(c.Append(nil))
	if e, ok := k.again(id); ok {
		return e, nil
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return Envelope{}, ctx.Err()
	}
	if e, ok := k.again(id); ok { // whoever had the turn before has asked
		return e, nil
	}
	now := time.Now()
	e, err := k.ring.Wrap(ctx, c)
	if err != nil {
		return Envelope{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current = issued{e, id, now, 1}
	return e, nil
}

// again returns the Envelope for one more message.
func (k *Cache) again(id string) (Envelope, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := &k.current
	if i.messages == 0 || i.messages >= maxMessages || i.context != id || time.Since(i.since) >= maxAge {
		*i = issued{}
		return Envelope{}, false
	}
	i.messages++
	return i.Envelope, true
}

// Unwrap is Ring.Unwrap, unless the same data keys were unwrapped within the
// last hour. Failures are not remembered.
func (k *Cache) Unwrap(ctx context.Context, s message.Suite, c message.Context, edks []message.EDK) (message.DataKey, Key, error) {
	id := digestOf(s, c, edks)
	for {
		o, flight, lead := k.look(id)
		if o != nil {
			return o.key, o.by, nil
		}
		if lead {
			return k.unwrap(ctx, id, flight, s, c, edks)
		}
		select {
		case <-flight: // look again: it may have failed for a reason of its own
		case <-ctx.Done():
			return message.DataKey{}, nil, ctx.Err()
		}
	}
}

// look returns the data key, or else the operation that unwraps it, which the
// caller leads if nobody else does.
func (k *Cache) look(id digest) (o *opened, flight chan struct{}, lead bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.opened[id]; e != nil {
		if o := e.Value.(*opened); time.Since(o.since) < maxAge {
			k.recent.MoveToFront(e)
			return o, nil, false
		}
		k.forget(e)
	}
	if flight = k.flights[id]; flight != nil {
		return nil, flight, false
	}
	flight = make(chan struct{})
	k.flights[id] = flight
	return nil, flight, true
}

// unwrap asks the Ring, and ends the flight.
func (k *Cache) unwrap(ctx context.Context, id digest, flight chan struct{}, s message.Suite, c message.Context, edks []message.EDK) (message.DataKey, Key, error) {
	now := time.Now()
	key, by, err := k.ring.Unwrap(ctx, s, c, edks)
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.flights, id)
	close(flight)
	if err != nil {
		return message.DataKey{}, nil, err
	}
	k.opened[id] = k.recent.PushFront(&opened{id, key, by, now})
	if k.recent.Len() > maxOpened {
		k.forget(k.recent.Back())
	}
	return key, by, nil
}

// forget removes a data key. The caller holds mu.
func (k *Cache) forget(e *list.Element) {
	delete(k.opened, k.recent.Remove(e).(*opened).id)
}

// digestOf is over all that decides which data key comes out. Every field has
// its length before it.
func digestOf(s message.Suite, c message.Context, edks []message.EDK) (d digest) {
	field := func(b, f []byte) []byte { return append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...) }
	b := field(binary.BigEndian.AppendUint16(nil, uint16(s)), c.Append(nil))
	for _, e := range edks {
		b = field(field(field(b, []byte(e.Provider)), []byte(e.Info)), e.Ciphertext)
	}
	return sha256.Sum256(b)
}
