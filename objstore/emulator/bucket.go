package emulator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// bucket is one bucket: an index in memory over files on disk. Safe for
// concurrent use.
type bucket struct {
	name  string
	dir   string
	vault *vault
	clock *clock

	// gate is read-held by every change and write-held by the bucket's end.
	gate sync.RWMutex
	gone bool // under gate

	// keys make the check of a condition and the change that follows one step
	// for a key; see keyLock.
	keys [64]sync.Mutex

	mu      sync.RWMutex
	conf    bucketConfig
	index   index
	uploads map[string]*upload
	// completed finds the version that a finished upload became.
	completed map[string]*version
}

// bucketConfig is bucket.json.
type bucketConfig struct {
	Created    time.Time  `json:"created"`
	Versioning string     `json:"versioning,omitempty"` // "", Enabled or Suspended
	Encryption bucketRule `json:"encryption,omitzero"`
}

// clock hands out the numbers that order versions.
type clock struct {
	now  func() time.Time
	mu   sync.Mutex
	last int64
}

func (c *clock) next() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, c.now().UnixNano())
	return c.last
}

// atLeast makes later numbers higher than seq.
func (c *clock) atLeast(seq int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, seq)
}

func (b *bucket) dataDir() string    { return filepath.Join(b.dir, "data") }
func (b *bucket) metaDir() string    { return filepath.Join(b.dir, "meta") }
func (b *bucket) uploadsDir() string { return filepath.Join(b.dir, "uploads") }

func newBucket(v *vault, c *clock, name string) *bucket {
	return &bucket{
		name: name, dir: filepath.Join(v.dir, "buckets", name), vault: v, clock: c,
		uploads: map[string]*upload{}, completed: map[string]*version{},
	}
}

// createBucket makes the bucket's directories. bucket.json is written last and
// the directory renamed into place, so a bucket is there whole or not at all.
func createBucket(v *vault, c *clock, name string, conf bucketConfig) (*bucket, error) {
	b := newBucket(v, c, name)
	b.conf = conf
	tmp := v.tmpPath()
	for _, d := range []string{"", "data", "meta", "uploads"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := v.writeJSON(filepath.Join(tmp, "bucket.json"), conf); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, b.dir); err != nil {
		return nil, err
	}
	if v.fsync {
		return b, syncDir(filepath.Dir(b.dir))
	}
	return b, nil
}

