package s3store

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"coffer/objstore"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"
)

// reply builds the error that the SDK makes of a reply.
func replyOf(status int, code string) error {
	return &smithy.OperationError{ServiceID: "S3", OperationName: "Op", Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status, Header: http.Header{}}},
		Err:      &smithy.GenericAPIError{Code: code, Message: "text of the server"},
	}}
}

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   objstore.Kind
	}{
		{404, "NoSuchKey", objstore.NotExist}, {404, "NoSuchBucket", objstore.NotExist}, {404, "", objstore.NotExist}, {404, "NoSuchUpload", objstore.NotExist},
		{403, "AccessDenied", objstore.Permission}, {403, "", objstore.Permission}, {403, "InvalidAccessKeyId", objstore.Permission}, {401, "", objstore.Permission},
		{400, "ExpiredToken", objstore.Expired},
		{412, "PreconditionFailed", objstore.Stale},
		{409, "BucketAlreadyExists", objstore.Exist}, {409, "BucketAlreadyOwnedByYou", objstore.Exist}, {409, "BucketNotEmpty", objstore.NotEmpty},
		{409, "ConditionalRequestConflict", objstore.Conflict}, {409, "OperationAborted", objstore.Conflict},
		{503, "SlowDown", objstore.Throttled}, {503, "ServiceUnavailable", objstore.Unavailable}, {500, "InternalError", objstore.Unavailable},
		{502, "", objstore.Unavailable}, {429, "", objstore.Throttled}, {429, "QuotaExceeded", objstore.Quota}, {507, "", objstore.NoSpace},
		{400, "EntityTooLarge", objstore.TooLarge}, {413, "", objstore.TooLarge}, {400, "KeyTooLongError", objstore.NameTooLong},
		{400, "InvalidBucketName", objstore.InvalidName}, {416, "InvalidRange", objstore.InvalidRange}, {416, "", objstore.InvalidRange},
		{403, "InvalidObjectState", objstore.Archived}, {501, "NotImplemented", objstore.Unsupported}, {405, "MethodNotAllowed", objstore.Unsupported},
		{400, "BadDigest", objstore.Integrity}, {400, "KMS.DisabledException", objstore.KeyUnavailable}, {404, "kms:KeyNotFound", objstore.KeyUnavailable},
		{400, "KMS.KMSInvalidStateException", objstore.KeyUnavailable}, {403, "XMinioKMSKeyDisabled", objstore.KeyUnavailable},
		{400, "KMS.ThrottlingException", objstore.Throttled}, {503, "KMS.InternalException", objstore.Unavailable},
		{400, "SomethingNew", objstore.Unknown}, {418, "", objstore.Unknown},
	} {
		err := classify("get", "b/k", replyOf(c.status, c.code))
		require.ErrorIs(t, err, c.want, "%d %s", c.status, c.code)
		var e *objstore.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.status, e.Status)
		require.ErrorContains(t, err, "text of the server")
		require.Equal(t, c.code, codeOf(err))
	}
}

func TestClassifiedErrorsStay(t *testing.T) {
	first := newError("get", "b/k", objstore.Stale, "")
	require.Same(t, first, classify("head", "other", first))
	require.NoError(t, classify("get", "b", nil))
	require.ErrorIs(t, classify("get", "b", context.Canceled), objstore.Canceled)
	require.ErrorIs(t, classify("get", "b", context.DeadlineExceeded), objstore.Unavailable)
	require.ErrorIs(t, classify("get", "b", errors.New("odd")), objstore.Unknown)
}

func TestWhatIsRepeated(t *testing.T) {
	r := newRetryer(nil)
	for _, c := range []struct {
		status int
		code   string
		want   bool
	}{
		{500, "InternalError", true}, {503, "SlowDown", true}, {503, "SlowDownRead", true}, {429, "", true}, {502, "", true},
		{400, "RequestTimeout", true}, {409, "OperationAborted", true}, {400, "BadDigest", true}, {400, "ExpiredToken", true},
		{403, "InvalidAccessKeyId", true}, {429, "QuotaExceeded", false}, {501, "NotImplemented", false}, {404, "NoSuchKey", false},
		{403, "AccessDenied", false}, {412, "PreconditionFailed", false}, {400, "InvalidArgument", false}, {507, "XMinioStorageFull", false},
	} {
		require.Equal(t, c.want, r.IsErrorRetryable(replyOf(c.status, c.code)), "%d %s", c.status, c.code)
	}
	require.False(t, r.IsErrorRetryable(&noCredentials{errors.New("none")}))
	broken := refusal(&http.Response{StatusCode: http.StatusNotFound, Body: io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF))})
	require.True(t, r.IsErrorRetryable(broken), "a refusal that was cut may say something else")
}

func TestCopySourceIsEscaped(t *testing.T) {
	require.Equal(t, "b/a%20b/%2B%25%3F%23/%C3%BC~", copySource("b", objstore.Ref{Key: "a b/+%?#/ü~"}))
	require.Equal(t, "b/k?versionId=v.1%3D", copySource("b", objstore.Ref{Key: "k", VersionID: "v.1="}))
}

// Who has no credentials is told so, though what failed is a request to another server.
func TestNoCredentialsAreNamed(t *testing.T) {
	err := classify("list buckets", "", &noCredentials{&smithyhttp.RequestSendError{Err: errors.New("dial tcp 169.254.169.254:80")}})
	require.ErrorIs(t, err, objstore.Permission)
	require.ErrorContains(t, err, "no usable credentials")
}

// TestNoReplyInOneLine: an error without a reply has no fields of one.
func TestNoReplyInOneLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close()) // nobody listens there
	s := testStore(t, []string{"AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s", "AWS_REGION=us-east-1", "AWS_ENDPOINT_URL=http://" + l.Addr().String()},
		Config{OperationTimeout: 50 * time.Millisecond, ProbeTimeout: 50 * time.Millisecond})
	_, err = s.Buckets(t.Context())
	require.Regexp(t, `^list buckets: store unavailable: dial tcp [0-9.:]+: connect: connection refused \(gave up after .* repetitions\)$`, err.Error())
	require.ErrorIs(t, err, objstore.Unavailable)
}
