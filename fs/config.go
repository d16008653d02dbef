package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

// Attributes says where modes, owners, times and symbolic links come from.
type Attributes string

const (
	// AttributesList takes type, size and LastModified from listings and
	// mode and owner from the mount's options: no request per file.
	AttributesList Attributes = "list"
	// AttributesFull takes mode, owner, times and symbolic links from the
	// object's metadata: one HEAD per file, many in flight, remembered.
	AttributesFull Attributes = "full"
)

// Indefinite is a MetadataTTL for what nobody changes.
const Indefinite time.Duration = math.MaxInt64

// Config describes one mount. The zero value of an optional field is stated
// with it; Validate rejects what cannot be meant.
type Config struct {
	Store objstore.Store
	Cache *cache.Cache
	// Bucket and Prefix name the root of the mount. An empty Bucket mounts
	// all buckets of the account. Prefix has no leading slash and, when not
	// empty, ends in one.
	Bucket, Prefix string

	ReadOnly   bool
	AllowOther bool
	// ClientSide tells that the store's objects are encrypted on this side: data that
	// is kept must not be stored otherwise.
	ClientSide bool
	// RewriteMax is the longest object, in bytes, of which some may be changed and the
	// rest kept, where that has all of it sent again, as it has with ClientSide; a
	// change of a longer one is EFBIG. 0 is no limit.
	RewriteMax int64
	// AllowUnencrypted lets mkdir keep a bucket that cannot be proved to encrypt.
	AllowUnencrypted bool
	// UID and GID own what has no owner in its metadata.
	UID, GID uint32
	// FileMode and DirMode are the permission bits of what has none in its
	// metadata; 0 means 0644 and 0755.
	FileMode, DirMode uint32
	// Attributes is AttributesFull unless said otherwise, AttributesList
	// for read-only mounts.
	Attributes Attributes
	// Convention is how attributes are written; ConventionS3FS unless said
	// otherwise.
	Convention Convention
	// ExclusiveAtOpen decides an exclusive create before open returns, by an
	// empty object that is put only if there is none, and not at the commit.
	ExclusiveAtOpen bool
	// StoreID names the store, for data that is kept when its commit fails.
	StoreID string
	Rescue  Rescue
	// UnlinkBatched has unlink return before the object is deleted, which is
	// done many at a time.
	UnlinkBatched bool
	// MetadataTTL is how long the kernel and this package believe what the
	// store said of a name; 0 asks every time. Indefinite is for read-only
	// mounts: absent names and open files are not asked for again either.
	MetadataTTL time.Duration
	// AbsentTTL is how long a name is believed to be absent that a listing did
	// not have; 0 asks every time.
	AbsentTTL time.Duration
	// FSName is the first column of df; default "coffer".
	FSName string
	// Options are further mount options for the kernel, as in fstab.
	Options []string
	Logger  *slog.Logger
	// Debug logs every FUSE request at debug level.
	Debug bool
}

// Validate reports the first thing in c that cannot be meant.
func (c Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("fs: no store")
	case c.Cache == nil:
		return errors.New("fs: no cache")
	case c.Bucket == "" && c.Prefix != "":
		return fmt.Errorf("fs: prefix %q without a bucket", c.Prefix)
	case c.Prefix != "" && !strings.HasSuffix(c.Prefix, "/"):
		return fmt.Errorf("fs: prefix %q does not end in a slash", c.Prefix)
	case c.FileMode&^0o7777 != 0 || c.DirMode&^0o7777 != 0:
		return errors.New("fs: a mode has bits beyond 07777")
	case c.Attributes != "" && c.Attributes != AttributesList && c.Attributes != AttributesFull:
		return fmt.Errorf("fs: attributes %q: want %q or %q", c.Attributes, AttributesList, AttributesFull)
	case c.Convention != "" && c.Convention != ConventionS3FS && c.Convention != ConventionRclone && c.Convention != ConventionFSx:
		return fmt.Errorf("fs: convention %q: want %q, %q or %q", c.Convention, ConventionS3FS, ConventionRclone, ConventionFSx)
	case c.MetadataTTL == Indefinite && !c.ReadOnly:
		return errors.New("fs: an indefinite metadata TTL is for read-only mounts")
	case c.RewriteMax < 0:
		return fmt.Errorf("fs: at most %d bytes rewritten", c.RewriteMax)
	case c.MetadataTTL < 0:
		return fmt.Errorf("fs: metadata TTL %v is negative", c.MetadataTTL)
	case c.AbsentTTL < 0:
		return fmt.Errorf("fs: absent TTL %v is negative", c.AbsentTTL)
	}
	return nil
}

// withDefaults fills in what Validate accepts as unset.
func (c Config) withDefaults() Config {
	if c.FileMode == 0 {
		c.FileMode = 0o644
	}
	if c.DirMode == 0 {
		c.DirMode = 0o755
	}
	if c.Attributes == "" {
		c.Attributes = AttributesFull
		if c.ReadOnly {
			c.Attributes = AttributesList
		}
	}
	if c.Convention == "" {
		c.Convention = ConventionS3FS
	}
	if c.MetadataTTL == Indefinite {
		c.AbsentTTL = Indefinite
	}
	if c.FSName == "" {
		c.FSName = "coffer"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
