package s3store

import (
	"context"
	"iter"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// ListUploads yields the multipart uploads under prefix that were begun and
// not ended, those of other programs too.
func (s *Store) ListUploads(ctx context.Context, bucket, prefix string) iter.Seq2[objstore.Upload, error] {
	return func(yield func(objstore.Upload, error) bool) {
		client := s.client(bucket, s.regionOf(ctx, bucket))
		in := &s3.ListMultipartUploadsInput{Bucket: aws.String(bucket), Prefix: optional(prefix), EncodingType: types.EncodingTypeUrl}
		for {
			out, err := do(ctx, s.op("list uploads", bucket, prefix), func(ctx context.Context) (*s3.ListMultipartUploadsOutput, error) {
				return client.ListMultipartUploads(ctx, in)
			})
			if err != nil {
				yield(objstore.Upload{}, err)
				return
			}
			for _, u := range out.Uploads {
				key, err := decodeKey(aws.ToString(u.Key), out.EncodingType)
				if err != nil {
					yield(objstore.Upload{}, newError("list uploads", bucket+"/"+prefix, objstore.Integrity, "%w", err))
					return
				}
				if !yield(objstore.Upload{Bucket: bucket, Key: key, ID: aws.ToString(u.UploadId), Initiated: aws.ToTime(u.Initiated)}, nil) {
					return
				}
			}
			marker, err := decodeKey(aws.ToString(out.NextKeyMarker), out.EncodingType)
			id := aws.ToString(out.NextUploadIdMarker)
			if err != nil || !aws.ToBool(out.IsTruncated) || marker == aws.ToString(in.KeyMarker) && id == aws.ToString(in.UploadIdMarker) {
				if err != nil {
					yield(objstore.Upload{}, newError("list uploads", bucket+"/"+prefix, objstore.Integrity, "%w", err))
				}
				return
			}
			in.KeyMarker, in.UploadIdMarker = optional(marker), optional(id)
		}
	}
}

// AbortUpload ends an upload and frees its parts; one that has ended is no
// error.
func (s *Store) AbortUpload(ctx context.Context, u objstore.Upload) error {
	return newBucket(s, u.Bucket, s.regionOf(ctx, u.Bucket)).abortUpload(ctx, u.Key, u.ID)
}
