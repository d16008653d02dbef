package s3store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Buckets returns the buckets of the account by name.
func (s *Store) Buckets(ctx context.Context) ([]objstore.BucketInfo, error) {
	var all []objstore.BucketInfo
	in := &s3.ListBucketsInput{}
	region := s.region
	for {
		out, err := do(ctx, s.op("list buckets", "", ""), func(ctx context.Context) (*s3.ListBucketsOutput, error) {
			return s.client("", region).ListBuckets(ctx, in)
		})
		if other := headerOf(err, "x-amz-bucket-region"); other != "" && region == s.region && other != region {
			region = other
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, b := range out.Buckets {
			all = append(all, objstore.BucketInfo{Name: aws.ToString(b.Name), Created: aws.ToTime(b.CreationDate)})
		}
		if aws.ToString(out.ContinuationToken) == "" || len(out.Buckets) == 0 {
			slices.SortFunc(all, func(a, b objstore.BucketInfo) int { return cmp.Compare(a.Name, b.Name) })
			return all, nil
		}
		in.ContinuationToken = out.ContinuationToken
	}
}

// Open returns the bucket after a HeadBucket. The same name gives the same
// Bucket, with all that was learned about it.
func (s *Store) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	return s.open(ctx, name)
}

func (s *Store) open(ctx context.Context, name string) (*bucket, error) {
	if err := checkBucketName(name); err != nil {
		return nil, newError("open bucket", name, objstore.NotExist, "%w", err)
	}
	region, err := s.headBucket(ctx, name, s.knownRegion(name))
	if err != nil {
		if errors.Is(err, objstore.NotExist) {
			s.forget(name) // one of this name may be made again, and differ
		}
		return nil, err
	}
	s.mu.Lock()
	if b := s.buckets[name]; b != nil && b.region == region {
		s.mu.Unlock()
		return b, nil
	}
	s.mu.Unlock()
	b := newBucket(s, name, region)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.buckets[name]; have != nil && have.region == region {
		return have, nil // another Open was first; its knowledge is shared
	}
	s.buckets[name] = b
	return b, nil
}

// knownRegion returns the region in which name was opened before.
func (s *Store) knownRegion(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[name]; b != nil {
		return b.region
	}
	return ""
}

// regionOf returns the region of name, asking for it when it was not opened
// before. A refusal is no failure here: the request to come will meet it.
func (s *Store) regionOf(ctx context.Context, name string) string {
	if r := s.knownRegion(name); r != "" || !s.aws {
		return r
	}
	r, err := s.headBucket(ctx, name, "")
	if err != nil {
		return ""
	}
	return r
}

// forget drops what was learned about a bucket that is gone.
func (s *Store) forget(name string) {
	s.mu.Lock()
	delete(s.buckets, name)
	s.mu.Unlock()
}

// headBucket asks for the bucket and returns the region that serves it,
// following the region that a reply names once.
func (s *Store) headBucket(ctx context.Context, name, region string) (string, error) {
	head := func(region string) (*s3.HeadBucketOutput, error) {
		return do(ctx, s.probe("open bucket", name, ""), func(ctx context.Context) (*s3.HeadBucketOutput, error) {
			return s.client(name, region).HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(name)})
		})
	}
	if region == "" {
		region = s.region
	}
	_, err := head(region)
	if err == nil {
		return region, nil
	}
	other := headerOf(err, "x-amz-bucket-region")
	if other == "" && !s.aws && statusOf(err) == http.StatusBadRequest {
		other = s.bucketLocation(ctx, name)
	}
	if other == "" || other == region {
		return "", s.explainForbidden(err)
	}
	if _, err := head(other); err != nil {
		return "", s.explainForbidden(err)
	}
	return other, nil
}

// explainForbidden adds to a 403 what it can mean: a reply to HEAD says
// nothing.
func (s *Store) explainForbidden(err error) error {
	var e *objstore.Error
	if statusOf(err) != http.StatusForbidden || !errors.As(err, &e) {
		return err
	}
	c := *e
	help := "the bucket is another account's, or these credentials are wrong or may not use it"
	if !s.cfg.RequesterPays {
		help += "; where its owner lets the requester pay, agree to that"
	}
	c.Err = fmt.Errorf("%w (%s)", e.Err, help)
	return &c
}

// bucketLocation asks for the region of a bucket; "" when that is refused.
// Only stores other than AWS need it, whose replies do not name the region.
func (s *Store) bucketLocation(ctx context.Context, name string) string {
	out, err := do(ctx, s.probe("find region", name, ""), func(ctx context.Context) (*s3.GetBucketLocationOutput, error) {
		return s.client(name, "").GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: aws.String(name)})
	})
	if err != nil {
		return ""
	}
	if out.LocationConstraint == "" {
		return defaultRegion
	}
	if out.LocationConstraint == types.BucketLocationConstraintEu {
		return "eu-west-1" // the old name
	}
	return string(out.LocationConstraint)
}

// DeleteBucket removes an empty bucket.
func (s *Store) DeleteBucket(ctx context.Context, name string) error {
	if err := checkBucketName(name); err != nil {
		return newError("delete bucket", name, objstore.NotExist, "%w", err)
	}
	if err := s.writable("delete bucket", name); err != nil {
		return err
	}
	b := newBucket(s, name, s.regionOf(ctx, name))
	err := b.remove(ctx)
	if errors.Is(err, objstore.NotEmpty) && b.removeProbes(ctx) {
		err = b.remove(ctx)
	}
	if err == nil {
		s.forget(name)
	}
	return err
}

// writable refuses what a store for reading only has promised not to do.
func (s *Store) writable(verb, name string) error {
	if s.cfg.ReadOnly {
		return newError(verb, name, objstore.Permission, "the store was opened for reading only")
	}
	return nil
}

// remove sends the request to delete the bucket.
func (b *bucket) remove(ctx context.Context) error {
	_, st, err := doState(ctx, b.s.op("delete bucket", b.name, ""), func(ctx context.Context) (*s3.DeleteBucketOutput, error) {
		return b.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(b.name)})
	})
	if err != nil && errors.Is(err, objstore.NotExist) && st.retries > 0 {
		return nil // an earlier attempt did it and its reply was lost
	}
	return err
}
