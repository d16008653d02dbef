package fs

import (
	"context"
	"maps"
	"sync"
	"time"

	"coffer/objstore"
)

// With Config.UnlinkBatched the objects of unlinked files are deleted many at
// a time. Whoever needs to know that they are gone (rmdir, fsync of the
// directory, the next user of the name, the end of the mount) has the batch sent
// and waits.
const (
	batchTime = 100 * time.Millisecond
	batchMost = 1000 // what one DeleteObjects takes
)

// unlinks are the batches of a mount.
type unlinks struct {
	mu      sync.Mutex
	batches map[objstore.Bucket]*unlinkBatch // those that were not sent
}

type unlinkBatch struct {
	items []pendingUnlink
	timer *time.Timer
	sent  chan struct{} // closed when the store has answered
}

// pendingUnlink is a name that is hidden, whose object is to be deleted. Its
// directory cannot be renamed before.
type pendingUnlink struct {
	d     *dir
	nm    string
	leave func() // the gate
}

// deleteLater takes over the deletion of the object under a hidden name, and
// leave, the caller's way out of the gate.
func (d *dir) deleteLater(nm string, leave func()) {
	d.mu.Lock()
	d.unlinked[nm].deleting = make(chan struct{})
	d.mu.Unlock()
	f := d.fsys
	f.unlinks.mu.Lock()
	if f.unlinks.batches == nil {
		f.unlinks.batches = map[objstore.Bucket]*unlinkBatch{}
	}
	b := f.unlinks.batches[d.bucket]
	if b == nil {
		b = &unlinkBatch{sent: make(chan struct{})}
		f.unlinks.batches[d.bucket] = b
		f.background.Add(1)
		b.timer = time.AfterFunc(batchTime, func() {
			defer f.background.Done()
			defer close(b.sent)
			f.sendUnlinks(d.bucket, b)
		})
	}
	b.items = append(b.items, pendingUnlink{d, nm, leave})
	full := len(b.items) == batchMost
	f.unlinks.mu.Unlock()
	if full {
		f.hurryUnlinks(d.bucket)
	}
}

// hurryUnlinks has the batch of a bucket sent now.
func (f *filesystem) hurryUnlinks(bucket objstore.Bucket) {
	f.unlinks.mu.Lock()
	defer f.unlinks.mu.Unlock()
	if b := f.unlinks.batches[bucket]; b != nil && b.timer.Stop() {
		b.timer.Reset(0)
		delete(f.unlinks.batches, bucket)
	}
}

// settleAllUnlinks waits until the batches that there are were sent.
func (f *filesystem) settleAllUnlinks(ctx context.Context) {
	f.unlinks.mu.Lock()
	batches := maps.Clone(f.unlinks.batches)
	f.unlinks.mu.Unlock()
	for bucket, b := range batches {
		f.hurryUnlinks(bucket)
		select {
		case <-b.sent:
		case <-ctx.Done():
			return
		}
	}
}

// sendUnlinks deletes the objects of a batch. A name whose object stays shows
// again.
func (f *filesystem) sendUnlinks(bucket objstore.Bucket, b *unlinkBatch) {
	f.unlinks.mu.Lock()
	if f.unlinks.batches[bucket] == b {
		delete(f.unlinks.batches, bucket)
	}
	items := b.items
	f.unlinks.mu.Unlock()
	refs := make([]objstore.Ref, len(items))
	for i, it := range items {
		refs[i].Key = it.d.prefix() + it.nm
	}
	errs := bucket.Delete(context.Background(), refs...)
	for i, it := range items {
		it.d.mu.Lock()
		u := it.d.unlinked[it.nm]
		delete(it.d.unlinked, it.nm)
		if errs[i] != nil {
			it.d.unlinkFailed = errs[i]
		}
		it.d.mu.Unlock()
		it.d.didChange(it.nm)
		if errs[i] != nil {
			f.errno("unlink", path(bucket, refs[i].Key), errs[i])
			f.addLost(errs[i])
		}
		close(u.deleting)
		it.leave()
	}
}

// settleUnlinks waits until no DELETE of a name in d is to come, and returns
// what has become of the last that failed since the last time.
func (d *dir) settleUnlinks(ctx context.Context) error {
	for {
		d.mu.Lock()
		var under chan struct{}
		for _, u := range d.unlinked {
			if u.deleting != nil {
				under = u.deleting
				break
			}
		}
		err := d.unlinkFailed
		if under == nil {
			d.unlinkFailed = nil
		}
		d.mu.Unlock()
		if under == nil {
			return err
		}
		d.fsys.hurryUnlinks(d.bucket)
		select {
		case <-under:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
