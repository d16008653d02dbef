package s3store

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// defaultRegion signs requests to stores that care for none.
const defaultRegion = "us-east-1"

// Store is an account at an S3 endpoint. It is safe for concurrent use and
// runs no goroutine of its own.
type Store struct {
	cfg       Config // with defaults
	log       *slog.Logger
	endpoint  string // "" for AWS
	region    string
	aws       bool
	base      aws.Config
	creds     *credentialSource // nil for anonymous access
	roots     *x509.CertPool    // nil for the system's
	transport *http.Transport
	caps      capabilities
	chunks    chunkPool
	patience  patience

	mu      sync.Mutex
	clients map[clientKey]*s3.Client
	buckets map[string]*bucket // by name, with what was learned about each
}

// clientKey tells clients apart: the SDK fixes both for a client's life.
type clientKey struct {
	region    string
	pathStyle bool
}

var (
	_ objstore.Store   = (*Store)(nil)
	_ objstore.Uploads = (*Store)(nil)
)

// New returns a store without sending it anything. It reads the environment
// and the shared configuration files, and fails where cfg is invalid, no
// profile of that name exists or the endpoint would be plain http to another
// machine.
func New(ctx context.Context, cfg Config) (*Store, error) {
	return newStore(ctx, cfg, defaultPatience)
}

func newStore(ctx context.Context, cfg Config, p patience) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	cfg = cfg.withDefaults()
	roots, err := loadRoots(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	s := &Store{
		cfg: cfg, log: cfg.Logger, patience: p, roots: roots,
		clients: map[clientKey]*s3.Client{}, buckets: map[string]*bucket{},
	}
	if s.base, err = s.loadConfig(ctx); err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	// AWS_CA_BUNDLE and the profile's ca_bundle have been added by now.
	if c, ok := s.base.HTTPClient.(*awshttp.BuildableClient); ok {
		roots = c.GetTransport().TLSClientConfig.RootCAs
	}
	s.transport = newTransport(roots)
	s.region = s.base.Region
	if s.region == "" {
		s.region = defaultRegion
		s.base.Region = s.region
	}
	if !cfg.Anonymous {
		s.creds = newCredentialSource(s.base.Credentials, func(ctx context.Context) (aws.CredentialsProvider, error) {
			fresh, err := s.loadConfig(ctx)
			return fresh.Credentials, err
		})
	}
	if err := s.resolveEndpoint(); err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	return s, nil
}

// loadConfig reads the SDK's whole default chain.
func (s *Store) loadConfig(ctx context.Context) (aws.Config, error) {
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.TLSClientConfig.MinVersion = tls.VersionTLS12
			t.TLSClientConfig.RootCAs = s.roots
		})),
		config.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		config.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	if s.cfg.Region != "" {
		opts = append(opts, config.WithRegion(s.cfg.Region))
	}
	if s.cfg.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(s.cfg.Profile))
	}
	if s.cfg.Endpoint != "" {
		opts = append(opts, config.WithBaseEndpoint(s.cfg.Endpoint))
	}
	if s.cfg.Anonymous {
		opts = append(opts, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	}
	return config.LoadDefaultConfig(ctx, opts...)
}

// resolveEndpoint finds the endpoint in force. Only a client knows it: the
// variables for all services and for S3, the profile's sections and the one
// that ignores them all are combined by the SDK.
func (s *Store) resolveEndpoint() error {
	opts := s3.NewFromConfig(s.base).Options()
	s.endpoint = s.cfg.Endpoint
	if s.endpoint == "" {
		s.endpoint = aws.ToString(opts.BaseEndpoint)
	}
	if s.endpoint != "" {
		if err := checkEndpoint(s.endpoint, s.cfg.AllowHTTP); err != nil {
			return err
		}
	}
	s.aws = isAWS(s.endpoint)
	return nil
}

// pathStyle decides where the bucket's name goes.
func (s *Store) pathStyle(bucket string) bool {
	switch s.cfg.PathStyle {
	case "on":
		return true
	case "off":
		return false
	}
	return !s.aws || strings.Contains(bucket, ".")
}