// openBucket reads a bucket back and removes files that nothing refers to.
func openBucket(v *vault, c *clock, name string) (*bucket, error) {
	b := newBucket(v, c, name)
	if err := readJSON(filepath.Join(b.dir, "bucket.json"), &b.conf); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	err := eachSpread(b.metaDir(), func(path string) error {
		ver := &version{}
		if err := readJSON(path, ver); err != nil {
			return err
		}
		b.index.put(ver)
		b.clock.atLeast(ver.Seq)
		if ver.Upload != "" {
			b.completed[ver.Upload] = ver
		}
		for _, s := range ver.Segments {
			used[s.ID] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := b.openUploads(used); err != nil {
		return nil, err
	}
	return b, eachSpread(b.dataDir(), func(path string) error {
		if used[filepath.Base(path)] {
			return nil
		}
		return os.Remove(path)
	})
}

// eachSpread calls fn for every file in the directories below dir.
func eachSpread(dir string, fn func(path string) error) error {
	subs, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		d := filepath.Join(dir, sub.Name())
		files, err := os.ReadDir(d)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := fn(filepath.Join(d, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func readJSON(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func keyHash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func (b *bucket) metaPath(key, id string) string {
	return spread(b.metaDir(), keyHash(key)+"-"+id+".json")
}

// keyLock locks the commit of key; the caller unlocks it.
func (b *bucket) keyLock(key string) *sync.Mutex {
	sum := sha256.Sum256([]byte(key))
	mu := &b.keys[sum[0]%byte(len(b.keys))]
	mu.Lock()
	return mu
}

// config returns the bucket's settings.
func (b *bucket) config() bucketConfig {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.conf
}

// configure changes the settings, on disk first.
func (b *bucket) configure(change func(*bucketConfig)) error {
	b.gate.Lock()
	defer b.gate.Unlock()
	if b.gone {
		return errNoSuchBucket(b.name)
	}
	conf := b.config()
	change(&conf)
	if err := b.vault.writeJSON(filepath.Join(b.dir, "bucket.json"), conf); err != nil {
		return err
	}
	b.mu.Lock()
	b.conf = conf
	b.mu.Unlock()
	return nil
}

// latest returns the current version of key, nil when there is none or it is a
// delete marker, and the marker then.
func (b *bucket) latest(key string) (v, marker *version) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	e := b.index.get(key)
	if e == nil {
		return nil, nil
	}
	if v = e.current(); v == nil {
		return nil, e.versions[0]
	}
	return v, nil
}

// find returns a version by id.
func (b *bucket) find(key, id string) *version {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.index.get(key); e != nil {
		for _, v := range e.versions {
			if v.ID == id {
				return v
			}
		}
	}
	return nil
}

// lookup returns the version that a request for key and versionID ("" is the
// current one) means, or S3's error for it.
func (b *bucket) lookup(key, versionID string) (*version, error) {
	if versionID == "" {
		v, marker := b.latest(key)
		switch {
		case v != nil:
			return v, nil
		case marker != nil:
			return nil, errNoSuchKey(key).withHeader("x-amz-delete-marker", "true").withHeader("x-amz-version-id", marker.ID)
		}
		return nil, errNoSuchKey(key)
	}
	v := b.find(key, versionID)
	if v == nil {
		return nil, fail("NoSuchVersion", "The specified version does not exist.").with("Key", key).with("VersionId", versionID)
	}
	if v.DeleteMarker {
		return nil, fail("MethodNotAllowed", "The specified method is not allowed against this resource.").
			withHeader("x-amz-delete-marker", "true").withHeader("x-amz-version-id", v.ID)
	}
	return v, nil
}

// open is lookup and the version's bytes. A version that is replaced between
// the two is looked up again.
func (b *bucket) open(key, versionID string) (*version, *content, error) {
	for tries := 0; ; tries++ {
		v, err := b.lookup(key, versionID)
		if err != nil {
			return nil, nil, err
		}
		c, err := b.vault.openSegments(b.dataDir(), v.Segments)
		if errors.Is(err, fs.ErrNotExist) && tries < 100 {
			continue
		}
		return v, c, err
	}
}

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
	current, _ := b.latest(v.Key)
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
		b.removeUnshared(replaced, v)
	}
	return nil
}

// forget drops what finds a version that was removed; under mu.
func (b *bucket) forget(old, by *version) {
	if old != nil && old.Upload != "" && (by == nil || by.Upload != old.Upload) {
		delete(b.completed, old.Upload)
	}
}

// removeUnshared removes the files of old unless by, which took its place
// with other tags, has the same ones.
func (b *bucket) removeUnshared(old, by *version) {
	if by != nil && len(old.Segments) > 0 && len(by.Segments) > 0 && old.Segments[0].ID == by.Segments[0].ID {
		return
	}
	b.vault.remove(b.dataDir(), old.Segments)
}

// retag replaces the tags of one version.
func (b *bucket) retag(key, versionID string, tags []tag) (*version, error) {
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
	changed.Tags = tags
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
	current, _ := b.latest(key)
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
	b.vault.remove(b.dataDir(), v.Segments)
	return nil
}

// list returns a page of the index.
func (b *bucket) list(q listQuery, versions bool) ([]listItem, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.index.list(q, versions)
}

// end takes the bucket away if it is empty. drop removes it from the table of
// buckets before a bucket of the same name can be made.
func (b *bucket) end(drop func()) error {
	b.gate.Lock()
	defer b.gate.Unlock()
	if b.gone {
		return errNoSuchBucket(b.name)
	}
	b.mu.RLock()
	n := b.index.n
	b.mu.RUnlock()
	if n > 0 {
		return fail("BucketNotEmpty", "The bucket you tried to delete is not empty").with("BucketName", b.name)
	}
	tmp := b.vault.tmpPath()
	if err := os.Rename(b.dir, tmp); err != nil {
		return err
	}
	b.gone = true
	drop()
	return os.RemoveAll(tmp)
}

// validBucketName follows the rules for general purpose buckets.
func validBucketName(name string) bool {
	if len(name) < 3 || len(name) > 63 || strings.Contains(name, "..") {
		return false
	}
	digitsAndDots := true
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && (c != '-' && c != '.' || i == 0 || i == len(name)-1) {
			return false
		}
		digitsAndDots = digitsAndDots && (digit || c == '.')
	}
	return !digitsAndDots || strings.Count(name, ".") != 3
}
