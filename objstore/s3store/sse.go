package s3store

import (
	"context"
	"net/http"

	"coffer/objstore"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// headerSSE names the algorithm, in requests and in replies.
const headerSSE = "x-amz-server-side-encryption"

// sseVerbs are the requests that create an object version and so take the
// headers of server-side encryption with keys of the store or of a KMS.
// UploadPart and Complete must not have them: the upload carries the choice.
var sseVerbs = map[string]bool{"PutObject": true, "CreateMultipartUpload": true, "CopyObject": true}

type sseKey struct{}

// withSSE asks for e in every request of ctx that can ask for it. This and
// setHeaders are the only place where requests get encryption headers: what a
// verb needs is decided here and not where it is called.
func withSSE(ctx context.Context, e objstore.Encryption) context.Context {
	if e.SSEHeader() == "" {
		return ctx
	}
	return context.WithValue(ctx, sseKey{}, e)
}

// sseHeaders returns the headers that verb needs for e.
func sseHeaders(verb string, e objstore.Encryption) map[string]string {
	if !sseVerbs[verb] || e.SSEHeader() == "" {
		return nil
	}
	h := map[string]string{headerSSE: e.SSEHeader()}
	if e.KMSKeyID != "" {
		h["x-amz-server-side-encryption-aws-kms-key-id"] = e.KMSKeyID
	}
	if e.BucketKey {
		h["x-amz-server-side-encryption-bucket-key-enabled"] = "true"
	}
	return h
}

type headerKey struct{}

// withHeader adds a header to every request of ctx. It is for what the SDK's
// inputs cannot express: an Expires that is no date, a checksum mode without
// the SDK's own check, another vendor's header.
func withHeader(ctx context.Context, name, value string) context.Context {
	old, _ := ctx.Value(headerKey{}).(http.Header)
	h := old.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(name, value)
	return context.WithValue(ctx, headerKey{}, h)
}

// setHeaders is the middleware that applies withSSE and withHeader, before the
// request is signed.
func setHeaders(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("CofferHeaders",
		func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			if req, ok := in.Request.(*smithyhttp.Request); ok {
				if e, ok := ctx.Value(sseKey{}).(objstore.Encryption); ok {
					for name, value := range sseHeaders(awsmiddleware.GetOperationName(ctx), e) {
						req.Header.Set(name, value)
					}
				}
				h, _ := ctx.Value(headerKey{}).(http.Header)
				for name, values := range h {
					req.Header[name] = values
				}
			}
			return next.HandleBuild(ctx, in)
		}), middleware.After)
}

// encryptionOf reads what a reply says about an object's protection.
func encryptionOf(algorithm string, keyID, customerKeyMD5 *string, bucketKey *bool) objstore.Encryption {
	mode, ok := objstore.ModeOfSSEHeader(algorithm)
	if !ok {
		// A word that no version of S3 documents proves nothing.
		mode = objstore.ModeNone
	}
	e := objstore.Encryption{Mode: mode}
	if customerKeyMD5 != nil && *customerKeyMD5 != "" {
		e.Mode, e.CustomerKeyMD5 = objstore.ModeSSEC, *customerKeyMD5
	}
	if keyID != nil && (mode == objstore.ModeSSEKMS || mode == objstore.ModeDSSEKMS) {
		e.KMSKeyID = *keyID
	}
	e.BucketKey = bucketKey != nil && *bucketKey
	return e
}
