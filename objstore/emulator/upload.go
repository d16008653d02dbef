package emulator

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits of multipart uploads, from the S3 user guide, "Amazon S3 multipart
// upload limits".
const (
	maxPartNumber = 10000
	minPartSize   = 5 << 20 // of every part but the last
	maxObject     = 5 << 40
)

// upload is a multipart upload that was started and not ended.
type upload struct {
	uploadConfig

	// commit is held by what ends the upload.
	commit sync.Mutex

	mu    sync.Mutex
	ended bool
	parts map[int]uploadPart
}

// uploadConfig is upload.json: what was fixed when the upload was created.
type uploadConfig struct {
	ID        string    `json:"id"`
	Initiated time.Time `json:"initiated"`
	// Object holds the future object's key, headers, metadata, tags, storage
	// class and encryption.
	Object version `json:"object"`
	// ChecksumAlgorithm and ChecksumType are "" when none was asked for.
	ChecksumAlgorithm string `json:"checksumAlgorithm,omitempty"`
	ChecksumType      string `json:"checksumType,omitempty"`
}

// uploadPart is NNNNN.json: one part.
type uploadPart struct {
	Number   int       `json:"n"`
	Segment  segment   `json:"segment"`
	ETag     string    `json:"etag"`
	Checksum checksum  `json:"checksum,omitzero"`
	Modified time.Time `json:"modified"`
}

func (b *bucket) uploadDir(id string) string { return filepath.Join(b.uploadsDir(), id) }

func (b *bucket) partPath(id string, number int) string {
	return filepath.Join(b.uploadDir(id), fmt.Sprintf("%05d.json", number))
}

// startUpload registers a new upload, on disk first.
func (b *bucket) startUpload(conf uploadConfig) (*upload, error) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.gone {
		return nil, errNoSuchBucket(b.name)
	}
	u := &upload{uploadConfig: conf, parts: map[int]uploadPart{}}
	if err := os.Mkdir(b.uploadDir(u.ID), 0o700); err != nil {
		return nil, err
	}
	if err := b.vault.writeJSON(filepath.Join(b.uploadDir(u.ID), "upload.json"), conf); err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.uploads[u.ID] = u
	b.mu.Unlock()
	return u, nil
}

// openUploads reads the uploads back. Those that have become an object, and
// those whose creation was not finished, are removed. It adds the segments of
// the others to used.
func (b *bucket) openUploads(used map[string]bool) error {
	dirs, err := os.ReadDir(b.uploadsDir())
	if err != nil {
		return err
	}
	for _, d := range dirs {
		id := d.Name()
		u := &upload{parts: map[int]uploadPart{}}
		err := readJSON(filepath.Join(b.uploadDir(id), "upload.json"), &u.uploadConfig)
		if b.completed[id] != nil || errors.Is(err, fs.ErrNotExist) {
			if err := os.RemoveAll(b.uploadDir(id)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		files, err := os.ReadDir(b.uploadDir(id))
		if err != nil {
			return err
		}
		for _, f := range files {
			if f.Name() == "upload.json" {
				continue
			}
			var p uploadPart
			if err := readJSON(filepath.Join(b.uploadDir(id), f.Name()), &p); err != nil {
				return err
			}
			u.parts[p.Number] = p
			used[p.Segment.ID] = true
		}
		b.uploads[id] = u
	}
	return nil
}

// uploadOf returns an open upload of key.
func (b *bucket) uploadOf(key, id string) (*upload, error) {
	b.mu.RLock()
	u := b.uploads[id]
	b.mu.RUnlock()
	if u == nil || u.Object.Key != key {
		return nil, errNoSuchUpload(id)
	}
	return u, nil
}

// completedAs returns the version that an ended upload of key became, nil when
// there is none or it was deleted since.
func (b *bucket) completedAs(key, id string) *version {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if v := b.completed[id]; v != nil && v.Key == key {
		return v
	}
	return nil
}

// addPart makes p a part of u, in place of an earlier one of its number. On an
// error p's segment stays the caller's to remove.
func (b *bucket) addPart(u *upload, p uploadPart) error {
	b.gate.RLock()
	defer b.gate.RUnlock()
	// The keys' locks serve for parts too: two of the same number must reach
	// disk and memory in the same order, and none after the upload's end.
	lock := b.keyLock(u.ID)
	defer lock.Unlock()
	u.mu.Lock()
	ended, old := u.ended, u.parts[p.Number]
	u.mu.Unlock()
	if b.gone || ended {
		return errNoSuchUpload(u.ID)
	}
	if err := b.vault.writeJSON(b.partPath(u.ID, p.Number), p); err != nil {
		return err
	}
	u.mu.Lock()
	u.parts[p.Number] = p
	u.mu.Unlock()
	if old.Number != 0 {
		b.vault.remove(b.dataDir(), []segment{old.Segment})
	}
	return nil
}

// partList returns u's parts by number.
func (u *upload) partList() []uploadPart {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.SortedFunc(maps.Values(u.parts), func(a, b uploadPart) int { return cmp.Compare(a.Number, b.Number) })
}

// endUpload takes u away with those of its parts that keep does not name. The
// caller holds u.commit.
func (b *bucket) endUpload(u *upload, keep map[string]bool) error {
	lock := b.keyLock(u.ID)
	defer lock.Unlock()
	u.mu.Lock()
	u.ended = true
	u.mu.Unlock()
	b.mu.Lock()
	delete(b.uploads, u.ID)
	b.mu.Unlock()
	for _, p := range u.partList() {
		if !keep[p.Segment.ID] {
			b.vault.remove(b.dataDir(), []segment{p.Segment})
		}
	}
	return os.RemoveAll(b.uploadDir(u.ID))
}

// uploadsAfter returns the open uploads with the prefix that come after the
// marker, ordered by key and then by age, as ListMultipartUploads shows them.
func (b *bucket) uploadsAfter(prefix, keyMarker, idMarker string) []*upload {
	b.mu.RLock()
	all := slices.Collect(maps.Values(b.uploads))
	b.mu.RUnlock()
	slices.SortFunc(all, func(x, y *upload) int {
		return cmp.Or(cmp.Compare(x.Object.Key, y.Object.Key), x.Initiated.Compare(y.Initiated), cmp.Compare(x.ID, y.ID))
	})
	// A marker that was ended since is passed by its key.
	at := slices.IndexFunc(all, func(u *upload) bool { return idMarker != "" && u.ID == idMarker })
	var out []*upload
	for i, u := range all {
		after := u.Object.Key > keyMarker || at >= 0 && i > at
		if strings.HasPrefix(u.Object.Key, prefix) && after {
			out = append(out, u)
		}
	}
	return out
}
