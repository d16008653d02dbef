package s3store

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

const (
	// emptyInterval is the shortest time from a reading of the chain that
	// found nothing new to the next: a store that refuses every request must
	// not make us run a credential process for each.
	emptyInterval = 10 * time.Second
	// doubtInterval is the same for refusals that only may be about the
	// credentials: chains exist that give new ones at every reading.
	doubtInterval = time.Minute
)

// errNothingNewer tells that the chain still gives the refused credentials.
var errNothingNewer = errors.New("the credential chain gives nothing newer")

// credentialSource is an [aws.CredentialsProvider] that can be told to read
// the whole chain again. The SDK reads environment and files once and never
// again, while jobs outlive the temporary tokens in them.
type credentialSource struct {
	load func(context.Context) (aws.CredentialsProvider, error)
	now  func() time.Time

	mu        sync.Mutex
	current   aws.CredentialsProvider
	flight    chan struct{} // closed when the reload under way ends; nil without one
	lastLoad  time.Time     // when the chain was last read again
	lastEmpty time.Time     // when that last found nothing newer
}

// newCredentialSource starts with the provider that was loaded already.
func newCredentialSource(first aws.CredentialsProvider, load func(context.Context) (aws.CredentialsProvider, error)) *credentialSource {
	return &credentialSource{load: load, now: time.Now, current: first}
}

// Retrieve returns the credentials in force and notes them in the operation,
// so that a refusal is charged to these and not to newer ones.
func (c *credentialSource) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c.mu.Lock()
	p := c.current
	c.mu.Unlock()
	v, err := p.Retrieve(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return v, ctx.Err()
		}
		return v, &noCredentials{err}
	}
	if st := stateOf(ctx); st != nil {
		st.used = v
	}
	return v, nil
}

// noCredentials tells that the chain gave none. Its cause can hold the status
// of some other server, which must not be taken for the store's.
type noCredentials struct{ cause error }

func (e *noCredentials) Error() string { return "no usable credentials: " + e.cause.Error() }
func (e *noCredentials) Unwrap() error { return e.cause }

func isNoCredentials(err error) bool {
	_, ok := errors.AsType[*noCredentials](err)
	return ok
}

// refresh reads the chain again because refused was refused, for certain or
// perhaps. It returns nil when other credentials are in force afterwards.
func (c *credentialSource) refresh(ctx context.Context, refused aws.Credentials, certain bool) error {
	for {
		c.mu.Lock()
		cur := c.current
		if c.flight != nil {
			wait := c.flight
			c.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		c.flight = make(chan struct{})
		now := c.now()
		recent := now.Sub(c.lastEmpty) < emptyInterval || !certain && now.Sub(c.lastLoad) < doubtInterval
		c.mu.Unlock()

		err := c.reload(ctx, cur, refused, recent)

		c.mu.Lock()
		close(c.flight)
		c.flight = nil
		c.mu.Unlock()
		return err
	}
}

// reload is the body of refresh; only one runs at a time.
func (c *credentialSource) reload(ctx context.Context, cur aws.CredentialsProvider, refused aws.Credentials, recent bool) error {
	if v, err := cur.Retrieve(ctx); err == nil && !sameCredentials(v, refused) {
		return nil // another request has renewed them
	}
	if recent {
		return errNothingNewer
	}
	c.mu.Lock()
	c.lastLoad = c.now()
	c.mu.Unlock()
	next, err := c.load(ctx)
	if err != nil {
		return err
	}
	v, err := next.Retrieve(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if sameCredentials(v, refused) {
		c.lastEmpty = c.now()
		return errNothingNewer
	}
	c.current = next
	return nil
}

// sameCredentials reports whether a and b sign alike.
func sameCredentials(a, b aws.Credentials) bool {
	return a.AccessKeyID == b.AccessKeyID && a.SecretAccessKey == b.SecretAccessKey && a.SessionToken == b.SessionToken
}
