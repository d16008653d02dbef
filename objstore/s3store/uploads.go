package s3store

import (
	"context"
	"iter"
	"strings"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// ListUploads yields the multipart uploads under prefix that were begun and
// not ended, those of other programs too.
func (s *Store) ListUploads(ctx context.Context, bucket, prefix string) iter.Seq2[objstore.Upload, error] {
	return func(yield func(objstore.Upload, error) bool) {
		found, goOn := s.listUploads(ctx, bucket, prefix, prefix, yield)
		if !found && goOn && prefix != "" {
			// MinIO takes the prefix for a whole key.
			s.listUploads(ctx, bucket, prefix, "", yield)
		}
	}
}

// listUploads yields the uploads under prefix, asking the server for those
// under ask. It tells whether there were any and whether to go on.
func (s *Store) listUploads(ctx context.Context, bucket, prefix, ask string, yield func(objstore.Upload, error) bool) (found, goOn bool) {
	client := s.client(bucket, s.regionOf(ctx, bucket))
	in := &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket), Prefix: optional(ask), EncodingType: types.EncodingTypeUrl}
	fail := func(err error) (bool, bool) {
		yield(objstore.Upload{}, err)
		return found, false
	}
	badKey := func(err error) error {
		return newError("list uploads", bucket+"/"+prefix, objstore.Integrity, "key in the listing: %w", err)
	}
	for {
		out, err := do(ctx, s.op("list uploads", bucket, prefix), func(ctx context.Context) (*s3.ListMultipartUploadsOutput, error) {
			return client.ListMultipartUploads(ctx, in)
		})
		if err != nil {
			return fail(err)
		}
		for _, u := range out.Uploads {
			key, err := decodeKey(aws.ToString(u.Key), string(out.EncodingType))
			if err != nil {
				return fail(badKey(err))
			}
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			found = true
			if !yield(objstore.Upload{Bucket: bucket, Key: key, ID: aws.ToString(u.UploadId), Initiated: aws.ToTime(u.Initiated)}, nil) {
				return found, false
			}
		}
		marker, err := decodeKey(aws.ToString(out.NextKeyMarker), string(out.EncodingType))
		if err != nil {
			return fail(badKey(err))
		}
		id := aws.ToString(out.NextUploadIdMarker)
		if !aws.ToBool(out.IsTruncated) || marker == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
			return found, true
		}
		in.KeyMarker, in.UploadIdMarker = optional(marker), optional(id)
	}
}

// AbortUpload ends an upload and frees its parts; one that has ended is no
// error.
func (s *Store) AbortUpload(ctx context.Context, u objstore.Upload) error {
	return newBucket(s, u.Bucket, s.regionOf(ctx, u.Bucket)).abortUpload(ctx, u.Key, u.ID)
}
