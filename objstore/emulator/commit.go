package emulator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// commit makes v a version of its key if cond holds of the current one. It
// sets ID and Seq. On an error v's segments stay the caller's to remove.
func (b *bucket) commit(v *version, cond condition) error {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.gone {
		return errNoSuchBucket(b.name)
	}
	lock := b.keyLock(v.Key)
	defer lock.Unlock()
	current := b.latest(v.Key)
	if err := cond.check(v.Key, current); err != nil {
		return err
	}
	v.Seq = b.clock.next()
	v.ID = nullVersion
	if b.config().Versioning == "Enabled" {
		v.ID = newVersionID(v.Seq)
	}
	return b.store(v)
}

// newVersionID returns a version id. Its first half is the number that orders
// versions, so that a listing can go on behind a version that was deleted.
func newVersionID(seq int64) string {
	return fmt.Sprintf("%016x%s", seq, newID()[:16])
}

// store writes v's metadata and puts v into the index. The caller holds gate
// and the key's lock.
func (b *bucket) store(v *version) error {
	if err := b.vault.writeJSON(b.metaPath(v.Key, v.ID), v); err != nil {
		return err
	}
	b.mu.Lock()
	replaced := b.index.put(v)
	if v.Upload != "" {
		b.completed[v.Upload] = v
	}
	b.forget(replaced, v)
	b.mu.Unlock()
	if replaced != nil {
		b.discard(replaced, v)
	}
	return nil
}

// forget drops what finds a version that was removed; under mu.
func (b *bucket) forget(old, by *version) {
	if old != nil && old.Upload != "" && (by == nil || by.Upload != old.Upload) {
		delete(b.completed, old.Upload)
	}
}

// discard removes the files of a version that has left the index, once
// nobody reads it any more. by, which took its place, may have the same files:
// then only tags were changed.
func (b *bucket) discard(old, by *version) {
	if by != nil && len(old.Segments) > 0 && len(by.Segments) > 0 && old.Segments[0].ID == by.Segments[0].ID {
		return
	}
	if b.pins.doom(old.Segments) {
		b.vault.remove(b.dataDir(), old.Segments)
	}
}

// change replaces one version by another that set makes of it.
func (b *bucket) change(key, versionID string, set func(*version) error) (*version, error) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.gone {
		return nil, errNoSuchBucket(b.name)
	}
	lock := b.keyLock(key)
	defer lock.Unlock()
	v, err := b.lookup(key, versionID)
	if err != nil {
		return nil, err
	}
	changed := *v
	if err := set(&changed); err != nil {
		return nil, err
	}
	return &changed, b.store(&changed)
}

// deletion is the outcome of a delete.
type deletion struct {
	// versionID and marker are what the reply shows: the version that was
	// removed or the marker that was made, "" in a bucket without versions.
	versionID string
	marker    bool
}

// delete removes versionID of key for good, or, when it is "", the object as
// the bucket's versioning has it. Removing what is absent succeeds.
func (b *bucket) delete(key, versionID string, cond condition) (deletion, error) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.gone {
		return deletion{}, errNoSuchBucket(b.name)
	}
	lock := b.keyLock(key)
	defer lock.Unlock()
	current := b.latest(key)
	if versionID != "" {
		v := b.find(key, versionID)
		if err := cond.check(key, v); err != nil {
			return deletion{}, err
		}
		if v == nil {
			return deletion{versionID: versionID}, nil
		}
		return deletion{versionID: versionID, marker: v.DeleteMarker}, b.erase(v)
	}
	if err := cond.check(key, current); err != nil {
		return deletion{}, err
	}
	versioning := b.config().Versioning
	if versioning == "" {
		if current == nil {
			return deletion{}, nil
		}
		return deletion{}, b.erase(current)
	}
	marker := &version{Key: key, ID: nullVersion, Seq: b.clock.next(), DeleteMarker: true}
	if versioning == "Enabled" {
		marker.ID = newVersionID(marker.Seq)
	}
	return deletion{versionID: marker.ID, marker: true}, b.store(marker)
}

// erase removes one version from disk and index. The caller holds gate and the
// key's lock.
func (b *bucket) erase(v *version) error {
	if err := os.Remove(b.metaPath(v.Key, v.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b.mu.Lock()
	b.index.remove(v.Key, v.ID)
	b.forget(v, nil)
	b.mu.Unlock()
	b.discard(v, nil)
	return nil
}
