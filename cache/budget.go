package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"coffer/objstore"
)

// Budget is a number of bytes shared by blocks, windows and stages. It counts
// and owns no memory. Safe for concurrent use.
//
// There are three ways in. [Budget.Acquire] is for work that somebody waits
// for: it queues, first come first served, and may use every byte. Its caller
// must hold nothing of the budget that comes back only after the wait.
// [Budget.TryAcquire] is for work that can be left out and memory that comes
// back by itself or when somebody queues: it never waits, keeps off the
// reserve, and fails while anybody queues. [Budget.TryHold] is the same for
// memory that may stay in use for long; all of it together is limited, so that
// it cannot, with the cached blocks, use up everything.
type Budget struct {
	capacity, reserve, holdLimit int64
	// relieve is asked, without a lock, whenever a caller has queued: holders
	// give back what is idle. All that they can is asked for at every patience
	// that it waits.
	relieve func(all bool)

	queued atomic.Int32 // len(queue), readable without mu

	mu    sync.Mutex
	used  int64     // guarded by mu; held included
	held  int64     // guarded by mu; by TryHold
	queue []*waiter // guarded by mu; first come first served
}

// patience is how long a caller waits for memory that comes back by itself, from
// readers that go on and fetches that end.
const patience = 100 * time.Millisecond

type waiter struct {
	n     int64
	ready chan struct{} // closed under Budget.mu when the bytes are granted
}

// NewBudget returns a budget of capacity bytes. The last reserve bytes are for
// Acquire only, TryHold gives away no more than hold bytes. relieve may be nil.
func NewBudget(capacity, reserve, hold int64, relieve func(all bool)) *Budget {
	if relieve == nil {
		relieve = func(bool) {}
	}
	return &Budget{capacity: capacity, reserve: reserve, holdLimit: hold, relieve: relieve}
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
	b.relieve(false)
	late := time.NewTicker(patience)
	defer late.Stop()
	for ctx.Err() == nil {
		select {
		case <-w.ready:
			return nil
		case <-late.C:
			b.relieve(true)
		case <-ctx.Done():
		}
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

// TryHold takes n bytes for long when they are free beyond the reserve, the
// limit for such memory allows it, and nobody queues. It never waits. The
// bytes go back by [Budget.ReleaseHeld].
func (b *Budget) TryHold(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) > 0 || b.used+n > b.capacity-b.reserve || b.held+n > b.holdLimit {
		return false
	}
	b.used += n
	b.held += n
	return true
}

// ReleaseHeld gives n bytes of TryHold back.
func (b *Budget) ReleaseHeld(n int64) {
	b.mu.Lock()
	b.held -= n
	if b.held < 0 {
		b.mu.Unlock()
		panic("cache: budget released more than was held")
	}
	b.mu.Unlock()
	b.Release(n)
}

// Release gives n bytes of Acquire or TryAcquire back.
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
