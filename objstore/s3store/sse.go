package s3store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"coffer/objstore"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// headerSSE names the algorithm, in requests and in replies.
const headerSSE = "x-amz-server-side-encryption"

// ask is the protection that requests ask for, or the key that they show.
type ask struct {
	objstore.Encryption
	// context is the encryption context of a KMS, as its header wants it: the
	// base64 of a JSON object; "" for none.
	context string
	// everywhere has the requests for the parts of an upload ask as well.
	everywhere bool
}

// roles is what a request needs to know of keys, by its name.
type roles struct {
	choose bool // it decides how a new object is protected
	repeat bool // it may repeat what an earlier request has decided
	key    bool // it takes the customer key of the object that it names
	source bool // it takes the customer key of the object that it copies from
}

// sseVerbs are the requests that take headers of server-side encryption. The
// parts of an upload do not repeat what the upload has chosen, which AWS
// refuses, unless they must (see insisting), but do need its customer key, as
// does the Complete of an upload with checksums.
var sseVerbs = map[string]roles{
	"PutObject":               {choose: true, key: true},
	"CreateMultipartUpload":   {choose: true, key: true},
	"CopyObject":              {choose: true, key: true, source: true},
	"UploadPart":              {repeat: true, key: true},
	"UploadPartCopy":          {repeat: true, key: true, source: true},
	"CompleteMultipartUpload": {repeat: true, key: true},
	"GetObject":               {key: true},
	"HeadObject":              {key: true},
}

type (
	sseKey       struct{}
	sseSourceKey struct{}
)

// withSSE asks for e in every request of ctx that can ask for it, and shows
// its customer key in every one that needs it. This, withSource and
// setHeaders are the only place where requests get encryption headers: what a
// verb needs is decided here and not where it is called. A context holds the
// MD5 of a key and never the key.
func withSSE(ctx context.Context, e ask) context.Context {
	return context.WithValue(ctx, sseKey{}, e)
}

// withSource shows the customer key of that MD5 for the object that is copied
// from; "" is none.
func withSource(ctx context.Context, md5 string) context.Context {
	return context.WithValue(ctx, sseSourceKey{}, md5)
}

// kmsContext is the header's value of an encryption context, "" for none.
func kmsContext(pairs map[string]string) string {
	if len(pairs) == 0 {
		return ""
	}
	text, _ := json.Marshal(pairs) // strings never fail, and keys are sorted
	return base64.StdEncoding.EncodeToString(text)
}

// sseHeaders returns the headers that verb needs for e, with the source's
// customer key.
func (r *keyring) sseHeaders(verb string, e ask, source string) (map[string]string, error) {
	role := sseVerbs[verb]
	h := map[string]string{}
	if (role.choose || role.repeat && e.everywhere) && e.SSEHeader() != "" {
		h[headerSSE] = e.SSEHeader()
		if e.KMSKeyID != "" {
			h["x-amz-server-side-encryption-aws-kms-key-id"] = e.KMSKeyID
		}
		if e.BucketKey {
			h["x-amz-server-side-encryption-bucket-key-enabled"] = "true"
		}
		if e.context != "" {
			h["x-amz-server-side-encryption-context"] = e.context
		}
	}
	if role.key && e.Mode == objstore.ModeSSEC {
		if err := r.customerHeaders(h, headerSSE, e.CustomerKeyMD5); err != nil {
			return nil, err
		}
	}
	if role.source && source != "" {
		if err := r.customerHeaders(h, "x-amz-copy-source-server-side-encryption", source); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// customerHeaders adds the three headers of a customer key.
func (r *keyring) customerHeaders(h map[string]string, prefix, md5 string) error {
	k, ok := r.find(md5)
	if !ok {
		return fmt.Errorf("%w: no customer key with MD5 %s is configured", objstore.KeyUnavailable, md5)
	}
	h[prefix+"-customer-algorithm"] = "AES256"
	h[prefix+"-customer-key"] = base64.StdEncoding.EncodeToString((*k.secret).raw[:])
	h[prefix+"-customer-key-md5"] = k.MD5()
	return nil
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

// set applies withSSE, withSource and withHeader to the headers of a request
// that is not signed yet.
func (r *keyring) set(ctx context.Context, verb string, header http.Header) error {
	e, _ := ctx.Value(sseKey{}).(ask)
	source, _ := ctx.Value(sseSourceKey{}).(string)
	sse, err := r.sseHeaders(verb, e, source)
	if err != nil {
		return err
	}
	for name, value := range sse {
		header.Set(name, value)
	}
	h, _ := ctx.Value(headerKey{}).(http.Header)
	for name, values := range h {
		header[name] = values
	}
	return nil
}

// setHeaders is set as a middleware of the SDK.
func (r *keyring) setHeaders(stack *middleware.Stack) error {
	return stack.Build.Add(middleware.BuildMiddlewareFunc("CofferHeaders",
		func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
			if req, ok := in.Request.(*smithyhttp.Request); ok {
				if err := r.set(ctx, awsmiddleware.GetOperationName(ctx), req.Header); err != nil {
					return middleware.BuildOutput{}, middleware.Metadata{}, err
				}
			}
			return next.HandleBuild(ctx, in)
		}), middleware.After)
}

// encryptionIn reads what the headers of a reply say about an object's
// protection.
func encryptionIn(h http.Header) objstore.Encryption {
	bucketKey := strings.EqualFold(h.Get("X-Amz-Server-Side-Encryption-Bucket-Key-Enabled"), "true")
	return encryptionOf(h.Get("X-Amz-Server-Side-Encryption"), h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"),
		h.Get("X-Amz-Server-Side-Encryption-Customer-Key-Md5"), bucketKey)
}

// encryptionOf reads what a reply says about an object's protection.
func encryptionOf(algorithm, keyID, customerKeyMD5 string, bucketKey bool) objstore.Encryption {
	mode, ok := objstore.ModeOfSSEHeader(algorithm)
	if !ok {
		// A word that no version of S3 documents proves nothing.
		mode = objstore.ModeNone
	}
	e := objstore.Encryption{Mode: mode, BucketKey: bucketKey}
	if customerKeyMD5 != "" {
		e.Mode, e.CustomerKeyMD5 = objstore.ModeSSEC, customerKeyMD5
	}
	if mode == objstore.ModeSSEKMS || mode == objstore.ModeDSSEKMS {
		e.KMSKeyID = keyID
	}
	return e
}
