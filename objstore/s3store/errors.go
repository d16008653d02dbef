package s3store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"coffer/objstore"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// kindsByCode is the one table from S3 error codes to kinds. Codes that only
// some servers use are marked with one of them. PreconditionFailed is not
// here: what it means depends on the condition that was sent.
var kindsByCode = map[string]objstore.Kind{
	"NoSuchKey": objstore.NotExist, "NoSuchBucket": objstore.NotExist, "NotFound": objstore.NotExist,
	"NoSuchUpload": objstore.NotExist, "NoSuchVersion": objstore.NotExist,

	"BucketAlreadyExists": objstore.Exist, "BucketAlreadyOwnedByYou": objstore.Exist,
	"ObjectParentIsFile": objstore.Exist, "ExistingObjectIsDirectory": objstore.Exist, // versitygw
	"BucketNotEmpty": objstore.NotEmpty,

	"AccessDenied": objstore.Permission, "AccessDeniedException": objstore.Permission,
	"AllAccessDisabled": objstore.Permission, "AccountProblem": objstore.Permission,
	"InvalidAccessKeyId": objstore.Permission, "SignatureDoesNotMatch": objstore.Permission,
	"InvalidSecurity": objstore.Permission, "NotSignedUp": objstore.Permission,
	"RequestTimeTooSkewed": objstore.Permission, "InvalidToken": objstore.Permission,
	"Forbidden": objstore.Permission, "AuthorizationHeaderMalformed": objstore.Permission,

	"ExpiredToken": objstore.Expired, "ExpiredTokenException": objstore.Expired,
	"TokenRefreshRequired": objstore.Expired, "RequestExpired": objstore.Expired,

	"ConditionalRequestConflict": objstore.Conflict, "OperationAborted": objstore.Conflict,

	"SlowDown": objstore.Throttled, "Throttling": objstore.Throttled, "ThrottlingException": objstore.Throttled,
	"RequestLimitExceeded": objstore.Throttled, "TooManyRequests": objstore.Throttled,
	"TooManyRequestsException": objstore.Throttled, "BandwidthLimitExceeded": objstore.Throttled,
	"SlowDownRead": objstore.Throttled, "SlowDownWrite": objstore.Throttled, // MinIO

	"QuotaExceeded": objstore.Quota, "XMinioAdminBucketQuotaExceeded": objstore.Quota, // Scality, MinIO
	"TooManyBuckets": objstore.Quota, "ServiceQuotaExceededException": objstore.Quota,
	"XMinioStorageFull": objstore.NoSpace, "InsufficientStorage": objstore.NoSpace,

	"EntityTooLarge": objstore.TooLarge, "MetadataTooLarge": objstore.TooLarge, "MaxMessageLengthExceeded": objstore.TooLarge,
	"TooManyParts": objstore.TooLarge, // Scality

	"KeyTooLongError": objstore.NameTooLong, "KeyTooLong": objstore.NameTooLong,
	"XMinioInvalidObjectName": objstore.InvalidName, "InvalidObjectName": objstore.InvalidName, // MinIO, RGW
	"InvalidBucketName": objstore.InvalidName, "InvalidURI": objstore.InvalidName, "InvalidInput": objstore.InvalidName, // Scality: control characters
	"XMinioParentIsObject": objstore.Exist, // MinIO

	"InvalidRange":       objstore.InvalidRange,
	"InvalidObjectState": objstore.Archived, "RestoreAlreadyInProgress": objstore.Archived,

	"NotImplemented": objstore.Unsupported, "MethodNotAllowed": objstore.Unsupported,
	"DirectoryObjectContainsData": objstore.Unsupported, // versitygw

	"BadDigest": objstore.Integrity, "InvalidDigest": objstore.Integrity, "XAmzContentChecksumMismatch": objstore.Integrity,
	"XAmzContentSHA256Mismatch": objstore.Integrity, "IncompleteBody": objstore.Integrity,

	"InternalError": objstore.Unavailable, "ServiceUnavailable": objstore.Unavailable, "RequestTimeout": objstore.Unavailable,
}

// helpByCode adds what a user can do to errors whose text does not say it.
var helpByCode = map[string]string{
	"InvalidAccessKeyId":           "the store does not know this access key: check the profile and that the key belongs to this endpoint",
	"SignatureDoesNotMatch":        "the secret key does not fit the access key",
	"RequestTimeTooSkewed":         "the clock of this machine differs too much from the store's",
	"ExpiredToken":                 "renew the credentials; they are read again at the next request",
	"AuthorizationHeaderMalformed": "name the region that the store expects",
	"InvalidObjectState":           "the object is archived and must be restored before it can be read",
}

// kindOf classifies a reply by its code, and by its status where the code says
// nothing: replies to HEAD carry no code.
func kindOf(code string, status int) objstore.Kind {
	if k, ok := kindsByCode[code]; ok {
		return k
	}
	if isKMSCode(code) {
		// Such as KMS.DisabledException of AWS and kms:KeyNotFound of MinIO.
		switch {
		case strings.Contains(code, "Throttl"):
			return objstore.Throttled
		case status >= 500 && !strings.HasPrefix(code, "KMS."), strings.Contains(code, "Internal"), strings.Contains(code, "Timeout"):
			return objstore.Unavailable
		}
		return objstore.KeyUnavailable
	}
	switch status {
	case http.StatusNotFound:
		return objstore.NotExist
	case http.StatusUnauthorized, http.StatusForbidden:
		return objstore.Permission
	case http.StatusConflict:
		return objstore.Conflict
	case http.StatusPreconditionFailed:
		return objstore.Stale
	case http.StatusRequestEntityTooLarge:
		return objstore.TooLarge
	case http.StatusRequestedRangeNotSatisfiable:
		return objstore.InvalidRange
	case http.StatusTooManyRequests:
		return objstore.Throttled
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return objstore.Unsupported
	case http.StatusInsufficientStorage:
		return objstore.NoSpace
	}
	if status >= 500 {
		return objstore.Unavailable
	}
	return objstore.Unknown
}

