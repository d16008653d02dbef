package s3store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
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
	conns     *conns
	caps      capabilities
	journal   *journal // nil for none
	chunks    chunkPool
	keys      *keyring
	signer    signer
	skew      atomic.Int64 // the store's clock less ours, in ns
	patience  patience
	copyWhole int64         // the longest object in bytes that one CopyObject takes
	through   chan struct{} // a token for each copy through this machine

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
		cfg: cfg, log: cfg.Logger, patience: p, copyWhole: maxPartSize, roots: roots,
		through: make(chan struct{}, copiesThrough), keys: newKeyring(cfg.CustomerKeys), clients: map[clientKey]*s3.Client{}, buckets: map[string]*bucket{},
	}
	if s.base, err = s.loadConfig(ctx); err != nil {
		return nil, fmt.Errorf("s3store: %w", err)
	}
	// AWS_CA_BUNDLE and the profile's ca_bundle have been added by now.
	if c, ok := s.base.HTTPClient.(*awshttp.BuildableClient); ok {
		roots = c.GetTransport().TLSClientConfig.RootCAs
	}
	s.transport = newTransport(roots)
	s.conns = newConns(s.transport, p)
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
	if cfg.JournalDir != "" {
		if s.journal, err = newJournal(cfg.JournalDir, s.log); err != nil {
			s.log.Warn("no journal of uploads: what a killed process leaves of them is not found", "err", err)
		}
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
		// The SDK would write to stderr, where a daemon's user looks for one line.
		config.WithLogger(logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
			s.log.Debug("aws sdk", "msg", fmt.Sprintf(format, v...))
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
		if err := checkKeyTransport(s.endpoint, len(s.cfg.CustomerKeys)); err != nil {
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
		o.APIOptions = append(o.APIOptions, s.keys.setHeaders)
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
	s.conns.close()
	return s.journal.close()
}
