package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"coffer/objstore"
)

// Budget is a number of bytes shared by blocks, windows and stages. It counts
// and owns no memory. Safe for concurrent use.
//
// There are two ways in. [Budget.Acquire] is for work that somebody waits for:
// it queues, first come first served, and may use every byte. Its caller must
// hold nothing of the budget that comes back only after the wait.
// [Budget.TryAcquire] is for work that can be left out: it never waits, keeps
// off the reserve, and fails while anybody queues.
type Budget struct {
	capacity, reserve int64
	// relieve is asked, without a lock, whenever a caller has queued: idle
	// holders give back what they can.
	relieve func()

	queued atomic.Int32 // len(queue), readable without mu

	mu    sync.Mutex
	used  int64     // guarded by mu
	queue []*waiter // guarded by mu; first come first served
}

type waiter struct {
	n     int64
	ready chan struct{} // closed under Budget.mu when the bytes are granted
}

// NewBudget returns a budget of capacity bytes, of which the last reserve
// bytes are for Acquire only. relieve may be nil.
func NewBudget(capacity, reserve int64, relieve func()) *Budget {
	return &Budget{capacity: capacity, reserve: reserve, relieve: relieve}
}

// Acquire takes n bytes, waiting until they are free or ctx ends. An amount
// beyond the whole budget is an error of kind TooLarge at once.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	if n > b.capacity {
		return &objstore.Error{Op: "reserve memory", Kind: objstore.TooLarge, Err: fmt.Errorf("%d bytes of a budget of %d", n, b.capacity)}
	}
	b.mu.Lock()
	if len(b.queue) == 0 && b.used+n <= b.capacity {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.queue = append(b.queue, w)
	b.queued.Store(int32(len(b.queue)))
	b.mu.Unlock()

	// After queueing, so that a holder that comes too late for this call sees
	// Contended and does not begin to hold.
	if b.relieve != nil {
		b.relieve()
	}
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready: // granted while we gave up: give it back
		b.used -= n
	default:
		for i, q := range b.queue {
			if q == w {
				b.queue = append(b.queue[:i], b.queue[i+1:]...)
				break
			}
		}
	}
	b.grant()
	return canceled("reserve memory", "", ctx)
}

// tryDemand takes n bytes when they are free at once and nobody queues.
func (b *Budget) tryDemand(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 || b.used+n > b.capacity {
		return false
	}
	b.used += n
	return true
}

// TryAcquire takes n bytes when they are free beyond the reserve and nobody
// queues. It never waits.
func (b *Budget) TryAcquire(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 || b.used+n > b.capacity-b.reserve {
		return false
	}
	b.used += n
	return true
}

// Release gives n bytes back.
func (b *Budget) Release(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.used < 0 {
		panic("cache: budget released more than was acquired")
	}
	b.grant()
}

// grant serves the queue from its front. It stops at the first that does not
// fit, so that large requests are not overtaken for ever. Called under mu.
func (b *Budget) grant() {
	for len(b.queue) > 0 && b.used+b.queue[0].n <= b.capacity {
		w := b.queue[0]
		b.queue[0] = nil
		b.queue = b.queue[1:]
		b.used += w.n
		close(w.ready)
	}
	b.queued.Store(int32(len(b.queue)))
}

// Contended reports whether somebody queues: holders of idle memory give it
// back, and do not begin to hold.
func (b *Budget) Contended() bool { return b.queued.Load() > 0 }

// Used returns the bytes that are taken.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Capacity returns the bytes that there are.
func (b *Budget) Capacity() int64 { return b.capacity }
