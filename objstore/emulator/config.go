package emulator

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Config describes a server. Only Dir is required.
type Config struct {
	// Dir holds the server's state; it is made when it is absent.
	Dir string
	// Dialect names the behaviour, one of [Dialects]; "" is "aws".
	Dialect string
	// AccessKeyID and SecretAccessKey are the credentials of the one account.
	// Both or none are given; with none they are made at random.
	AccessKeyID, SecretAccessKey string
	// Region is what requests must be signed for; "" is "us-east-1".
	Region string
	// TLS serves https, with a certificate of its own making that
	// [Server.CAFile] names.
	TLS bool
	// LossyV2 makes ListObjectsV2 lose keys: a page of exactly 1,000 entries
	// says that it is the last. Version 1 stays whole.
	LossyV2 bool
	// AllowSSECOverHTTP lets customer keys (SSE-C) come over plain http. Amazon
	// S3 and MinIO refuse that, as this server does by default; on loopback
	// nobody listens, so tests and the command set it.
	AllowSSECOverHTTP bool
	// Fsync makes every change survive a loss of power as well. Without it a
	// change survives the death of the process, kill -9 included.
	Fsync bool
	// IdleTimeout closes connections that carried no request for so long;
	// 0 is one minute. Real servers go down to five seconds.
	IdleTimeout time.Duration
	// LogSize is how many requests [Server.Requests] remembers, the latest;
	// 0 is 65,536. A request takes about 1 KiB.
	LogSize int
	// Logger gets what goes wrong inside; nil discards it.
	Logger *slog.Logger
}

// Validate reports what is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no Dir is given"))
	}
	if _, err := dialectByName(c.dialectName()); err != nil {
		errs = append(errs, err)
	}
	if (c.AccessKeyID == "") != (c.SecretAccessKey == "") {
		errs = append(errs, errors.New("AccessKeyID and SecretAccessKey go together"))
	}
	if c.IdleTimeout < 0 {
		errs = append(errs, fmt.Errorf("IdleTimeout %v is negative", c.IdleTimeout))
	}
	if c.LogSize < 0 {
		errs = append(errs, fmt.Errorf("LogSize %d is negative", c.LogSize))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("emulator: invalid configuration: %w", err)
	}
	return nil
}

func (c Config) dialectName() string {
	if c.Dialect == "" {
		return "aws"
	}
	return c.Dialect
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	c.Dialect = c.dialectName()
	if c.AccessKeyID == "" {
		// The form of real keys: some clients look at it.
		c.AccessKeyID, c.SecretAccessKey = "AKIA"+rand.Text()[:16], rand.Text()+rand.Text()[:14]
	}
	if c.Region == "" {
		c.Region = "us-east-1"
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = time.Minute
	}
	if c.LogSize == 0 {
		c.LogSize = 1 << 16
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
