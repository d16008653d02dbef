package s3store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// operation names one request with all its repetitions, for errors and for
// its deadline.
type operation struct {
	verb        string // as in objstore.Error.Op
	bucket, key string
	timeout     time.Duration
	// once tells that a refused checksum is what the request is to find out.
	once bool
}

// name returns "bucket" or "bucket/key".
func (o operation) name() string {
	if o.key == "" {
		return o.bucket
	}
	return o.bucket + "/" + o.key
}

// opState is what the retryer, the credentials and the operation tell each
// other. It travels in the context and is touched by one goroutine.
type opState struct {
	begun                                              time.Time
	retries, conflicts, digests, reloads, unknownHosts int
	skewed                                             bool
	unsure                                             bool // an attempt may have been carried out
	lastErr                                            error
	used                                               aws.Credentials
}

type stateKey struct{}

// stateOf returns the state of the operation that ctx belongs to, or nil.
func stateOf(ctx context.Context) *opState {
	st, _ := ctx.Value(stateKey{}).(*opState)
	return st
}

// errDeadline is the cause of an operation's context that ran out of time.
var errDeadline = errors.New("deadline")

// do runs f, one request with its repetitions, under the deadline of o and
// classifies its error.
func do[T any](ctx context.Context, o operation, f func(context.Context) (T, error)) (T, error) {
	v, _, err := doState(ctx, o, f)
	return v, err
}

// doState is do, and tells how the operation went.
func doState[T any](ctx context.Context, o operation, f func(context.Context) (T, error)) (T, *opState, error) {
	st := &opState{begun: time.Now()}
	if o.once {
		st.digests = maxDigestRetries
	}
	octx, cancel := context.WithTimeoutCause(context.WithValue(ctx, stateKey{}, st), o.timeout, errDeadline)
	defer cancel()
	v, err := f(octx)
	if err != nil {
		err = o.fail(ctx, octx, st, err)
	}
	return v, st, err
}

// fail classifies err. An operation that ended while the last reply was
// worth a repetition fails with the kind of that reply, not with the bare
// fact that time was over.
func (o operation) fail(parent, ctx context.Context, st *opState, err error) error {
	if errors.Is(parent.Err(), context.Canceled) {
		return newError(o.verb, o.name(), objstore.Canceled, "%w", context.Cause(parent))
	}
	if ctx.Err() != nil || errors.Is(err, errGiveUp) {
		if st.lastErr != nil {
			err = st.lastErr
		}
		if ctx.Err() != nil {
			return gaveUp(classify(o.verb, o.name(), err), st.retries, time.Since(st.begun))
		}
	}
	return aboutKMSKey(parent, classify(o.verb, o.name(), err))
}

// gaveUp says in err how long it was tried.
func gaveUp(err error, retries int, after time.Duration) error {
	var e *objstore.Error
	if !errors.As(err, &e) {
		return err
	}
	c := *e
	if c.Kind == objstore.Unknown || c.Kind == objstore.Canceled {
		c.Kind = objstore.Unavailable
	}
	c.Err = fmt.Errorf("%w (gave up after %v and %d repetitions)", e.Err, after.Round(time.Second), retries)
	return &c
}

// op returns an operation with the usual deadline.
func (s *Store) op(verb, bucket, key string) operation {
	return operation{verb: verb, bucket: bucket, key: key, timeout: s.cfg.OperationTimeout}
}

// probe returns an operation with the deadline of a probe.
func (s *Store) probe(verb, bucket, key string) operation {
	return operation{verb: verb, bucket: bucket, key: key, timeout: s.cfg.ProbeTimeout}
}

// sending adds time for a body of n bytes: one second for each MiB, so that a
// slow line is not taken for a dead one.
func (o operation) sending(n int64) operation {
	o.timeout += time.Duration(n>>20) * time.Second
	return o
}

// stream runs f like do, but keeps the context of a reply whose body is still
// to be read: the deadline governs f alone. The caller calls cancel when the
// body is done with; its cause is what the body's reader then fails with.
func stream[T any](ctx context.Context, o operation, f func(context.Context) (T, error)) (v T, body context.Context, cancel context.CancelCauseFunc, err error) {
	st := &opState{begun: time.Now()}
	body, cancel = context.WithCancelCause(context.WithValue(ctx, stateKey{}, st))
	timer := time.AfterFunc(o.timeout, func() { cancel(errDeadline) })
	v, err = f(body)
	if !timer.Stop() && err == nil {
		err = errDeadline
	}
	if err != nil {
		err = o.fail(ctx, body, st, err)
		cancel(nil)
	}
	return v, body, cancel, err
}
