package emulator_test

import (
	"context"
	"strings"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// swapHash makes the SDK sign the hash of another body.
func swapHash(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("swapHash", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		const other = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
		in.Request.(*smithyhttp.Request).Header.Set("X-Amz-Content-Sha256", other)
		return next.HandleFinalize(v4.SetPayloadHash(ctx, other), in)
	}), "Signing", middleware.Before)
}

// dropChecksums sends a request without what the SDK computed of its body.
func dropChecksums(stack *middleware.Stack) error {
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("dropChecksums", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
		h := in.Request.(*smithyhttp.Request).Header
		for name := range h {
			if strings.HasPrefix(name, "X-Amz-Checksum-") || name == "Content-Md5" || name == "X-Amz-Sdk-Checksum-Algorithm" {
				h.Del(name)
			}
		}
		return next.HandleFinalize(ctx, in)
	}), "Signing", middleware.Before)
}
