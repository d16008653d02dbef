package emulator

import (
	"encoding/xml"
	"fmt"
	"net/http"
)

// apiError is an answer of S3's error form. It travels as an error through
// readers and handlers, and reply.go turns it into XML.
type apiError struct {
	Code    string
	Status  int
	Message string
	// Extra are further XML elements, such as the Region of a signature that
	// names another one.
	Extra []extraElement
	// Header are reply headers beside the body's own.
	Header map[string]string
}

type extraElement struct{ Name, Value string }

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d): %s", e.Code, e.Status, e.Message) }

// statusOf is the HTTP status of error codes, from the S3 API reference, "Error
// responses": those that this server answers with by itself and those that a
// [Fault] may name by Code alone.
var statusOf = map[string]int{
	"AccessControlListNotSupported":      http.StatusBadRequest,
	"AccessDenied":                       http.StatusForbidden,
	"AuthorizationHeaderMalformed":       http.StatusBadRequest,
	"AuthorizationQueryParametersError":  http.StatusBadRequest,
	"BadDigest":                          http.StatusBadRequest,
	"BadRequest":                         http.StatusBadRequest,
	"BucketAlreadyOwnedByYou":            http.StatusConflict,
	"BucketNotEmpty":                     http.StatusConflict,
	"EntityTooLarge":                     http.StatusBadRequest,
	"EntityTooSmall":                     http.StatusBadRequest,
	"ExpiredToken":                       http.StatusBadRequest,
	"IllegalLocationConstraintException": http.StatusBadRequest,
	"IncompleteBody":                     http.StatusBadRequest,
	"InternalError":                      http.StatusInternalServerError,
	"InvalidAccessKeyId":                 http.StatusForbidden,
	"InvalidArgument":                    http.StatusBadRequest,
	"InvalidBucketName":                  http.StatusBadRequest,
	"InvalidDigest":                      http.StatusBadRequest,
	"InvalidEncryptionAlgorithmError":    http.StatusBadRequest,
	"InvalidLocationConstraint":          http.StatusBadRequest,
	"InvalidObjectState":                 http.StatusForbidden,
	"InvalidPart":                        http.StatusBadRequest,
	"InvalidPartNumber":                  http.StatusRequestedRangeNotSatisfiable,
	"InvalidPartOrder":                   http.StatusBadRequest,
	"InvalidRange":                       http.StatusRequestedRangeNotSatisfiable,
	"InvalidRequest":                     http.StatusBadRequest,
	"InvalidStorageClass":                http.StatusBadRequest,
	"InvalidTag":                         http.StatusBadRequest,
	"InvalidToken":                       http.StatusBadRequest,
	"InvalidURI":                         http.StatusBadRequest,
	"KeyTooLongError":                    http.StatusBadRequest,
	"MalformedXML":                       http.StatusBadRequest,
	"MetadataTooLarge":                   http.StatusBadRequest,
	"MethodNotAllowed":                   http.StatusMethodNotAllowed,
	"MissingContentLength":               http.StatusLengthRequired,
	"NoSuchBucket":                       http.StatusNotFound,
	"NoSuchKey":                          http.StatusNotFound,
	"NoSuchTagSet":                       http.StatusNotFound,
	"NoSuchUpload":                       http.StatusNotFound,
	"NoSuchVersion":                      http.StatusNotFound,
	"NotImplemented":                     http.StatusNotImplemented,
	"OperationAborted":                   http.StatusConflict,
	"PermanentRedirect":                  http.StatusMovedPermanently,
	"PreconditionFailed":                 http.StatusPreconditionFailed,
	"RequestTimeTooSkewed":               http.StatusForbidden,
	"ServerSideEncryptionConfigurationNotFoundError": http.StatusNotFound,
	"ServiceUnavailable":                             http.StatusServiceUnavailable,
	"SignatureDoesNotMatch":                          http.StatusForbidden,
	"SlowDown":                                       http.StatusServiceUnavailable,
	"XAmzContentSHA256Mismatch":                      http.StatusBadRequest,
	"RequestTimeout":                                 http.StatusBadRequest,
	"QuotaExceeded":                                  http.StatusTooManyRequests,
	"ConditionalRequestConflict":                     http.StatusConflict,
	"MissingRequestBodyError":                        http.StatusBadRequest,
	"MaxMessageLengthExceeded":                       http.StatusBadRequest,

	"InvalidInput":            http.StatusBadRequest,
	"KeyTooLong":              http.StatusBadRequest,
	"XMinioInvalidObjectName": http.StatusBadRequest,

	// What S3 makes of the key service's errors; kms:KeyNotFound is MinIO's.
	"KMS.DisabledException":        http.StatusBadRequest,
	"KMS.InvalidKeyUsageException": http.StatusBadRequest,
	"KMS.KMSInvalidStateException": http.StatusBadRequest,
	"KMS.NotFoundException":        http.StatusBadRequest,
	"kms:KeyNotFound":              http.StatusNotFound,

	// KMS, from the API reference of AWS KMS, "Common errors" and each
	// operation's own.
	"AccessDeniedException":               http.StatusBadRequest,
	"AlreadyExistsException":              http.StatusBadRequest,
	"DisabledException":                   http.StatusBadRequest,
	"ExpiredTokenException":               http.StatusBadRequest,
	"IncompleteSignatureException":        http.StatusBadRequest,
	"IncorrectKeyException":               http.StatusBadRequest,
	"InvalidAliasNameException":           http.StatusBadRequest,
	"InvalidArnException":                 http.StatusBadRequest,
	"InvalidCiphertextException":          http.StatusBadRequest,
	"InvalidKeyUsageException":            http.StatusBadRequest,
	"InvalidSignatureException":           http.StatusBadRequest,
	"KMSInternalException":                http.StatusInternalServerError,
	"KMSInvalidStateException":            http.StatusBadRequest,
	"KeyUnavailableException":             http.StatusInternalServerError,
	"MissingAuthenticationTokenException": http.StatusBadRequest,
	"NotFoundException":                   http.StatusBadRequest,
	"ThrottlingException":                 http.StatusBadRequest,
	"UnknownOperationException":           http.StatusBadRequest,
	"UnrecognizedClientException":         http.StatusBadRequest,
	"UnsupportedOperationException":       http.StatusBadRequest,
	"ValidationException":                 http.StatusBadRequest,
}

