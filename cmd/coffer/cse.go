package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/config"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/s3store"
)

// Values of cse-mode besides those of package cse.
const cseOff = "off"

// Values of cse-origin.
const (
	originAny       = "any"
	originAuthentic = "authentic"
)

var (
	cseModes    = []string{string(cse.Require), string(cse.Auto), cseOff}
	cseSigned   = []string{string(cse.SignedAuto), string(cse.SignedStrict), string(cse.SignedReject)}
	cseOrigins  = []string{originAny, originAuthentic}
	cseBindings = []string{string(cse.BindWarn), string(cse.BindStrict), string(cse.BindOff)}
)

// clientSide reports whether the settings ask for encryption on this side.
func clientSide(cfg Config) bool { return cfg.CSEKeyring != "" && cfg.CSEMode.value != cseOff }

// clientEncryption returns how objects are encrypted on this side, nil where they are
// not. It reads the keyring and its keys.
func clientEncryption(ctx context.Context, cfg Config, log *slog.Logger) (*cse.Config, error) {
	if !clientSide(cfg) {
		return nil, nil
	}
	ring, keyContext, err := loadKeyring(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c := &cse.Config{
		Keyring: ring, Context: keyContext, Policy: cse.Policy(cfg.CSEMode.value), Binding: cse.Binding(cfg.CSEBinding.value), Signed: cse.Signed(cfg.CSESigned.value),
		AnySuite: cfg.CSEAnySuite, Declared: cfg.CSESizes, Logger: log,
	}
	return c, c.Validate()
}

// loadKeyring reads the keyring of the settings, and its keys.
func loadKeyring(ctx context.Context, cfg Config) (*keyring.Ring, message.Context, error) {
	ring, c, err := keyring.Load(ctx, cfg.CSEKeyring, kmsClients(ctx, cfg))
	if err == nil && cfg.CSEOrigin.value == originAuthentic {
		if ring, err = ring.Authentic(); err != nil {
			err = fmt.Errorf("cse-origin authentic would not read what the keyring writes: %w", err)
		}
	}
	return ring, c, err
}

// kmsAttempts has a KMS asked for about a minute: where a job starts everywhere at once,
// all of its machines want a data key, and KMS throttles an account. The 3 attempts of
// the SDK end after a few seconds.
const kmsAttempts = 10

// kmsClients returns clients of AWS KMS with the credentials of the settings. The
// endpoint of the settings is that of the store: that of the KMS comes from
// AWS_ENDPOINT_URL_KMS, AWS_ENDPOINT_URL or the profile.
func kmsClients(ctx context.Context, cfg Config) keyring.KMSClients {
	return func(region string) (keyring.KMSClient, error) {
		opts := []func(*config.LoadOptions) error{config.WithRegion(cfg.Region), config.WithSharedConfigProfile(cfg.Profile)}
		if cfg.CAFile != "" {
			f, err := os.Open(cfg.CAFile)
			if err != nil {
				return nil, fmt.Errorf("ca-file: %w", err)
			}
			defer f.Close()
			opts = append(opts, config.WithCustomCABundle(f))
		}
		loaded, err := config.LoadDefaultConfig(ctx, opts...)
		if err != nil {
			return nil, err
		}
		if loaded.Region == "" && region == "" {
			return nil, errors.New("a key of AWS KMS needs a region: --region, AWS_REGION, the profile's, or that of the key's ARN")
		}
		if loaded.RetryMaxAttempts == 0 { // AWS_MAX_ATTEMPTS, and the profile's
			loaded.RetryMaxAttempts = kmsAttempts
		}
		return keyring.NewKMSClient(loaded, region), nil
	}
}

// acceptPlainStore leaves it to the store whether it encrypts as well, but where a mode
// is asked for by name.
func acceptPlainStore(c *s3store.Config) {
	for i, r := range c.Rules {
		if m := r.Encryption.Mode; m == objstore.ModeAuto || m == objstore.ModeNone {
			c.Rules[i].AllowUnencrypted = true
		}
	}
}

// declaredSizes is a list of declarations, written with colons between them.
type declaredSizes []cse.Declared

func (l *declaredSizes) Set(s string) error {
	more, err := cse.ParseDeclared(s)
	*l = append(*l, more...)
	return err
}

func (l *declaredSizes) Append(s string) error { return l.Set(s) }

func (l *declaredSizes) Replace(all []string) error {
	*l = nil
	for _, s := range all {
		if err := l.Set(s); err != nil {
			return err
		}
	}
	return nil
}

func (l *declaredSizes) GetSlice() (all []string) {
	for _, d := range *l {
		all = append(all, d.String())
	}
	return all
}

func (l *declaredSizes) Type() string   { return "sizes" }
func (l *declaredSizes) String() string { return strings.Join(l.GetSlice(), ":") }

func (l *declaredSizes) UnmarshalYAML(unmarshal func(any) error) error {
	var many []string
	if err := unmarshal(&many); err == nil {
		return l.Replace(many)
	}
	var one string
	if err := unmarshal(&one); err != nil {
		return err
	}
	return l.Replace([]string{one})
}