// client returns the client for bucket in region; "" is the store's own.
func (s *Store) client(bucket, region string) *s3.Client {
	if region == "" {
		region = s.region
	}
	k := clientKey{region: region, pathStyle: s.pathStyle(bucket)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[k]; c != nil {
		return c
	}
	c := s3.NewFromConfig(s.base, func(o *s3.Options) {
		o.Region = k.region
		o.UsePathStyle = k.pathStyle
		if s.endpoint != "" {
			o.BaseEndpoint = aws.String(s.endpoint)
		}
		o.HTTPClient = &httpClient{transport: s.transport, patience: s.patience}
		o.RetryMaxAttempts = 0
		o.Retryer = newRetryer(s.creds)
		if s.creds != nil {
			o.Credentials = s.creds
		}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		o.APIOptions = append(o.APIOptions, setHeaders)
		if s.cfg.RequesterPays {
			o.APIOptions = append(o.APIOptions, smithyhttp.AddHeaderValue("x-amz-request-payer", "requester"))
		}
		if s.cfg.UserAgent != "" {
			o.AppID = ""
			o.APIOptions = append(o.APIOptions, userAgent(s.cfg.UserAgent))
		}
	})
	s.clients[k] = c
	return c
}

// unsigned leaves the body out of the signature. Uploads do: every body
// carries a CRC32 or an MD5 in a signed header, and a SHA-256 on top would
// cost more than all the rest of an upload.
func unsigned(o *s3.Options) {
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

// userAgent appends ua to the header that the SDK builds.
func userAgent(ua string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Build.Add(middleware.BuildMiddlewareFunc("CofferUserAgent",
			func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
				if req, ok := in.Request.(*smithyhttp.Request); ok {
					req.Header.Set("User-Agent", strings.TrimSpace(req.Header.Get("User-Agent")+" "+ua))
				}
				return next.HandleBuild(ctx, in)
			}), middleware.After)
	}
}

// Identity returns endpoint and region as one stable string.
func (s *Store) Identity() string {
	if s.aws && s.endpoint == "" {
		return "aws/" + s.region
	}
	return strings.TrimSuffix(s.endpoint, "/") + "/" + s.region
}

// Close frees idle connections. Requests under way are governed by their own
// contexts and readers by their Close.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Buckets returns the buckets of the account by name.
func (s *Store) Buckets(ctx context.Context) ([]objstore.BucketInfo, error) {
	var all []objstore.BucketInfo
	in := &s3.ListBucketsInput{}
	for {
		out, err := do(ctx, s.op("list buckets", "", ""), func(ctx context.Context) (*s3.ListBucketsOutput, error) {
			return s.client("", "").ListBuckets(ctx, in)
		})
		if err != nil {
			return nil, err
		}
		for _, b := range out.Buckets {
			all = append(all, objstore.BucketInfo{Name: aws.ToString(b.Name), Created: aws.ToTime(b.CreationDate)})
		}
		if aws.ToString(out.ContinuationToken) == "" || len(out.Buckets) == 0 {
			slices.SortFunc(all, func(a, b objstore.BucketInfo) int { return cmp.Compare(a.Name, b.Name) })
			return all, nil
		}
		in.ContinuationToken = out.ContinuationToken
	}
}

// Open returns the bucket after a HeadBucket. The same name gives the same
// Bucket, with all that was learned about it.
func (s *Store) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	return s.open(ctx, name)
}

func (s *Store) open(ctx context.Context, name string) (*bucket, error) {
	if err := checkBucketName(name); err != nil {
		return nil, newError("open bucket", name, objstore.NotExist, "%w", err)
	}
	region, err := s.headBucket(ctx, name, s.knownRegion(name))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if b := s.buckets[name]; b != nil && b.region == region {
		s.mu.Unlock()
		return b, nil
	}
	s.mu.Unlock()
	b := newBucket(s, name, region)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.buckets[name]; have != nil && have.region == region {
		return have, nil // another Open was first; its knowledge is shared
	}
	s.buckets[name] = b
	return b, nil
}

