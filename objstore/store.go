package objstore

import (
	"context"
	"iter"
	"time"
)

// Store is an account at an endpoint: a set of buckets. Implementations are
// safe for concurrent use.
type Store interface {
	// Identity returns endpoint and region as one stable string; blocks of
	// different stores never share a cache key.
	Identity() string

	// Buckets returns the buckets of the account by name. Kind [Permission]
	// is usual where keys are limited to single buckets.
	Buckets(ctx context.Context) ([]BucketInfo, error)

	// Open returns the bucket after asking the store for it: [NotExist] when
	// it is absent, [Permission] when it belongs to somebody else.
	Open(ctx context.Context, name string) (Bucket, error)

	// CreateBucket creates a bucket that was absent, turns on the encryption
	// that the policy (or opts) asks for, and proves that it holds. A bucket that exists is
	// [Exist] and is never touched. One that cannot be proved is removed
	// again and [Unencrypted] returned.
	CreateBucket(ctx context.Context, name string, opts CreateBucketOptions) (Encryption, error)

	// DeleteBucket removes an empty bucket; kind [NotEmpty] otherwise.
	DeleteBucket(ctx context.Context, name string) error
}

// BucketInfo is what a listing of buckets tells of one.
type BucketInfo struct {
	Name    string
	Created time.Time
}

// CreateBucketOptions modify the creation of a bucket.
type CreateBucketOptions struct {
	// AllowUnencrypted accepts a bucket that cannot be proved to encrypt.
	AllowUnencrypted bool
}

// Upload is a multipart upload that was started and not ended.
type Upload struct {
	Bucket, Key, ID string
	Initiated       time.Time
}

// Uploads is implemented by a [Store] that can find and end multipart uploads
// which a crashed client left behind; their parts are billed.
type Uploads interface {
	// ListUploads yields the open uploads under prefix.
	ListUploads(ctx context.Context, bucket, prefix string) iter.Seq2[Upload, error]
	// AbortUpload ends one and frees its parts.
	AbortUpload(ctx context.Context, u Upload) error
}
