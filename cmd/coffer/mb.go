package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"coffer/objstore"
)

const mbLong = `Create a bucket with server-side encryption on, and prove it. Its default becomes
what --sse, or the rule of the config file for it, names; the bucket's settings
are read back where the endpoint serves them, and a scratch object is written
and looked at. A bucket that cannot be proved to encrypt is removed again and
the command fails, unless --allow-unencrypted is given. A bucket that exists
already is never touched.

mkdir in a mount of all buckets does the same.`

// newBucketArgs returns the bucket and the settings of a command that makes one.
func (a *app) newBucketArgs(cmd *cobra.Command, args []string) (bucket string, cfg Config, err error) {
	if bucket, err = parseBucketArg(args[0]); err != nil {
		return "", Config{}, &exitError{exitUsage, err}
	}
	cfg, err = resolveConfig(cmd.Flags(), a.env, nil)
	return bucket, cfg, err
}

// newMB builds "coffer mb".
func newMB(a *app) *cobra.Command {
	scratch := defaultConfig()
	cmd := &cobra.Command{
		Use:     "mb [flags] s3://NAME",
		Short:   "Make a bucket that is proved to encrypt",
		Long:    mbLong + "\n\n" + exitCodeHelp,
		Example: "  coffer mb s3://dataset-s0001\n  coffer mb --sse kms --sse-kms-key-id alias/project s3://dataset-s0001\n  coffer mb --endpoint-url https://s3.example.org --allow-unencrypted s3://scratch",
		Args:    argCount(1, 1, "s3://NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bucket, cfg, err := a.newBucketArgs(cmd, args)
			if err != nil {
				return err
			}
			return a.withStore(cfg, func(ctx context.Context, store *connection) error {
				enc, err := store.CreateBucket(ctx, bucket, objstore.CreateBucketOptions{AllowUnencrypted: cfg.AllowUnencrypted})
				if err != nil {
					return explainCreate(bucket, err)
				}
				if !enc.Encrypted() {
					fmt.Fprintf(a.stdout, "s3://%s created. It does NOT encrypt: objects rest in plaintext.\n", bucket)
					return nil
				}
				fmt.Fprintf(a.stdout, "s3://%s created and proved: new objects are encrypted (%s%s).\n", bucket, enc.Word(), parenthesised(enc.SSEHeader()))
				return nil
			})
		},
	}
	bindFlags(cmd.Flags(), &scratch, storeGroups...)
	return cmd
}

// parenthesised returns ", header" for a header's value.
func parenthesised(header string) string {
	if header == "" {
		return ""
	}
	return ", x-amz-server-side-encryption: " + header
}

// explainCreate adds what to do to the errors that a user can act on.
func explainCreate(bucket string, err error) error {
	switch {
	case errors.Is(err, objstore.Exist):
		return fmt.Errorf("s3://%s exists already and was not touched: %w", bucket, err)
	case errors.Is(err, objstore.Unencrypted):
		return fmt.Errorf("the endpoint was not proved to encrypt s3://%s, so the bucket was removed again; --allow-unencrypted keeps it: %w", bucket, err)
	}
	return err
}

// withStore calls do with a connection to the store, until it returns or the
// user interrupts.
func (a *app) withStore(cfg Config, do func(context.Context, *connection) error) (err error) {
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer cancel()
	var out io.Writer = a.stderr
	if cfg.LogFile != "" {
		f, err := openLogFile(cfg.LogFile, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	store, err := openStore(ctx, cfg, "", "", nil, newLogger(out, cfg))
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, store), store.Close())
}
