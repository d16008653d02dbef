package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"coffer/objstore/emulator"
)

const emulatorLong = `Serve S3 on the loopback interface, for development and tests. Objects are kept
in --dir and survive a crash; server-side encryption really encrypts there.

Once it listens it prints lines for a shell to evaluate, export NAME=VALUE, for
AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KMS, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_REGION. The AWS KMS API is served at the same
address. With --tls it also prints AWS_CA_BUNDLE, the file with the server's
self-signed certificate. It ends on SIGTERM or SIGINT.

The keys are taken from COFFER_EMULATOR_ACCESS_KEY_ID and
COFFER_EMULATOR_SECRET_ACCESS_KEY, else made up anew.

Dialects: aws (every bucket encrypts by default, as on AWS), minio and scality
(as those servers differ from AWS), scality74 (Scality before bucket encryption
could be asked for), liar (answers 200 to every request for encryption and stores
plaintext), nosse (does not know encryption). The last two show how Coffer
refuses such stores. With --lossy-v2 ListObjectsV2 loses what comes after the
first 1,000 keys, as one service does.

SSE-C is taken over plain http as well, since the server listens on loopback.`

const emulatorExample = `  coffer emulator --dir /tmp/s3 > env &
  until [ -s env ]; do sleep 0.1; done; . ./env
  coffer mount ~/s3`

// newEmulator builds "coffer emulator".
func newEmulator(a *app) *cobra.Command {
	var listen, dir, dialect string
	var useTLS, lossyV2 bool
	cfg := defaultConfig()
	cmd := &cobra.Command{
		Use:     "emulator --dir DIRECTORY [flags]",
		Short:   "Serve S3 on loopback for development",
		Long:    emulatorLong,
		Example: emulatorExample,
		Args:    argCount(0, 0, "flags only"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageErrorf("--dir is needed: the directory to keep objects in")
			}
			ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer cancel()
			id, _ := a.env("COFFER_EMULATOR_ACCESS_KEY_ID")
			secret, _ := a.env("COFFER_EMULATOR_SECRET_ACCESS_KEY")
			if (id == "") != (secret == "") {
				return usageErrorf("COFFER_EMULATOR_ACCESS_KEY_ID and COFFER_EMULATOR_SECRET_ACCESS_KEY belong together")
			}
			srv, err := emulator.New(emulator.Config{
				Dir: dir, Dialect: dialect, AllowSSECOverHTTP: true, TLS: useTLS, LossyV2: lossyV2,
				AccessKeyID: id, SecretAccessKey: secret, Logger: newLogger(a.stderr, cfg),
			})
			if err != nil {
				return err
			}
			if err := srv.Listen(listen); err != nil {
				return errors.Join(err, srv.Close())
			}
			// One write: a reader never sees half of the lines.
			var lines strings.Builder
			for _, kv := range srv.Env() {
				name, value, _ := strings.Cut(kv, "=")
				fmt.Fprintf(&lines, "export %s=%s\n", name, shellQuote(value))
			}
			if _, err := fmt.Fprint(a.stdout, lines.String()); err != nil {
				return errors.Join(err, srv.Close())
			}
			<-ctx.Done()
			return srv.Close()
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "loopback `address` to serve on; port 0 picks a free one")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` to keep objects in, made if absent")
	cmd.Flags().StringVar(&dialect, "dialect", "aws", "`name` of the behaviour: "+strings.Join(emulator.Dialects(), ", "))
	cmd.Flags().BoolVar(&useTLS, "tls", false, "serve https with a self-signed certificate")
	cmd.Flags().BoolVar(&lossyV2, "lossy-v2", false, "let ListObjectsV2 lose keys past 1,000")
	cmd.Flags().Var(&cfg.LogLevel, "log-level", "least level that is logged, to stderr")
	cmd.Flags().Var(&cfg.LogFormat, "log-format", "form of log lines")
	return cmd
}

// shellQuote returns s as one word for a shell, bare where that is safe.
func shellQuote(s string) string {
	safe := func(r rune) bool {
		return r == '/' || r == ':' || r == '.' || r == '-' || r == '_' || r == '+' || r == '=' ||
			r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
