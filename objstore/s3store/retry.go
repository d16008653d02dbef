package s3store

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
)

const (
	// maxAttempts only has to be out of reach: the deadline ends the retries.
	maxAttempts = 100000
	// maxBackoff is the longest pause between two attempts.
	maxBackoff = 10 * time.Second
	// maxConflicts is how often a 409 is repeated: the other writer is
	// either done by then or will not be.
	maxConflicts = 6
	// maxDigestRetries is how often a body that the server received damaged
	// is sent again. A wire that damages three of them will not be better.
	maxDigestRetries = 3
	// maxUnknownHosts is how often a host without an address is looked up
	// again.
	maxUnknownHosts = 4
	// maxReloads is how often one operation may get new credentials.
	maxReloads = 3
)

// errGiveUp ends the SDK's retries; the cause is in the operation's state.
var errGiveUp = errors.New("not repeated")

// retryer repeats requests until the context of the operation ends. It is the
// SDK's standard retryer with its quota removed, since a burst of faults must
// not make unrelated requests fail, and with four more rules: conflicts and
// damaged bodies a few times, an exhausted quota never, expired credentials
// after they were read again.
type retryer struct {
	aws.RetryerV2
	creds *credentialSource // nil for anonymous access
}

func newRetryer(creds *credentialSource) *retryer {
	std := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = maxAttempts
		o.MaxBackoff = maxBackoff
		o.RateLimiter = ratelimit.None
		o.Throttles = append(o.Throttles, retry.IsErrorThrottleFunc(func(err error) aws.Ternary {
			return aws.BoolTernary(kindOf(codeOf(err), statusOf(err)) == objstore.Throttled)
		}))
	})
	return &retryer{RetryerV2: std, creds: creds}
}

// IsErrorRetryable decides whether GetRetryToken is asked at all.
func (r *retryer) IsErrorRetryable(err error) bool {
	code := codeOf(err)
	kind := kindOf(code, statusOf(err))
	if code != "" && kind == objstore.NotExist {
		return false // every second look-up ends so, and all that follows would ask what it is
	}
	if isNoCredentials(err) || isWrongServer(err) {
		return false
	}
	switch kind {
	case objstore.Quota, objstore.NoSpace, objstore.Unsupported:
		return false
	case objstore.Conflict, objstore.Expired, objstore.Throttled, objstore.Integrity:
		return true
	}
	if isLate(err) {
		return kindsByCode[code] == objstore.Unavailable
	}
	if mayBeCredentials(err) {
		return true
	}
	return isTransient(err) || r.RetryerV2.IsErrorRetryable(err)
}

// GetRetryToken is called before each repetition, with the operation's
// context; an error ends the operation.
func (r *retryer) GetRetryToken(ctx context.Context, err error) (func(error) error, error) {
	st := stateOf(ctx)
	if st == nil {
		return nopRelease, nil
	}
	st.lastErr = err
	switch kind := kindOf(codeOf(err), statusOf(err)); {
	case kind == objstore.Conflict:
		if st.conflicts++; st.conflicts > maxConflicts {
			return nil, errGiveUp
		}
	case isUnknownHost(err):
		if st.unknownHosts++; st.unknownHosts > maxUnknownHosts {
			return nil, errGiveUp
		}
	case kind == objstore.Integrity:
		if st.digests++; st.digests > maxDigestRetries {
			return nil, errGiveUp
		}
	case isBare(err) && isClockOff(err) && !st.skewed:
		// The SDK repeats RequestTimeTooSkewed by the store's time; a reply to
		// HEAD cannot say that. The second refusal is another one.
		st.skewed = true
	case kind != objstore.Expired && searchOf(ctx).expected[statusOf(err)] && isBare(err):
		return nil, errGiveUp
	case kind == objstore.Expired, mayBeCredentials(err):
		if st.reloads++; r.creds == nil || st.reloads > maxReloads {
			return nil, errGiveUp
		}
		if e := r.creds.refresh(ctx, st.used, kind == objstore.Expired); e != nil {
			return nil, errGiveUp
		}
		searchOf(ctx).renewed = true
	}
	st.unsure = st.unsure || mayBeDone(err)
	st.retries++
	return nopRelease, nil
}

func nopRelease(error) error { return nil }

// mayBeCredentials reports whether err can mean that the credentials have been
// replaced: a key that is not known any more, or a bare 400 or 403, which is
// all that a reply to HEAD tells of an expired token.
func mayBeCredentials(err error) bool {
	switch codeOf(err) {
	case "InvalidAccessKeyId", "InvalidToken", "Forbidden", "BadRequest":
		return true
	}
	return false
}

// isBare reports whether err tells nothing but a status, as replies to HEAD.
func isBare(err error) bool {
	c := codeOf(err)
	return c == "Forbidden" || c == "BadRequest"
}

// maxSkew is how far a clock may be off: S3 refuses more than 15 minutes.
const maxSkew = 10 * time.Minute

// isClockOff reports whether the reply was written at quite another time, by
// the store's clock.
func isClockOff(err error) bool {
	date, perr := http.ParseTime(headerOf(err, "Date"))
	return perr == nil && time.Since(date).Abs() > maxSkew
}

// isWrongServer reports whether what answers is not, or cannot be shown to be,
// the store: its certificate is not trusted or of another name, or it does not
// speak TLS.
func isWrongServer(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// isUnknownHost reports whether the name service knows no such host. It says
// so, rarely, about hosts that exist.
func isUnknownHost(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// isTransient adds the broken connections that the SDK's list does not know.
func isTransient(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, errNoReply) || errors.Is(err, http.ErrServerClosed) {
		return true
	}
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