// fail makes an error of a code that statusOf knows.
func fail(code, format string, args ...any) *apiError {
	status, ok := statusOf[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	return &apiError{Code: code, Status: status, Message: fmt.Sprintf(format, args...)}
}

func (e *apiError) with(name, value string) *apiError {
	e.Extra = append(e.Extra, extraElement{name, value})
	return e
}

func (e *apiError) withHeader(name, value string) *apiError {
	if e.Header == nil {
		e.Header = map[string]string{}
	}
	e.Header[name] = value
	return e
}

func errNoSuchKey(key string) *apiError {
	return fail("NoSuchKey", "The specified key does not exist.").with("Key", key)
}

func errNoSuchBucket(name string) *apiError {
	return fail("NoSuchBucket", "The specified bucket does not exist").with("BucketName", name)
}

func errNoSuchUpload(id string) *apiError {
	return fail("NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.").with("UploadId", id)
}

func errPrecondition(condition string) *apiError {
	return fail("PreconditionFailed", "At least one of the pre-conditions you specified did not hold").with("Condition", condition)
}

// errorXML is S3's error document.
type errorXML struct {
	XMLName   xml.Name `xml:"Error"`
	Code      string
	Message   string
	Extra     []extraXML
	Resource  string `xml:",omitempty"`
	RequestID string `xml:"RequestId"`
	HostID    string `xml:"HostId"`
}

type extraXML struct {
	XMLName xml.Name
	Value   string `xml:",chardata"`
}

func (e *apiError) document(resource, requestID string) errorXML {
	doc := errorXML{Code: e.Code, Message: e.Message, Resource: resource, RequestID: requestID, HostID: "emulator"}
	for _, x := range e.Extra {
		doc.Extra = append(doc.Extra, extraXML{XMLName: xml.Name{Local: x.Name}, Value: x.Value})
	}
	return doc
}
