package s3store

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path"
	"strings"
	"time"

	"coffer/objstore"
)

// Config chooses a store and how to talk to it. The zero value is AWS with the
// SDK's default credential chain. [Config.Validate] rejects what makes no
// sense and changes nothing.
type Config struct {
	// Endpoint is the base URL of the store, "" for AWS_ENDPOINT_URL_S3,
	// AWS_ENDPOINT_URL, the profile's endpoint_url, or AWS.
	Endpoint string
	// Region is used for signing. "" takes AWS_REGION or the profile's, then
	// us-east-1; a bucket in another region is found by its own reply.
	Region string
	// Profile names a section of the shared credentials and config files.
	Profile string
	// PathStyle is "auto" (or ""), "on" or "off". Auto puts the bucket into
	// the path for endpoints other than AWS and for names with dots, which
	// no wildcard certificate covers.
	PathStyle string
	// ListVersion is "auto" (or ""), "1" or "2". Auto lists with V2 and
	// changes to V1 for a bucket whose V2 listing is found to lose keys.
	ListVersion string
	// CAFile is a PEM file of certificates that are trusted in addition to
	// the system's.
	CAFile string
	// Anonymous sends requests unsigned.
	Anonymous bool
	// RequesterPays accepts the costs of buckets that ask for it.
	RequesterPays bool
	// AllowHTTP permits plain http to another machine: names, and without
	// client-side encryption contents, cross the network readable.
	AllowHTTP bool
	// Rules choose the encryption by bucket and prefix; the first that
	// matches wins, and without a match the mode is auto.
	Rules []Rule
	// CustomerKeys are the keys of SSE-C: the first is for writing where a
	// rule names no other, all are tried for reading. They go over https or
	// to this machine only, whatever AllowHTTP says.
	CustomerKeys []CustomerKey
	// KMSContext is the encryption context of rules that have none of their
	// own. It is no secret: the KMS logs it.
	KMSContext map[string]string
	// AllowUnencrypted lets plaintext through where a bucket does not
	// encrypt. It weakens every rule.
	AllowUnencrypted bool
	// ReadOnly promises that nothing is written, and so forbids scratch
	// objects.
	ReadOnly bool
	// ProbePrefix is put before the names of scratch objects: "" or a prefix
	// that ends in "/", such as the mounted one, where alone one may write.
	ProbePrefix string
	// JournalDir is a directory of this user for notes of uploads under way,
	// by which [Store.EndDeadUploads] finds those of processes that were
	// killed; "" takes none.
	JournalDir string
	// OperationTimeout bounds one operation with all its repetitions; 0 is
	// 5 minutes. An upload gets a second more for each MiB.
	OperationTimeout time.Duration
	// ProbeTimeout bounds each request that only asks whether something is
	// there or works; 0 is 30 seconds.
	ProbeTimeout time.Duration
	// PartSize is the length in bytes of the first 1,000 parts of an upload,
	// 5 MiB to 1 GiB; 0 is 8 MiB.
	PartSize int64
	// Concurrency is the number of parts in flight for each writer, 1 to
	// 64; 0 is 4.
	Concurrency int
	// Logger receives warnings; nil discards them. No secret is ever logged.
	Logger *slog.Logger
	// UserAgent is added to the User-Agent header, such as "coffer/1.0".
	UserAgent string
}

// Rule is the encryption policy of some keys.
type Rule struct {
	// Pattern is "bucket" or "bucket/prefix". The bucket part is a
	// [path.Match] pattern, the prefix is compared as it stands.
	Pattern string
	// Encryption is the mode that new objects must have, for the KMS modes
	// with a key's id, alias or ARN ("" is the store's default key), for
	// SSE-C with the MD5 of one of the customer keys ("" is the first).
	Encryption objstore.Encryption
	// KMSContext is the encryption context of the KMS modes.
	KMSContext map[string]string
	// AllowUnencrypted lets plaintext through where the bucket does not
	// encrypt as Encryption says.
	AllowUnencrypted bool
}

// Defaults of [Config]; sizes in bytes.
const (
	defaultOperationTimeout = 5 * time.Minute
	defaultProbeTimeout     = 30 * time.Second
	defaultPartSize         = 8 << 20
	defaultConcurrency      = 4
	maxConcurrency          = 64
)

// matches reports whether the rule applies to key in bucket.
func (r Rule) matches(bucket, key string) bool {
	pattern, prefix, _ := strings.Cut(r.Pattern, "/")
	ok, err := path.Match(pattern, bucket)
	return err == nil && ok && strings.HasPrefix(key, prefix)
}

