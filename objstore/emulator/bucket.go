package emulator

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

	pins pins
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
// delete marker.
func (b *bucket) latest(key string) *version {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if e := b.index.get(key); e != nil {
		return e.current()
	}
	return nil
}

// lookup returns the version that a request for key and versionID ("" is the
// current one) means, or S3's error for it.
func (b *bucket) lookup(key, versionID string) (*version, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.lookupLocked(key, versionID)
}

// lookupLocked is lookup for a caller that holds mu.
func (b *bucket) lookupLocked(key, versionID string) (*version, error) {
	e := b.index.get(key)
	if versionID == "" {
		if e == nil {
			return nil, errNoSuchKey(key)
		}
		if v := e.current(); v != nil {
			return v, nil
		}
		return nil, errNoSuchKey(key).withHeader("x-amz-delete-marker", "true").withHeader("x-amz-version-id", e.versions[0].ID)
	}
	v := e.byID(versionID)
	switch {
	case v == nil:
		return nil, fail("NoSuchVersion", "The specified version does not exist.").with("Key", key).with("VersionId", versionID)
	case v.DeleteMarker:
		return nil, fail("MethodNotAllowed", "The specified method is not allowed against this resource.").
			withHeader("x-amz-delete-marker", "true").withHeader("x-amz-version-id", v.ID)
	}
	return v, nil
}

// find returns a version or delete marker by id, nil when it is not there.
func (b *bucket) find(key, id string) *version {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.index.get(key).byID(id)
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
