package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"coffer/objstore"
)

// createEncryptedName is a subcommand and a name of the program: sites whose
// storage came with a command of this name keep their scripts.
const createEncryptedName = "create-encrypted-bucket"

const createEncryptedLong = `Create a bucket with server-side encryption on, print "create-encrypted-bucket
Success." and exit with 0 only when it is proved that objects in it are
encrypted; otherwise the bucket is removed again. It is "coffer mb" without the
choice of none: --allow-unencrypted and --sse none, from wherever they come,
have no effect. A bucket that exists already is never touched.

The program does this too when it is called by the name create-encrypted-bucket,
as through a symbolic link.`

// newCreateEncrypted builds "coffer create-encrypted-bucket".
func newCreateEncrypted(a *app) *cobra.Command {
	scratch := defaultConfig()
	cmd := &cobra.Command{
		Use:     createEncryptedName + " [flags] s3://NAME",
		Short:   "Make a bucket that is proved to encrypt, or none",
		Long:    createEncryptedLong + "\n\n" + exitCodeHelp,
		Example: "  coffer create-encrypted-bucket --endpoint-url https://s3.example.org s3://dataset-s0001\n  create-encrypted-bucket --endpoint-url https://s3.example.org s3://dataset-s0001",
		Args:    argCount(1, 1, "s3://NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bucket, cfg, err := a.newBucketArgs(cmd, args)
			if err != nil {
				return err
			}
			cfg.demandEncryption()
			return a.withStore(cfg, func(ctx context.Context, store *connection) error {
				enc, err := store.CreateBucket(ctx, bucket, objstore.CreateBucketOptions{})
				switch {
				case objstore.KindOf(err) == objstore.Unencrypted:
					return fmt.Errorf("the endpoint was not proved to encrypt s3://%s, so there is no such bucket: %w", bucket, err)
				case err != nil:
					return explainCreate(bucket, err)
				case !enc.Encrypted():
					// No policy is left that lets this happen.
					return &exitError{exitUnencrypted, fmt.Errorf("s3://%s was created and does not encrypt: remove it", bucket)}
				}
				fmt.Fprintln(a.stdout, createEncryptedName+" Success.")
				return nil
			})
		},
	}
	bindFlags(cmd.Flags(), &scratch, storeGroups...)
	return cmd
}

// demandEncryption takes back every permission to store plaintext.
func (c *Config) demandEncryption() {
	c.AllowUnencrypted = false
	if c.SSE.value == sseNone {
		c.SSE.value = sseAuto
	}
	rules := make([]encryptionRule, len(c.Encryption))
	for i, r := range c.Encryption {
		r.AllowUnencrypted = false
		if r.SSE.value == sseNone {
			r.SSE.value = sseAuto
		}
		rules[i] = r
	}
	c.Encryption = rules
}
