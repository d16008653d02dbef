package objstore

import (
	"context"
	"io"
	"iter"
	"maps"
)

// ScratchPrefix begins the last component of the key of every scratch object, by
// which a Bucket finds what its store honours. Such keys are never listed, and
// no user can have one.
const ScratchPrefix = ".coffer-probe-"

// Bucket is one bucket as a flat key space. Implementations are safe for
// concurrent use. Every error is, or wraps, an [*Error].
type Bucket interface {
	// Name returns the bucket's name.
	Name() string

	// Head returns what the store knows of ref. An absent object is
	// [NotExist], one with another ETag than ref's is [Stale].
	Head(ctx context.Context, ref Ref) (Object, error)

	// Get opens the bytes of ref, or the range of them that opts names. The
	// reader yields exactly the bytes that were asked for and then io.EOF, or
	// an error: a short, long or damaged body is never silently returned. The
	// caller closes the reader; ctx governs it until then.
	Get(ctx context.Context, ref Ref, opts GetOptions) (io.ReadCloser, Object, error)

	// List yields the keys that q selects in the byte order of their UTF-8,
	// each key and prefix once. Pages are hidden; up to ListAhead entries are
	// asked for before they are consumed. After an error nothing more is
	// yielded.
	List(ctx context.Context, q Query) iter.Seq2[Entry, error]

	// Create starts a new version of key. No byte is visible under key before
	// Commit has succeeded. Create fails with kind [Unencrypted], before any
	// byte leaves, where the policy asks for encryption and the bucket is not
	// proved to provide it. ctx governs background transfers until the writer
	// is ended.
	Create(ctx context.Context, key string, opts CreateOptions) (Writer, error)

	// Copy makes dstKey a copy of src inside the store, of any size, keeping
	// headers, storage class, tags and, unless opts says otherwise, metadata.
	Copy(ctx context.Context, dstKey string, src Ref, opts CopyOptions) (Object, error)

	// Delete removes objects, in batches, and returns one error (or nil) for
	// each ref. Removing what is absent succeeds. A ref with a VersionID
	// removes that version for good. The ETag of a ref is not looked at: only
	// few stores could.
	Delete(ctx context.Context, refs ...Ref) []error

	// Protection returns what a new object under key is protected by. The
	// answer is proved, by the bucket's own default or a scratch object, and
	// remembered as long as the Bucket lives. It is an error of kind
	// [Unencrypted] when the policy demands more than the bucket gives; the
	// Encryption is valid even then.
	Protection(ctx context.Context, key string) (Encryption, error)
}

// Range is a span of bytes of an object. The zero value is the whole object.
type Range struct {
	// Offset is the first byte, from 0.
	Offset int64
	// Length is the number of bytes; 0 means to the end. A range that
	// reaches beyond the end is cut there; one that starts at or beyond it
	// gives kind [InvalidRange].
	Length int64
}

// GetOptions modify a Get.
type GetOptions struct {
	Range Range
	// CustomerKeyMD5 names the SSE-C key to try first, "" for the policy's.
	CustomerKeyMD5 string
}

// Query selects the keys of a listing.
type Query struct {
	Prefix string
	// Delimiter, when not empty, groups keys that hold it beyond Prefix into
	// one common prefix.
	Delimiter string
	// StartAfter skips keys and prefixes up to and including this one.
	StartAfter string
	// Limit ends the listing after this many entries; 0 is no limit.
	Limit int
}

// Condition is what must hold of the destination for a write to take place.
type Condition struct {
	// IfAbsent: no object may exist under the key; else kind [Exist].
	IfAbsent bool
	// IfMatch: the current object must have this ETag; else kind [Stale].
	IfMatch ETag
}

// CreateOptions describe a new object.
type CreateOptions struct {
	Meta         map[string]string
	Headers      Headers
	StorageClass string
	// Encryption is a wish by name; the zero value follows the policy.
	Encryption Encryption
	Cond       Condition
	// SizeHint is the expected length in bytes, 0 when unknown. It may
	// choose the part size; a wrong hint costs speed and nothing else.
	SizeHint int64
	// Ranges tells that CopyRange of the [RangeCopier] will be called. Without
	// it, what comes late may have to be read and sent again; with it the
	// store may keep no checksum of the object.
	Ranges bool
	// Keep leaves what was sent in the store when Commit fails, where that is
	// possible: see [Keeper].
	Keep bool
}