// Validate reports everything about c that cannot work, without any I/O.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Endpoint != "" {
		if err := checkEndpoint(c.Endpoint, c.AllowHTTP); err != nil {
			errs = append(errs, err)
		}
	}
	switch c.PathStyle {
	case "", "auto", "on", "off":
	default:
		bad("path style %q is none of auto, on, off", c.PathStyle)
	}
	switch c.ListVersion {
	case "", "auto", "1", "2":
	default:
		bad("list version %q is none of auto, 1, 2", c.ListVersion)
	}
	for _, r := range c.Rules {
		bucket, _, _ := strings.Cut(r.Pattern, "/")
		if _, err := path.Match(bucket, ""); err != nil || bucket == "" {
			bad("encryption rule %q: the bucket part is not a pattern", r.Pattern)
		}
		if err := c.checkWish(r.Encryption); err != nil {
			bad("encryption rule %q: %w", r.Pattern, err)
		}
		if len(r.KMSContext) > 0 && r.Encryption.Mode != objstore.ModeSSEKMS && r.Encryption.Mode != objstore.ModeDSSEKMS {
			bad("encryption rule %q: an encryption context goes with a KMS mode", r.Pattern)
		}
	}
	for i, k := range c.CustomerKeys {
		if k.MD5() == "" {
			bad("customer key %d is empty", i+1)
		}
	}
	if c.Endpoint != "" {
		if err := checkKeyTransport(c.Endpoint, len(c.CustomerKeys)); err != nil {
			errs = append(errs, err)
		}
	}
	if c.ProbePrefix != "" && !strings.HasSuffix(c.ProbePrefix, "/") {
		bad("probe prefix %q does not end in /", c.ProbePrefix)
	}
	if c.OperationTimeout < 0 || c.ProbeTimeout < 0 {
		bad("timeouts must not be negative")
	}
	if c.PartSize != 0 && (c.PartSize < minPartSize || c.PartSize > maxPlannedPart) {
		bad("part size %d is not between %d and %d bytes", c.PartSize, int64(minPartSize), int64(maxPlannedPart))
	}
	if c.Concurrency < 0 || c.Concurrency > maxConcurrency {
		bad("concurrency %d is not between 1 and %d", c.Concurrency, maxConcurrency)
	}
	if c.Anonymous && c.Profile != "" {
		bad("anonymous access and profile %q exclude each other", c.Profile)
	}
	return errors.Join(errs...)
}

// withDefaults returns c with every zero value replaced by its meaning.
func (c Config) withDefaults() Config {
	if c.OperationTimeout == 0 {
		c.OperationTimeout = defaultOperationTimeout
	}
	if c.ProbeTimeout == 0 {
		c.ProbeTimeout = defaultProbeTimeout
	}
	if c.PartSize == 0 {
		c.PartSize = defaultPartSize
	}
	if c.Concurrency == 0 {
		c.Concurrency = defaultConcurrency
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// rule returns the first rule that matches, and the rule "auto" without one.
func (c Config) rule(bucket, key string) Rule {
	for _, r := range c.Rules {
		if r.matches(bucket, key) {
			r.AllowUnencrypted = r.AllowUnencrypted || c.AllowUnencrypted
			return r
		}
	}
	return Rule{AllowUnencrypted: c.AllowUnencrypted}
}

// SamePolicy reports whether the rules for both keys have the same mode.
func (b *bucket) SamePolicy(key, other string) bool {
	return b.s.cfg.rule(b.name, key).Encryption.Mode == b.s.cfg.rule(b.name, other).Encryption.Mode
}

// checkWish refuses what requests cannot ask for.
func (c Config) checkWish(e objstore.Encryption) error {
	kms := e.Mode == objstore.ModeSSEKMS || e.Mode == objstore.ModeDSSEKMS
	switch {
	case e.KMSKeyID != "" && !kms:
		return fmt.Errorf("a KMS key goes with a KMS mode, not with %q: %w", wordOf(e.Mode), objstore.Unsupported)
	case e.BucketKey && e.Mode != objstore.ModeSSEKMS:
		return fmt.Errorf("a bucket key goes with SSE-KMS, not with %q: %w", wordOf(e.Mode), objstore.Unsupported)
	case e.CustomerKeyMD5 != "" && e.Mode != objstore.ModeSSEC:
		return fmt.Errorf("a customer key goes with SSE-C, not with %q: %w", wordOf(e.Mode), objstore.Unsupported)
	}
	switch e.Mode {
	case objstore.ModeAuto, objstore.ModeNone, objstore.ModeSSES3, objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
		return nil
	case objstore.ModeSSEC:
		for _, k := range c.CustomerKeys {
			if e.CustomerKeyMD5 == "" || k.MD5() == e.CustomerKeyMD5 {
				return nil
			}
		}
		return fmt.Errorf("SSE-C needs a customer key, and no such key is configured: %w", objstore.KeyUnavailable)
	}
	return fmt.Errorf("encryption mode %q: %w", e.Mode, objstore.Unsupported)
}

// checkKeyTransport refuses to send customer keys readable over a network.
func checkKeyTransport(endpoint string, keys int) error {
	u, err := url.Parse(endpoint)
	if keys == 0 || err != nil || u.Scheme == "https" || isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("customer keys (SSE-C) travel with every request, and endpoint %q is not https", endpoint)
}

// checkEndpoint refuses URLs that are not a store's base, and plain http to
// another machine unless it is asked for by name.
func checkEndpoint(endpoint string, allowHTTP bool) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("endpoint %q: %w", endpoint, err)
	}
	if u.User != nil {
		return errors.New("the endpoint must not hold a user name or password")
	}
	if u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("endpoint %q is not a base URL such as https://s3.example.org", endpoint)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if allowHTTP || isLoopback(u.Hostname()) {
			return nil
		}
		return fmt.Errorf("endpoint %q is plain http to another machine, where everybody on the way can read along: use https, or allow it by name (--allow-http)", endpoint)
	}
	return fmt.Errorf("endpoint %q is neither https nor http", endpoint)
}

// isLoopback reports whether host can only be this machine.
func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// isAWS reports whether endpoint is one of AWS; "" is.
func isAWS(endpoint string) bool {
	if endpoint == "" {
		return true
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	h := u.Hostname()
	return strings.HasSuffix(h, ".amazonaws.com") || strings.HasSuffix(h, ".amazonaws.com.cn") ||
		strings.HasSuffix(h, ".api.aws")
}
