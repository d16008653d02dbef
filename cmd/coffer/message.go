package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

const encryptFileLong = `Encrypt a file, or what comes on stdin, to stdout: one message of the AWS
Encryption SDK for the keys of --cse-keyring, as a mount stores files. Every
program with that library decrypts it, and so does coffer decrypt.`

const decryptLong = `Decrypt one message of the AWS Encryption SDK, a file or what comes on stdin, to
stdout: an object as it lies in the store, or what another program encrypted.
What is written is authentic, piece by piece; only with exit code 0 it is whole,
and the signature, if there is one, has been verified. Until then the last piece
is held back.`

// newEncryptFile builds "coffer encrypt-file".
func newEncryptFile(a *app) *cobra.Command {
	return a.newMessageCommand(&cobra.Command{
		Use:     "encrypt-file [flags] [FILE]",
		Short:   "Encrypt a file as a mount does",
		Long:    encryptFileLong,
		Example: "  coffer encrypt-file --cse-keyring keys.yaml data.h5 > data.h5.encrypted",
	}, func(ctx context.Context, _ Config, ring *keyring.Ring, c message.Context, w io.Writer, r io.Reader) error {
		return cse.Encrypt(ctx, ring, c, w, r)
	})
}

// newDecrypt builds "coffer decrypt".
func newDecrypt(a *app) *cobra.Command {
	return a.newMessageCommand(&cobra.Command{
		Use:     "decrypt [flags] [FILE]",
		Short:   "Decrypt a file or an object",
		Long:    decryptLong,
		Example: "  aws s3 cp s3://dataset/data.h5 - | coffer decrypt --cse-keyring keys.yaml > data.h5",
	}, func(ctx context.Context, cfg Config, ring *keyring.Ring, _ message.Context, w io.Writer, r io.Reader) error {
		return cse.Decrypt(ctx, ring, cfg.CSEAnySuite, w, r)
	})
}

// newMessageCommand completes a command that makes one stream of another, by the keys of
// --cse-keyring.
func (a *app) newMessageCommand(cmd *cobra.Command, do func(context.Context, Config, *keyring.Ring, message.Context, io.Writer, io.Reader) error) *cobra.Command {
	scratch := defaultConfig()
	cmd.Long += "\n\n" + exitCodeHelp
	cmd.Args = argCount(0, 1, "[FILE]")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
		if err != nil {
			return err
		}
		if cfg.CSEKeyring == "" {
			return usageErrorf("%s needs --cse-keyring", cmd.Name())
		}
		// Plaintext passes through this process.
		if err := errors.Join(forbidCore(), hideMemory()); err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer cancel()
		ring, c, err := loadKeyring(ctx, cfg)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		in, name := a.stdin, "stdin"
		if len(args) > 0 {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in, name = f, args[0]
		}
		out := bufio.NewWriterSize(a.stdout, 1<<20)
		if err := do(ctx, cfg, ring, c, out, in); err != nil {
			_ = out.Flush() // what is there is authentic
			return fmt.Errorf("%s %s: %w", cmd.Name(), name, err)
		}
		return out.Flush()
	}
	bindFlags(cmd.Flags(), &scratch, storeGroups...)
	return cmd
}