// CopyOptions describe the destination of a Copy.
type CopyOptions struct {
	// Meta replaces the user metadata when not nil; an empty map clears it.
	Meta map[string]string
	// Missing is user metadata for a copy of what has none of the names in
	// it or in MissingUnless, and room for it. It is not looked at beside
	// Meta.
	Missing       map[string]string
	MissingUnless []string
	// Headers replaces the headers when not nil.
	Headers *Headers
	// Encryption is a wish by name. With the zero value a policy by name
	// wins, and otherwise the source's mode and key are kept.
	Encryption Encryption
	Cond       Condition
}

// MetaMax is the limit in bytes of all user metadata of an object, names and
// values. S3 documents 2 KiB; the rest is for the two entries of encryption on this
// side, with which the same metadata has to fit: 96 bytes at most, and the prefix of
// their names, which MinIO counts.
const MetaMax = 2<<10 - 128

// MetaOf returns the user metadata that the copy of an object with such gets,
// which may share memory with it, and whether that is another.
func (o CopyOptions) MetaOf(source map[string]string) (meta map[string]string, changed bool) {
	if o.Meta != nil {
		return o.Meta, true
	}
	if len(o.Missing) == 0 || MetaSize(source)+MetaSize(o.Missing) > MetaMax {
		return source, false
	}
	for _, name := range o.MissingUnless {
		if _, there := source[name]; there {
			return source, false
		}
	}
	for name := range o.Missing {
		if _, there := source[name]; there {
			return source, false
		}
	}
	meta = CloneMeta(source)
	maps.Copy(meta, o.Missing)
	return meta, true
}

// Writer receives one new object version. Its methods are called by one
// goroutine at a time. Exactly one of Commit and Abort ends it; Abort after a
// failed Commit is allowed and does nothing more.
type Writer interface {
	// Write appends p and may keep no reference to it after the return. It
	// blocks while too many parts are in flight. The error of an earlier
	// part is returned by the next Write and by Commit.
	io.Writer
	// Commit makes the object visible, whole, and verifies its encryption.
	// An object that turns out not to be protected as promised is removed
	// and kind [Unencrypted] returned.
	Commit(ctx context.Context) (Object, error)
	// Abort gives up; nothing becomes visible and stored parts are removed.
	Abort() error
}

// RangeCopier is implemented by a [Writer] that can append bytes of an
// existing object without moving them through this machine.
type RangeCopier interface {
	// CopyRange appends n bytes from off of src. src.ETag must be set; kind
	// [Stale] tells that src is another version by now. The store may still be
	// at it when CopyRange returns: src must not go before Copied or Commit
	// has succeeded.
	CopyRange(ctx context.Context, src Ref, off, n int64) error
	// Copied waits until nothing of any source is needed any more.
	Copied(ctx context.Context) error
}

// Keeper is implemented by a [Writer] whose bytes can wait in the store for a
// Commit that succeeds. It concerns writers that were created with Keep, or by a
// [Resumer].
type Keeper interface {
	Writer
	// Kept reports, after a failed Commit, whether the store has everything
	// that was written, under no name. Then the writer has not ended: Recommit
	// may be called, until it succeeds or Abort gives up.
	Kept() bool
	// Recommit is Commit once more, under another condition.
	Recommit(ctx context.Context, cond Condition) (Object, error)
	// Token names what is kept, as JSON, for a Resumer of the same bucket in
	// this process or another. It holds no secret.
	Token() ([]byte, error)
	// Entrust ends the writer and leaves what is kept to whoever has the token.
	Entrust()
}

// Resumer is implemented by a [Bucket] whose writers are Keepers.
type Resumer interface {
	// Resume returns the writer that a token of [Keeper] was told of, all
	// written and ready for Recommit or Abort.
	Resume(ctx context.Context, token []byte) (Keeper, error)
}

// Prover is implemented by a [Bucket] whose sizes, as Head and List tell them, can be
// wrong: they come from what anybody could have changed.
type Prover interface {
	// Prove returns what Head does, with the size that Get will find. It fails as Get
	// does where the object cannot be read.
	Prove(ctx context.Context, ref Ref) (Object, error)
}

// Policies is implemented by a [Bucket] whose keys may be under different
// policies of encryption.
type Policies interface {
	// SamePolicy reports whether new objects under both keys are asked to be
	// protected in the same mode, if not under the same key. Copy works
	// between any two; this tells callers that want to move nothing from one
	// kind of protection to another unnoticed.
	SamePolicy(key, other string) bool
}

// ListAhead is how many entries a listing may have asked for that were not consumed.
const ListAhead = 32_000