// knownRegion returns the region in which name was opened before.
func (s *Store) knownRegion(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[name]; b != nil {
		return b.region
	}
	return ""
}

// regionOf returns the region of name, asking for it when it was not opened
// before. A refusal is no failure here: the request to come will meet it.
func (s *Store) regionOf(ctx context.Context, name string) string {
	if r := s.knownRegion(name); r != "" || !s.aws {
		return r
	}
	r, err := s.headBucket(ctx, name, "")
	if err != nil {
		return ""
	}
	return r
}

// forget drops what was learned about a bucket that is gone.
func (s *Store) forget(name string) {
	s.mu.Lock()
	delete(s.buckets, name)
	s.mu.Unlock()
}

// headBucket asks for the bucket and returns the region that serves it,
// following the region that a reply names once.
func (s *Store) headBucket(ctx context.Context, name, region string) (string, error) {
	head := func(region string) (*s3.HeadBucketOutput, error) {
		return do(ctx, s.probe("open bucket", name, ""), func(ctx context.Context) (*s3.HeadBucketOutput, error) {
			return s.client(name, region).HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String(name)})
		})
	}
	if region == "" {
		region = s.region
	}
	_, err := head(region)
	if err == nil {
		return region, nil
	}
	other := headerOf(err, "x-amz-bucket-region")
	if other == "" && !s.aws && statusOf(err) == http.StatusBadRequest {
		other = s.bucketLocation(ctx, name)
	}
	if other == "" || other == region {
		return "", err
	}
	if _, err := head(other); err != nil {
		return "", err
	}
	return other, nil
}

// bucketLocation asks for the region of a bucket; "" when that is refused.
// Only stores other than AWS need it, whose replies do not name the region.
func (s *Store) bucketLocation(ctx context.Context, name string) string {
	out, err := do(ctx, s.probe("find region", name, ""), func(ctx context.Context) (*s3.GetBucketLocationOutput, error) {
		return s.client(name, "").GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: aws.String(name)})
	})
	if err != nil {
		return ""
	}
	if out.LocationConstraint == "" {
		return defaultRegion
	}
	if out.LocationConstraint == types.BucketLocationConstraintEu {
		return "eu-west-1" // the old name
	}
	return string(out.LocationConstraint)
}

// DeleteBucket removes an empty bucket.
func (s *Store) DeleteBucket(ctx context.Context, name string) error {
	if err := checkBucketName(name); err != nil {
		return newError("delete bucket", name, objstore.NotExist, "%w", err)
	}
	b := newBucket(s, name, s.regionOf(ctx, name))
	err := b.remove(ctx)
	if errors.Is(err, objstore.NotEmpty) && b.removeProbes(ctx) {
		err = b.remove(ctx)
	}
	if err == nil {
		s.forget(name)
	}
	return err
}

// remove sends the request to delete the bucket.
func (b *bucket) remove(ctx context.Context) error {
	_, st, err := doState(ctx, b.s.op("delete bucket", b.name, ""), func(ctx context.Context) (*s3.DeleteBucketOutput, error) {
		return b.client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(b.name)})
	})
	if err != nil && errors.Is(err, objstore.NotExist) && st.retries > 0 {
		return nil // an earlier attempt did it and its reply was lost
	}
	return err
}

// checkBucketName applies S3's rules for names, so that no request is made of
// one that could mean something else in a URL.
func checkBucketName(name string) error {
	bad := func(why string) error { return fmt.Errorf("%w: bucket name %q %s", objstore.InvalidName, name, why) }
	switch {
	case len(name) < 3 || len(name) > 63:
		return bad("is not 3 to 63 characters long")
	case strings.Contains(name, ".."):
		return bad("has two dots in a row")
	case net.ParseIP(name) != nil:
		return bad("looks like an IP address")
	case strings.HasPrefix(name, "xn--"):
		return bad("begins with xn--")
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !letter && (r != '-' && r != '.' || i == 0 || i == len(name)-1) {
			return bad("may hold a-z, 0-9, and inside also dots and hyphens, and nothing else")
		}
	}
	return nil
}
