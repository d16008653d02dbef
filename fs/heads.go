package fs

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"coffer/cache"
	"coffer/objstore"
)

const (
	// headsRemembered is how many HEAD results are kept, at some 300 bytes
	// each, see BenchmarkKeptHeads: 80 MB when full. The half of it, which is
	// sure to be kept, is a directory of 100,000 files and more.
	headsRemembered = 256 << 10
	// commonMax is how many texts are kept that are common to many of them.
	commonMax = 1000
	// headsInFlight bounds the HEADs that run ahead of a reader of a directory.
	headsInFlight = 64
)

// heads remembers what HEAD said of object versions. A result belongs to one
// version (key, ETag, LastModified, size), so it never goes stale: a listing
// that shows another version simply does not match it.
type heads struct {
	flights singleflight.Group
	ahead   *semaphore.Weighted
	most    int // results that are kept

	mu sync.Mutex
	// Two generations make a cheap approximation of LRU: what is used moves
	// to the young one, and when that is half full the old one is dropped.
	young, old map[headKey]keptHead
	common     map[string]string
}

type headKey struct{ bucket, key string }

func newHeads() *heads {
	return &heads{
		ahead:  semaphore.NewWeighted(headsInFlight),
		most:   headsRemembered,
		young:  map[headKey]keptHead{},
		common: map[string]string{},
	}
}

// sameVersion reports whether a listing's entry and a HEAD result speak of
// the same version. LIST has milliseconds where HEAD has seconds.
func sameVersion(e objstore.Entry, o objstore.Object) bool {
	return e.ETag == o.ETag && e.StoredSize == o.StoredSize &&
		e.LastModified.Truncate(time.Second).Equal(o.LastModified.Truncate(time.Second))
}

// recall returns the remembered HEAD of the version that e names.
func (h *heads) recall(bucket string, e objstore.Entry) (objstore.Object, bool) {
	k := headKey{bucket, e.Key}
	h.mu.Lock()
	kept, ok := h.young[k]
	if !ok {
		if kept, ok = h.old[k]; ok {
			h.putLocked(k, kept)
		}
	}
	h.mu.Unlock()
	if !ok {
		return objstore.Object{}, false
	}
	o := kept.object(e.Key)
	return o, sameVersion(e, o)
}

// forget drops what is known and being asked of key, after an own change.
func (h *heads) forget(bucket, key string) {
	h.flights.Forget(flight(bucket, key))
	h.outdate(bucket, key)
}

// outdate drops what is known of key: whoever asks next asks the store.
func (h *heads) outdate(bucket, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.young, headKey{bucket, key})
	delete(h.old, headKey{bucket, key})
}

// remember keeps o for recall.
func (h *heads) remember(bucket string, o objstore.Object) {
	kept := keepHead(o)
	h.mu.Lock()
	defer h.mu.Unlock()
	if common, ok := h.common[kept.common]; ok {
		kept.common = common
	} else {
		if len(h.common) >= commonMax {
			clear(h.common) // they are not common
		}
		h.common[kept.common] = kept.common
	}
	h.putLocked(headKey{bucket, o.Key}, kept)
}

func (h *heads) putLocked(k headKey, kept keptHead) {
	if len(h.young) >= h.most/2 {
		h.old, h.young = h.young, map[headKey]keptHead{}
	}
	h.young[k] = kept
}

// ask sends a HEAD for the current version of key, once for all who ask at
// the same time, and remembers the answer.
func (h *heads) ask(ctx context.Context, b objstore.Bucket, key string) (objstore.Object, error) {
	return h.once(ctx, b, key, h.head)
}

// askWhole asks for the bytes of a small file as well, which go to c. They are given
// up when mount ends.
func (h *heads) askWhole(ctx, mount context.Context, b objstore.Bucket, key string, c *cache.Cache) (objstore.Object, error) {
	return h.once(ctx, b, key, func(ctx context.Context, b objstore.Bucket, key string) (objstore.Object, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(mount, cancel)()
		return h.whole(ctx, b, key, c)
	})
}

// once asks a question about key, or waits for the answer to another's.
func (h *heads) once(ctx context.Context, b objstore.Bucket, key string, question func(context.Context, objstore.Bucket, string) (objstore.Object, error)) (objstore.Object, error) {
	result := h.flights.DoChan(flight(b.Name(), key), func() (any, error) {
		// Detached: one caller that gives up must not fail the others.
		return question(context.WithoutCancel(ctx), b, key)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return objstore.Object{}, r.Err
		}
		return r.Val.(objstore.Object), nil
	case <-ctx.Done():
		return objstore.Object{}, ctx.Err()
	}
}

func flight(bucket, key string) string { return bucket + "\x00" + key }

// head asks the store and remembers the answer.
func (h *heads) head(ctx context.Context, b objstore.Bucket, key string) (objstore.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	o, err := b.Head(ctx, objstore.Ref{Key: key})
	if err == nil {
		h.remember(b.Name(), o)
	}
	return o, err
}

// whole fetches an object, for c if it is small, and remembers what the reply says
// of it. Who may not read it is told its attributes all the same.
func (h *heads) whole(ctx context.Context, b objstore.Bucket, key string, c *cache.Cache) (objstore.Object, error) {
	gctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	body, o, err := b.Get(gctx, objstore.Ref{Key: key}, objstore.GetOptions{})
	if err != nil {
		return h.head(ctx, b, key)
	}
	defer body.Close()
	if o.Size <= wholeMax {
		_ = c.Fill(o.Ref(b.Name()), o, body) // who reads the file is told
	}
	h.remember(b.Name(), o)
	return o, nil
}

// askAhead starts a HEAD for e unless it is remembered. It reports false when too
// many are under way. wg counts it until ctx ends.
func (h *heads) askAhead(ctx context.Context, wg *sync.WaitGroup, b objstore.Bucket, e objstore.Entry) bool {
	if _, ok := h.recall(b.Name(), e); ok {
		return true
	}
	if !h.ahead.TryAcquire(1) {
		return false
	}
	wg.Go(func() {
		defer h.ahead.Release(1)
		// ctx ends with the mount, and so do those who wait for the same. A
		// failure shows when somebody looks the name up.
		_, _, _ = h.flights.Do(flight(b.Name(), e.Key), func() (any, error) { return h.head(ctx, b, e.Key) })
	})
	return true
}

// readAhead finds out when the files of a listing are looked up one after the
// other, and which HEADs to send before they are asked for:
//
//	order   a b c d e f g h i j ...
//	            ^last     ^sent
//
// A second look-up in a row opens a window of headsInFlight names, which
// moves with the look-ups; one out of order sends nothing.
type readAhead struct {
	order []string
	last  int // position of the last look-up, plus 1
	sent  int // everything before this was sent or looked up
}

// add appends a file of the listing and returns its position.
func (r *readAhead) add(name string) int {
	r.order = append(r.order, name)
	return len(r.order) - 1
}

// lookedUp notes a look-up and returns the names of those to ask for now.
func (r *readAhead) lookedUp(pos int) []string {
	inOrder := pos == r.last && pos > 0
	r.last = pos + 1
	if !inOrder {
		return nil
	}
	from, to := max(r.sent, pos+1), min(pos+1+headsInFlight, len(r.order))
	if from >= to {
		return nil
	}
	r.sent = to
	return r.order[from:to:to]
}