// isKMSCode reports whether an error code is about a key of a KMS. The codes
// differ by server and only the prefix is common.
func isKMSCode(code string) bool {
	return strings.HasPrefix(strings.TrimPrefix(strings.ToLower(code), "xminio"), "kms")
}

// aboutKMSKey gives the kind of a refused key to the one answer that does not
// say so: RGW does not know the "access key" when it does not know the KMS key
// that a request has named.
func aboutKMSKey(ctx context.Context, err error) error {
	e, _ := ctx.Value(sseKey{}).(ask)
	if e.KMSKeyID == "" || codeOf(err) != "InvalidAccessKeyId" {
		return err
	}
	var oe *objstore.Error
	if !errors.As(err, &oe) {
		return err
	}
	c := *oe
	c.Kind = objstore.KeyUnavailable
	c.Err = fmt.Errorf("the store knows no KMS key %q, or not the access key: %w", e.KMSKeyID, oe.Err)
	return &c
}

// codeOf returns the S3 error code of err, "" without one.
func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// statusOf returns the HTTP status of err, 0 when there was no answer.
func statusOf(err error) int {
	if re, ok := errors.AsType[*smithyhttp.ResponseError](err); ok && re.Response != nil {
		return re.HTTPStatusCode()
	}
	if oe, ok := errors.AsType[*objstore.Error](err); ok {
		return oe.Status
	}
	return 0
}

// headerOf returns a header of the reply that err stands for.
func headerOf(err error, name string) string {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) && re.Response != nil && re.Response.Response != nil {
		return re.Response.Header.Get(name)
	}
	return ""
}

// classify turns err, an error of the SDK, into an [objstore.Error]. Errors
// that are classified already pass unchanged.
func classify(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var done *objstore.Error
	if errors.As(err, &done) {
		return err
	}
	e := &objstore.Error{Op: op, Key: name, Err: err, Status: statusOf(err)}
	var rid *awshttp.ResponseError
	if errors.As(err, &rid) {
		e.RequestID = rid.ServiceRequestID()
	}
	var kind objstore.Kind
	var netErr net.Error
	var api smithy.APIError
	switch {
	case isNoCredentials(err):
		e.Kind, e.Status, e.RequestID = objstore.Permission, 0, ""
	case errors.As(err, &api):
		e.Kind = kindOf(api.ErrorCode(), e.Status)
		if e.Kind == objstore.Unsupported && headerOf(err, "x-amz-delete-marker") == "true" {
			e.Kind = objstore.NotExist // 405 is the answer for the version of a delete marker
		}
		// The SDK's own text repeats status and request id, which we print.
		msg := api.ErrorCode()
		if m := api.ErrorMessage(); m != "" && m != api.ErrorCode() {
			msg += ": " + m
		}
		if help := helpByCode[api.ErrorCode()]; help != "" {
			msg += " (" + help + ")"
		}
		e.Err = &shortError{text: msg, cause: err}
	case errors.As(err, &kind):
		e.Kind = kind
	case e.Status != 0:
		e.Kind = kindOf("", e.Status)
	case errors.Is(err, context.Canceled):
		e.Kind = objstore.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr):
		e.Kind = objstore.Unavailable
	default:
		e.Kind = kindWithoutReply(err)
	}
	// The SDK's own text has the fields of a reply, which there was none of.
	if send, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok && e.Status == 0 && !isNoCredentials(err) {
		e.Err = &shortError{text: send.Err.Error(), cause: err}
	}
	return e
}

// kindWithoutReply classifies failures that happened before or after, but not
// in, an exchange of messages.
func kindWithoutReply(err error) objstore.Kind {
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) || isBrokenBody(err) {
		return objstore.Unavailable
	}
	return objstore.Unknown
}

// shortError is what is new in an error of the SDK, which stays reachable for
// errors.As.
type shortError struct {
	text  string
	cause error
}

func (e *shortError) Error() string { return e.text }
func (e *shortError) Unwrap() error { return e.cause }

// newError returns an error that we found ourselves.
func newError(op, name string, kind objstore.Kind, format string, args ...any) *objstore.Error {
	e := &objstore.Error{Op: op, Key: name, Kind: kind}
	if format != "" {
		e.Err = fmt.Errorf(format, args...)
	}
	return e
}

// withKind returns err with another kind: a 412 means Exist or Stale, by the
// condition that was sent.
func withKind(err error, kind objstore.Kind) error {
	var e *objstore.Error
	if !errors.As(err, &e) {
		return err
	}
	c := *e
	c.Kind = kind
	return &c
}

// preconditionKind is what 412 means under cond.
func preconditionKind(cond objstore.Condition) objstore.Kind {
	if cond.IfAbsent {
		return objstore.Exist
	}
	return objstore.Stale
}

// isPrecondition reports whether err is the refusal of a condition.
func isPrecondition(err error) bool {
	return statusOf(err) == http.StatusPreconditionFailed || codeOf(err) == "PreconditionFailed"
}

// isLate reports whether err was in the body of a reply of 200, as of a copy or
// a Complete that fails late. The SDK takes it for a 500, whatever it says.
func isLate(err error) bool {
	var re *smithyhttp.ResponseError
	return errors.As(err, &re) && re.Response != nil && re.Response.Response != nil &&
		re.HTTPStatusCode() == http.StatusInternalServerError && strings.HasPrefix(re.Response.Status, "200")
}
