package s3store

import (
	"context"
	"errors"
	"net/http"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// headerScality turns encryption on when a bucket is created, on the store
// for which nothing else did and nothing could later. Others ignore it.
const headerScality = "x-amz-scal-server-side-encryption"

// CreateBucket creates a bucket that was absent, turns its encryption on and
// proves that it holds. A bucket that cannot be proved is removed again.
func (s *Store) CreateBucket(ctx context.Context, name string, opts objstore.CreateBucketOptions) (objstore.Encryption, error) {
	const verb = "create bucket"
	var none objstore.Encryption
	if err := checkBucketName(name); err != nil {
		return none, newError(verb, name, objstore.InvalidName, "%w", err)
	}
	if err := s.writable(verb, name); err != nil {
		return none, err
	}
	rule := s.cfg.rule(name, "")
	if err := s.absent(ctx, name); err != nil {
		return none, err
	}
	if err := s.createBucket(ctx, name, rule.Encryption); err != nil {
		return none, err
	}
	b := newBucket(s, name, s.region)
	if rule.Encryption.Mode != objstore.ModeNone {
		b.turnOn(ctx, rule.Encryption)
	}
	p, err := b.protect(ctx, "", objstore.Encryption{})
	switch {
	case err == nil, errors.Is(err, objstore.Unencrypted) && opts.AllowUnencrypted:
		s.mu.Lock()
		s.buckets[name] = b
		s.mu.Unlock()
		return p.now, nil
	}
	kind := objstore.KindOf(err)
	removed := s.undoCreate(ctx, name)
	return none, newError(verb, name, kind, "the new bucket could not be proved to encrypt (removed again: %t): %w", removed, err)
}

// absent fails with kind Exist unless name is free.
func (s *Store) absent(ctx context.Context, name string) error {
	_, err := s.headBucket(ctx, name, "")
	switch {
	case err == nil:
		return newError("create bucket", name, objstore.Exist, "")
	case errors.Is(err, objstore.NotExist):
		return nil
	case statusOf(err) == http.StatusForbidden || statusOf(err) == http.StatusMovedPermanently:
		// It belongs to somebody else, or lies elsewhere.
		return newError("create bucket", name, objstore.Exist, "%w", err)
	}
	return err
}

// createBucket sends the request.
func (s *Store) createBucket(ctx context.Context, name string, enc objstore.Encryption) error {
	in := &s3.CreateBucketInput{Bucket: aws.String(name)}
	if s.region != defaultRegion {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(s.region)}
	}
	if !s.aws && (enc.Mode == objstore.ModeAuto || enc.Mode == objstore.ModeSSES3) {
		ctx = withHeader(ctx, headerScality, "AES256")
	}
	_, st, err := doState(ctx, s.op("create bucket", name, ""), func(ctx context.Context) (*s3.CreateBucketOutput, error) {
		return s.client(name, "").CreateBucket(ctx, in)
	})
	if codeOf(err) == "BucketAlreadyOwnedByYou" && st.retries > 0 {
		return nil // an earlier attempt did it and its reply was lost
	}
	return err
}

// turnOn sets the bucket's default to what its policy asks for. A refusal is no
// failure: the proof tells. One server takes the request for CreateBucket,
// which is harmless here.
func (b *bucket) turnOn(ctx context.Context, enc objstore.Encryption) {
	rule := types.ServerSideEncryptionRule{
		ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256},
	}
	switch enc.Mode {
	case objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
		rule.ApplyServerSideEncryptionByDefault.SSEAlgorithm = types.ServerSideEncryption(enc.SSEHeader())
		rule.ApplyServerSideEncryptionByDefault.KMSMasterKeyID = optional(enc.KMSKeyID)
		if enc.BucketKey {
			rule.BucketKeyEnabled = aws.Bool(true)
		}
	case objstore.ModeSSEC:
		// No default can name a customer key, but AWS blocks them on new
		// buckets unless told otherwise.
		rule.BlockedEncryptionTypes = &types.BlockedEncryptionTypes{EncryptionType: []types.EncryptionType{types.EncryptionTypeNone}}
	}
	_, err := do(ctx, b.s.probe("put bucket encryption", b.name, ""), func(ctx context.Context) (*s3.PutBucketEncryptionOutput, error) {
		return b.client.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{
			Bucket:                            aws.String(b.name),
			ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{rule}},
		})
	})
	if err != nil {
		b.s.log.Debug("the store takes no default encryption for the bucket", "bucket", b.name, "error", err)
	}
}

// undoCreate removes the bucket that was just created. It works after ctx has
// ended too, and fails where somebody has put an object there already.
func (s *Store) undoCreate(ctx context.Context, name string) bool {
	_, err := do(context.WithoutCancel(ctx), s.probe("remove bucket", name, ""), func(ctx context.Context) (*s3.DeleteBucketOutput, error) {
		return s.client(name, "").DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(name)})
	})
	if err != nil {
		s.log.Warn("a new bucket that does not encrypt could not be removed again", "bucket", name, "error", err)
	}
	return err == nil
}
